"""Datasets: they are what they declare, the same each time, and their splits lie apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from zoo.catalogue import Part
from zoo.contract import kinds_of
from zoo.data.batch import collate
from zoo.data.fetch import files_of
from zoo.kinds import (
    IGNORE,
    STEPWISE,
    Actions,
    Classes,
    Episodes,
    Events,
    Forecast,
    Ids,
    Image,
    Labels,
    Maps,
    NextEvent,
    NextId,
    Questions,
    Series,
    Values,
    Vector,
)
from zoo.specs import DatasetSpec
from zoo.testing.check import ConformanceError, NotApplicable
from zoo.testing.measure import require
from zoo.testing.subject import Subject

#: Examples of a split that are looked at one by one.
LOOKED_AT = 64
#: Examples per split whose contents are compared with those of train.
COMPARED = 20_000
#: The share of test (or val) examples that may also be in train: real data repeats itself now and then.
SHARED = 0.01


def check_data_card(subject: Subject) -> None:
    spec = cast(DatasetSpec, subject.spec)
    if spec.own:
        raise NotApplicable("it is the user's own data")
    missing = [
        name
        for name in ("licence", "source", "examples", "baseline", "known_good")
        if not getattr(spec, name).strip()
    ]
    require(not missing, f"the spec does not state: {', '.join(missing)}")
    for name in ("baseline", "known_good"):
        text = getattr(spec, name)
        require(bool(re.search(r"\d", text)), f"{name} states no number: {text!r}")


def check_data_kinds(subject: Subject) -> None:
    inputs, targets = kinds_of(subject.catalogue, Part("dataset", subject.spec.id, subject.config))
    spec = cast(DatasetSpec, subject.spec)
    require(
        not spec.own or (inputs, targets) == (spec.inputs, spec.targets),
        f"the example gives {inputs} and {targets}, but the spec declares {spec.inputs} and {spec.targets}",
    )
    for name, split in _splits(subject):
        indices = _indices(split)
        for index in indices:
            example = split[index]
            where = f"{name}[{index}]"
            require(
                {"input", "target"} <= example.keys(),
                f"{where} has {sorted(example)}, expected input, target",
            )
            _check_input(example["input"], inputs, where)
            _check_target(example["target"], targets, example["input"], where)
        batch = collate(
            split.__getitems__(indices) if hasattr(split, "__getitems__") else [split[i] for i in indices]
        )
        require(
            len(batch["input"]) == len(indices),
            f"{name}: a batch of {len(indices)} has {len(batch['input'])}",
        )
        for position in (0, len(indices) - 1):
            single = split[indices[position]]["input"]
            length = int(batch["length"][position]) if "length" in batch else len(single)
            joined = batch["input"][position]
            joined = joined[:length] if inputs.kind in STEPWISE else joined
            require(torch.equal(joined, single), f"{name}[{indices[position]}] differs alone and in a batch")


def check_data_repeats(subject: Subject) -> None:
    first, second = dict(_splits(subject)), dict(_splits(subject))
    for name, split in first.items():
        require(
            len(split) == len(second[name]),
            f"{name} has {len(split)} examples, loaded again {len(second[name])}",
        )
        for index in _indices(split):
            digest = _digest(split[index])
            require(digest == _digest(split[index]), f"{name}[{index}], read twice, differs")
            require(digest == _digest(second[name][index]), f"{name}[{index}] differs when loaded again")


def check_splits_apart(subject: Subject) -> None:
    splits = dict(_splits(subject))
    train = {_digest(example) for example in _some(splits.pop("train"))}
    for name, split in splits.items():
        digests = [_digest(example) for example in _some(split)]
        shared = sum(digest in train for digest in digests)
        require(
            shared <= SHARED * len(digests),
            f"{shared} of {len(digests)} {name} examples are also in train, allowed {SHARED:.0%}",
        )


def load(subject: Subject) -> Any:
    """What the dataset loads into; a dataset that would have to be fetched first is skipped."""
    files = files_of(subject.catalogue, Part("dataset", subject.spec.id, subject.config))
    if files is not None and not files.cached:
        raise NotApplicable(f"its files are not here; '{files.command}' fetches them")
    return subject.spec.load()(subject.config)


def _splits(subject: Subject) -> Iterator[tuple[str, Any]]:
    loaded = load(subject)
    for name in ("train", "val", "test"):
        split = getattr(loaded, name, None)
        if split is None:
            raise ConformanceError(
                f"load() gave {type(loaded).__name__} without a {name} split, expected Splits"
            )
        yield name, split


def _indices(split: Any) -> list[int]:
    """The first examples, some in between, the last."""
    size = len(split)
    return sorted(
        {*range(min(size, LOOKED_AT // 2)), *range(0, size, max(1, size // LOOKED_AT * 2)), size - 1}
    )


def _some(split: Any) -> Iterator[Any]:
    step = max(1, len(split) // COMPARED)
    for index in range(0, len(split), step):
        yield split[index]


def _digest(example: dict[str, Any]) -> bytes:
    hashed = hashlib.sha256()
    target = example["target"]
    several = target if isinstance(target, dict) else {"target": target}
    for name, tensor in {"input": example["input"], **several}.items():
        tensor = tensor.contiguous()
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.numpy().tobytes())
    return hashed.digest()


def _check_input(x: Tensor, kind: Any, where: str) -> None:
    if isinstance(kind, Ids):
        _check_ids(x, kind.vocab, f"{where}: input")
        _check_length(x, kind, where)
        return
    shape: tuple[int, ...]
    if isinstance(kind, Series):
        shape = (x.shape[0], kind.channels)
    elif isinstance(kind, Events):
        shape = (x.shape[0], len(kind.columns))
    elif isinstance(kind, Episodes):
        shape = (x.shape[0], kind.columns)
    elif isinstance(kind, Image):
        shape = (kind.channels, kind.height, kind.width)
    else:
        shape = (cast(Vector, kind).features,)
    require(tuple(x.shape) == shape, f"{where}: input of shape {tuple(x.shape)}, {kind} declared")
    require(x.dtype == torch.float32, f"{where}: input is {x.dtype}, expected float32")
    require(bool(x.isfinite().all()), f"{where}: input is not finite")
    if isinstance(kind, (Series, Events, Episodes)):
        _check_length(x, kind, where)
    if isinstance(kind, Episodes):
        _check_episode(x, kind, where)
    if isinstance(kind, Events):
        _check_events(x[:, 1:], kind, f"{where}: input")
        require(float(x[0, 1]) == 0, f"{where}: the first gap is {float(x[0, 1]):g}, expected 0")
        require(bool((x[:, 0].diff() >= 0).all()), f"{where}: time goes backwards")


def _check_length(x: Tensor, kind: Any, where: str) -> None:
    fits = 1 <= len(x) <= kind.length if kind.ragged else len(x) == kind.length
    require(fits, f"{where}: {len(x)} steps, {kind} declared")


def _check_target(y: Any, kind: Any, x: Tensor, where: str) -> None:
    if isinstance(kind, Questions):
        names = sorted(y) if isinstance(y, dict) else type(y).__name__
        require(names == sorted(kind.parts), f"{where}: targets {names}, expected {sorted(kind.parts)}")
        for name, part in kind.parts.items():
            if isinstance(kind, Maps):
                _check_map(y[name], part, (kind.height, kind.width), f"{where}: {name}")
            else:
                _check_target(y[name], part, x, f"{where}: {name}")
    elif isinstance(kind, Classes):
        require(
            y.shape == () and y.dtype == torch.int64,
            f"{where}: target {y.dtype} {tuple(y.shape)}, expected a class",
        )
        known = 0 <= int(y) < kind.count or (kind.missing and int(y) == IGNORE)
        require(known, f"{where}: class {int(y)}, {kind} declared")
    elif isinstance(kind, Actions):
        _check_actions(y, kind, x, where)
    elif isinstance(kind, NextEvent):
        require(y.shape == (len(x), 2), f"{where}: targets {tuple(y.shape)} for {len(x)} events")
        asked = ~y[:, 0].isnan()
        require(
            y.dtype == torch.float32 and torch.equal(asked, ~y[:, 1].isnan()),
            f"{where}: target must be float32, gap and mark NaN together",
        )
        _check_events(y[asked], kind, f"{where}: target")
    elif isinstance(kind, (NextId, Labels)):
        require(y.shape == x.shape[:1], f"{where}: {tuple(y.shape)} targets for {len(x)} tokens")
        _check_ids(y[y != IGNORE], kind.outputs, f"{where}: target")
    else:
        values = isinstance(kind, Values)
        shape = (kind.count,) if values else (cast(Forecast, kind).horizon, kind.channels)
        require(tuple(y.shape) == shape, f"{where}: target of shape {tuple(y.shape)}, {kind} declared")
        may_miss = not isinstance(kind, Values) or kind.missing  # a step that was not measured
        known = y[~y.isnan()] if may_miss else y
        require(
            y.dtype == torch.float32 and bool(known.isfinite().all()),
            f"{where}: target is not finite float32",
        )


def _check_map(y: Tensor, part: Classes | Values, size: tuple[int, int], where: str) -> None:
    shape = size if isinstance(part, Classes) else (part.count, *size)
    dtype = torch.int64 if isinstance(part, Classes) else torch.float32
    require(
        tuple(y.shape) == shape and y.dtype == dtype,
        f"{where}: target {y.dtype} {tuple(y.shape)}, expected {dtype} {shape}",
    )
    if isinstance(part, Classes):
        _check_ids(y[y != IGNORE], part.count, f"{where}: target")
    else:
        known = y[~y.isnan()] if part.missing else y
        require(bool(known.isfinite().all()), f"{where}: target is not finite")


def _check_episode(x: Tensor, kind: Episodes, where: str) -> None:
    roles, times = x[:, 0], x[:, 1]
    steps = torch.arange(len(x)) // len(kind.roles)
    in_turn = torch.equal(roles, (torch.arange(len(x)) % len(kind.roles)).float())
    require(in_turn, f"{where}: roles are not {', '.join(kind.roles)} in turn")
    require(
        torch.equal(times, times[0] + steps), f"{where}: the time is not that of each step, three tokens long"
    )
    require(
        float(times[0]) >= 0 and float(times[-1]) < kind.horizon, f"{where}: a time beyond {kind.horizon}"
    )


def _check_actions(y: Tensor, kind: Actions, x: Tensor, where: str) -> None:
    require(y.shape == (len(x), kind.numbers), f"{where}: targets {tuple(y.shape)} for {len(x)} tokens")
    asked = ~y[:, 0].isnan()
    states = x[:, 0] == Episodes.roles.index("state")
    require(
        torch.equal(asked, states), f"{where}: actions are asked for at other tokens than those of states"
    )
    known = y[asked]
    if kind.limit is not None:
        require(bool((known.abs() <= kind.limit).all()), f"{where}: an action beyond {kind.limit}")
    else:
        whole = bool((known == known.floor()).all() and (known >= 0).all() and (known < kind.count).all())
        require(whole, f"{where}: an action that is none of {kind.count}")


def _check_events(x: Tensor, kind: Events | NextEvent, what: str) -> None:
    """x: gap and mark of each event, (N, 2)."""
    gap, mark = x.unbind(-1)
    require(bool((gap >= 0).all() and gap.isfinite().all()), f"{what}: a gap is negative or not finite")
    fits = (mark >= 0) & (mark < kind.marks) & (mark == mark.floor())
    require(bool(fits.all()), f"{what}: marks are not whole numbers in [0, {kind.marks})")


def _check_ids(ids: Tensor, vocab: int, what: str) -> None:
    require(
        ids.dtype == torch.int64 and ids.dim() == 1,
        f"{what}: {ids.dtype} {tuple(ids.shape)}, expected int64 (N,)",
    )
    if len(ids):
        low, high = int(ids.min()), int(ids.max())
        require(low >= 0 and high < vocab, f"{what}: ids from {low} to {high}, declared [0, {vocab})")
