"""Tasks: loss, metrics, predictions and the naive answer. B batch, N tokens, K outputs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from zoo.data.random_inputs import generator, normal
from zoo.data.split import TensorSplit
from zoo.errors import one_line
from zoo.kinds import IGNORE, Actions, Classes, Forecast, Labels, Maps, NextEvent, NextId, Questions, Values
from zoo.specs import TaskSpec
from zoo.testing.measure import require, require_close, require_finite
from zoo.testing.subject import TARGETS, Subject

#: The metrics of two batches against those of one, in float32.
ROUNDING = 1e-4
SIZE, TOKENS = 12, 7


def task_of(subject: Subject) -> Any:
    """The task with its default parameters, for small targets."""
    return subject.spec.load()(subject.config, targets=_targets(subject))


def check_task_loss(subject: Subject) -> None:
    task, batch = task_of(subject), _batch(subject)
    outputs = _outputs(subject).requires_grad_()
    loss = task.loss(outputs, batch)
    require(loss.shape == (), f"the loss has shape {tuple(loss.shape)}, expected a scalar")
    require_finite(loss, "the loss")
    loss.backward()
    require(outputs.grad is not None and bool(outputs.grad.any()), "the loss gives the outputs no gradient")
    require_finite(cast(Tensor, outputs.grad), "the gradient of the loss")
    if isinstance(_targets(subject), (NextId, Labels)):
        unasked = batch["target"] == IGNORE
        changed = torch.where(unasked[..., None], outputs.detach() + 10, outputs.detach())
        nothing = {**batch, "target": torch.full_like(batch["target"], IGNORE)}
    elif isinstance(_targets(subject), NextEvent):
        unasked = batch["target"][..., 0].isnan()
        changed = torch.where(unasked[..., None, None], outputs.detach() + 10, outputs.detach())
        nothing = {**batch, "target": torch.full_like(batch["target"], torch.nan)}
    elif isinstance(_targets(subject), Actions):
        unasked = batch["target"][..., 0].isnan()
        changed = torch.where(unasked[..., None], outputs.detach() + 10, outputs.detach())
        nothing = {**batch, "target": torch.full_like(batch["target"], torch.nan)}
    elif isinstance(_targets(subject), Maps):
        named = {n: _unasked(part, batch["target"][n]) for n, part in _targets(subject).parts.items()}
        unasked = torch.cat(list(named.values()), dim=1)  # (B, K, H, W)
        changed = torch.where(unasked, outputs.detach() + 10, outputs.detach())
        nothing = {"target": {n: torch.full_like(t, _nothing(t)) for n, t in batch["target"].items()}}
    elif isinstance(_targets(subject), Classes):
        batch["target"][::3] = IGNORE  # not known
        unasked = batch["target"] == IGNORE
        loss = task.loss(outputs.detach(), batch)
        changed = torch.where(unasked[:, None], outputs.detach() + 10, outputs.detach())
        nothing = {**batch, "target": torch.full_like(batch["target"], IGNORE)}
    elif isinstance(_targets(subject), Values):
        batch["target"][::3, 0] = torch.nan  # not measured
        unasked = batch["target"].isnan()
        loss = task.loss(outputs.detach(), batch)
        changed = torch.where(unasked, outputs.detach() + 10, outputs.detach())
        nothing = {**batch, "target": torch.full_like(batch["target"], torch.nan)}
    else:
        return
    require_close(task.loss(changed, batch), loss, 1e-6, "other outputs where no answer is asked: the loss")
    require_finite(task.loss(outputs.detach(), nothing), "the loss of a batch that asks nothing")


def _unasked(part: Any, target: Tensor) -> Tensor:
    """Which outputs of a map answer nothing that is asked: bool (B, K, H, W)."""
    if isinstance(part, Classes):
        return (target == IGNORE)[:, None].expand(-1, part.count, -1, -1)
    return target.isnan()


def _nothing(target: Tensor) -> float:
    """The target where nothing is asked."""
    return torch.nan if target.is_floating_point() else IGNORE


def check_task_no_wait(subject: Subject) -> None:
    outputs, batch = tree_map(lambda x: x.to("meta"), (_outputs(subject), _batch(subject)))
    try:
        task_of(subject).loss(outputs, batch)
    except (RuntimeError, NotImplementedError) as error:  # tensors of this device have shapes, and no numbers
        require(False, f"the loss reads a number, or a shape that depends on numbers: {one_line(error)}")


def check_task_best(subject: Subject) -> None:
    task, batch, spec = task_of(subject), _batch(subject), cast(TaskSpec, subject.spec)
    perfect, random = _perfect(subject, batch), _outputs(subject)
    low, high = (float(task.loss(outputs, batch)) for outputs in (perfect, random))
    require(low < high, f"the perfect answer costs {low:.4g}, a random one {high:.4g}")
    monitor = _monitor(subject)
    best, other = (_scores(task, [(outputs, batch)]) for outputs in (perfect, random))
    require(monitor in best, f"monitored: {monitor!r}, but the metrics are {', '.join(sorted(best))}")
    better = best[monitor] > other[monitor] if spec.mode == "max" else best[monitor] < other[monitor]
    require(
        better,
        f"mode {spec.mode!r} of {monitor}: the perfect answer has {best[monitor]:.4g}, "
        f"a random one {other[monitor]:.4g}",
    )


def check_task_sums(subject: Subject) -> None:
    task, batch, outputs = task_of(subject), _batch(subject), _outputs(subject)
    parts = [slice(0, 3), slice(3, SIZE)]  # of different sizes, so that a wrong weight shows
    pieces = [(outputs[part], _cut(batch, part)) for part in parts]
    whole, joined = _scores(task, [(outputs, batch)]), _scores(task, pieces)
    for name, value in whole.items():
        gap = abs(joined[name] - value) / max(1.0, abs(value))
        require(
            gap <= ROUNDING or (math.isnan(value) and math.isnan(joined[name])),
            f"metric {name} is {value:.6g} in one batch, but {joined[name]:.6g} in two",
        )
    counts = [task.count(piece) for _, piece in pieces]
    require(
        sum(counts) == task.count(batch),
        f"count() is {task.count(batch)} for one batch, {counts} for its parts",
    )


def check_task_predicts(subject: Subject) -> None:
    task, outputs = task_of(subject), _outputs(subject)
    masks = [None]
    if outputs.dim() > 2 and not isinstance(_targets(subject), Maps):
        masks.append(torch.ones(outputs.shape[:2], dtype=torch.bool))  # type: ignore[arg-type]
    for mask in masks:
        answers = task.predict(outputs, mask)
        require(len(answers) == SIZE, f"{SIZE} examples, {len(answers)} predictions")
        try:
            json.dumps(answers)
        except TypeError as error:
            require(False, f"predictions are not plain data: {error}")


def check_task_baseline(subject: Subject) -> None:
    task, batch = task_of(subject), _batch(subject)
    split = TensorSplit(_inputs(subject), batch["target"])
    naive = task.baseline(split, split)
    metrics = set(_scores(task, [(_outputs(subject), batch)]))
    require(set(naive) <= metrics, f"baseline() gives {sorted(naive)}, the metrics are {sorted(metrics)}")
    require(_monitor(subject) in naive, f"baseline() does not give the monitored {_monitor(subject)!r}")
    strange = {k: v for k, v in naive.items() if not isinstance(v, float) or not math.isfinite(v)}
    require(not strange, f"baseline() gives values that are no finite numbers: {strange}")


def _targets(subject: Subject) -> Any:
    return TARGETS[cast(TaskSpec, subject.spec).answers]


def _monitor(subject: Subject) -> str:
    """The monitored metric without its split."""
    return cast(TaskSpec, subject.spec).monitor.format(**asdict(_targets(subject))).partition("/")[2]


def _batch(subject: Subject) -> dict[str, Any]:
    return {"target": _target(_targets(subject))}


def _target(kind: Any) -> Any:
    if isinstance(kind, Maps):
        return {name: _map(part, (kind.height, kind.width)) for name, part in kind.parts.items()}
    if isinstance(kind, Questions):
        return {name: _target(part) for name, part in kind.parts.items()}
    if isinstance(kind, Classes):
        return torch.randint(kind.count, (SIZE,), generator=generator(0))
    if isinstance(kind, (NextId, Labels)):
        target = torch.randint(kind.outputs, (SIZE, TOKENS), generator=generator(0))
        target[::3, -2:] = IGNORE  # rows ask for different numbers of answers
        target[:, 0] = IGNORE
        return target
    if isinstance(kind, NextEvent):
        gaps = kind.scale * normal((SIZE, TOKENS)).exp()
        target = torch.stack([gaps, torch.randint(kind.marks, gaps.shape, generator=generator(0))], dim=-1)
        target[::3, -2:] = torch.nan  # rows ask for different numbers of answers
        return target
    if isinstance(kind, Actions):
        target = torch.randint(kind.count, (SIZE, TOKENS, 1), generator=generator(0)).float()
        target[:, ::3] = torch.nan
        target[::3, -2:] = torch.nan  # rows ask for different numbers of answers
        return target
    if isinstance(kind, Forecast):
        return normal((SIZE, kind.horizon, kind.channels))
    return normal((SIZE, kind.count))


def _map(part: Any, size: tuple[int, int]) -> Tensor:
    """A target per pixel, of which some are not asked."""
    if isinstance(part, Classes):
        classes = torch.randint(part.count, (SIZE, *size), generator=generator(0))
        classes[::3, :2] = IGNORE  # examples ask for different numbers of answers
        return classes
    values = normal((SIZE, part.count, *size))
    values[::3, :, :, 1] = torch.nan
    return values


def _inputs(subject: Subject) -> Tensor:
    """Something to answer about: tokens, or a series to continue, where the targets follow one."""
    kind = _targets(subject)
    if isinstance(kind, (NextId, Labels)):
        return torch.zeros(SIZE, TOKENS, dtype=torch.int64)
    if isinstance(kind, (NextEvent, Actions)):
        return torch.zeros(SIZE, TOKENS, 3)
    return (
        normal((SIZE, TOKENS, kind.channels), seed=2) if isinstance(kind, Forecast) else torch.zeros(SIZE, 3)
    )


def _outputs(subject: Subject) -> Tensor:
    """What an untrained model might say."""
    kind = _targets(subject)
    if isinstance(kind, (NextId, Labels, Actions)):
        return normal((SIZE, TOKENS, kind.outputs), seed=1)
    if isinstance(kind, NextEvent):
        return normal((SIZE, TOKENS, 2, kind.outputs), seed=1)
    if isinstance(kind, Forecast):
        return normal((SIZE, kind.horizon, kind.channels), seed=1)
    if isinstance(kind, Maps):
        return normal((SIZE, kind.outputs, kind.height, kind.width), seed=1)
    return normal((SIZE, kind.outputs), seed=1)


def _perfect(subject: Subject, batch: dict[str, Any]) -> Tensor:
    kind = _targets(subject)
    if isinstance(kind, Questions):
        columns = [_right(part, batch["target"][name]) for name, part in kind.parts.items()]
        return torch.cat(columns, dim=1)
    return _right(kind, batch["target"])


def _right(kind: Any, target: Tensor) -> Tensor:
    if isinstance(kind, (Classes, NextId, Labels)):
        right = 20 * F.one_hot(target.clamp_min(0), kind.outputs).float()
        return right.movedim(-1, 1) if isinstance(kind, Classes) else right
    if isinstance(kind, Actions):
        return 20 * F.one_hot(target[..., 0].nan_to_num(0.0).long(), kind.count).float()
    if isinstance(kind, NextEvent):
        gap, mark = target.nan_to_num(1.0).unbind(-1)
        narrow = torch.stack([torch.zeros_like(gap), gap.log(), torch.full_like(gap, -20.0)], dim=-1)
        marks = 20 * F.one_hot(mark.long(), kind.marks).float()
        return torch.cat([narrow, marks], dim=-1).unsqueeze(-2)  # one component
    return target.nan_to_num(0.0)


def _cut(batch: dict[str, Any], part: slice) -> dict[str, Any]:
    return {name: _cut(t, part) if isinstance(t, dict) else t[part] for name, t in batch.items()}


def _scores(task: Any, pieces: list[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, float]:
    metrics = task.metrics()
    for outputs, batch in pieces:
        task.update(metrics, outputs, batch, task.loss(outputs, batch))
    return {name: float(value) for name, value in metrics.compute().items()}
