"""A user's table looked at: parts, features, targets, and sentences on all of it (torch-free)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.own.config import sizes
from zoo.data.own.facts import mistake, named
from zoo.data.own.parts import NAMES, TRAIN, VAL, check_parts, draw, part_called, unseen
from zoo.data.own.table_columns import (
    Encoder,
    describe_features,
    fit_encoder,
    is_infinite,
    is_missing,
    looks_like_classes,
    numbers,
    width,
)
from zoo.data.own.table_file import Table
from zoo.errors import suggest
from zoo.kinds import Classes, Multi, TargetKind, Values

if TYPE_CHECKING:
    from zoo.data.own.table_config import TableConfig


@dataclass(frozen=True, kw_only=True)
class Target:
    """One target column. names: its classes, in order; empty: values, scaled by mean and deviation."""

    column: str
    names: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Study:
    """A table with all that was decided about it.

    rows: those that are used. parts: the part of each of them, 0 train, 1 val, 2 test.
    """

    table: Table
    rows: np.ndarray
    parts: np.ndarray
    encoders: Sequence[Encoder]
    targets: Sequence[Target]
    kind: TargetKind
    notes: Sequence[str]

    @property
    def features(self) -> int:
        return sum(map(width, self.encoders))


def study(table: Table, config: TableConfig) -> Study:
    """Decide everything about a table.

    Raises:
        ConfigError: a parameter does not fit the table (a column that is not there, ...).
        ZooError: the table itself is at fault; the line is named.
    """
    _check_columns(table, config)
    notes: list[str] = []
    classes = {name: _is_class(table, name, config, notes) for name in config.targets}
    rows = _answered(table, classes, notes)
    parts = _parts(table, rows, config, classes)
    rows, parts = _seen(table, rows, parts, classes, config, notes)
    in_train = np.zeros(len(table), dtype=bool)
    in_train[rows[parts == TRAIN]] = True
    encoders, left_out = _features(table, in_train, config, notes)
    targets = [_target(table, name, is_class, in_train) for name, is_class in classes.items()]
    counts = [int((parts == part).sum()) for part in range(3)]
    head = f"{table.path.name}: {len(rows)} rows, {sizes(counts)}, {_how(config)}"
    described = [_describe(table, target, rows) for target in targets]
    return Study(
        table=table,
        rows=rows,
        parts=parts,
        encoders=encoders,
        targets=targets,
        kind=_kind(table, targets, rows),
        notes=[head, *described, *describe_features(encoders, left_out), *notes],
    )


def _check_columns(table: Table, config: TableConfig) -> None:
    """Every column that a parameter names must be there."""
    wanted = [(f"target.{i}", name) for i, name in enumerate(config.targets)]
    if isinstance(config.target, str):
        wanted = [("target", config.target)]
    wanted += [(f"columns.{name}", name) for name in config.columns]
    wanted += [(field, name) for field in ("split", "group") if (name := getattr(config, field)) is not None]
    for field, name in wanted:
        if name not in table.columns:
            hint = suggest(name, table.columns) or f" It has {named(table.columns)}."
            raise mistake(field, f"{table.path.name} has no column {name!r}.{hint}")


def _is_class(table: Table, name: str, config: TableConfig, notes: list[str]) -> bool:
    """Whether a target is a class, by the parameters or by its looks."""
    kind = config.columns.get(name)
    if kind == "ignore":
        raise mistake(f"columns.{name}", "is the target; it cannot be ignored")
    cells = table.column(name)
    if all(map(is_missing, cells)):
        raise mistake("target", f"column {name!r} is empty in every row")
    if kind is not None:
        return kind == "category"
    found = looks_like_classes(cells, len(table))
    if found and all(is_missing(cell) or cell.lstrip("+-").isdigit() for cell in cells):
        notes.append(
            f"{name} holds few whole numbers and is taken for classes; "
            f"`columns: {{{name}: number}}` makes it a value"
        )
    return found


def _answered(table: Table, classes: dict[str, bool], notes: list[str]) -> np.ndarray:
    """The rows that have what is asked: every class, and of values at least one."""
    known = {name: np.array([not is_missing(cell) for cell in table.column(name)]) for name in classes}
    keep = np.any(list(known.values()), axis=0)
    for name, is_class in classes.items():
        if is_class:
            keep &= known[name]
    if not keep.all():
        notes.append(f"{int((~keep).sum())} rows without a target are left out")
    return np.flatnonzero(keep)


def _parts(table: Table, rows: np.ndarray, config: TableConfig, classes: dict[str, bool]) -> np.ndarray:
    only = next(iter(classes)) if len(classes) == 1 and all(classes.values()) else None
    labels = [table.column(only)[row] for row in rows] if only else None
    if config.split is not None:
        parts = _by_column(table, rows, config)
        if not (parts == VAL).any():
            train = np.flatnonzero(parts == TRAIN)
            own = [labels[i] for i in train] if labels else None
            drawn = draw(len(train), val=0.0, test=config.val, seed=config.seed, labels=own)
            parts[train[drawn > 0]] = VAL
    elif config.group is not None:
        groups = [table.column(config.group)[row] for row in rows]
        parts = draw(len(rows), val=config.val, test=config.test, seed=config.seed, same=groups)
    else:
        whole = list(zip(*table.columns.values(), strict=True))
        same = [whole[row] for row in rows]  # rows that repeat lie in one part
        parts = draw(len(rows), val=config.val, test=config.test, seed=config.seed, same=same, labels=labels)
    what = "group of rows" if config.group else "row"
    hint = f"{table.path.name} has only {len(rows)} rows with a target"
    if config.split is not None:
        hint = f"column {config.split!r} must say train, val or test"
    check_parts(parts, what=what, hint=hint)
    return parts


def _by_column(table: Table, rows: np.ndarray, config: TableConfig) -> np.ndarray:
    """The parts that the split column states."""
    assert config.split is not None
    parts = np.zeros(len(rows), dtype=int)
    for i, row in enumerate(rows):
        part = part_called(table.column(config.split)[row])
        if part is None:
            raise mistake(
                "split",
                f"column {config.split!r} must say train, val or test in each row, "
                f"but says {table.column(config.split)[row]!r} in {table.place(row)}",
            )
        parts[i] = part
    return parts


def _seen(
    table: Table,
    rows: np.ndarray,
    parts: np.ndarray,
    classes: dict[str, bool],
    config: TableConfig,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Without the rows of classes that train does not have, where they may be dropped."""
    for name in [name for name, is_class in classes.items() if is_class]:
        labels = [table.column(name)[row] for row in rows]
        strange = unseen(labels, parts)
        if not strange:
            continue
        which = named(f"{label!r} ({count})" for label, count in sorted(strange.items()))
        if config.unseen == "error":
            first = next(i for i in range(len(rows)) if labels[i] in strange)
            raise mistake(
                "unseen",
                f"classes of {name} occur in {NAMES[parts[first]]} but not in train, so no model can know "
                f"them: {which}, first in {table.place(rows[first])}. Give train some of their rows, or "
                "write unseen: drop to leave them out",
            )
        keep = np.array([label not in strange for label in labels])
        rows, parts = rows[keep], parts[keep]
        notes.append(f"rows of classes of {name} that train does not have are left out: {which}")
        check_parts(parts, what="row", hint="all were of classes that train does not have")
    return rows, parts


def _features(
    table: Table, train: np.ndarray, config: TableConfig, notes: list[str]
) -> tuple[list[Encoder], dict[str, str]]:
    encoders, left_out = [], {}
    used = {*config.targets, config.split, config.group}
    for name in table.columns:
        kind = config.columns.get(name)
        if name in used or kind == "ignore":
            continue
        infinite = sum(map(is_infinite, table.column(name)))
        if infinite:
            notes.append(f"{name}: {infinite} infinite values count as missing")
        encoder, why = fit_encoder(table, name, train, kind=kind, most=config.categories)
        if encoder is None:
            left_out[name] = why
        else:
            encoders.append(encoder)
    if not encoders:
        which = f" Left out: {named(f'{n} ({why})' for n, why in left_out.items())}." if left_out else ""
        raise mistake("path", f"{table.path.name} has no column to predict from.{which}")
    return encoders, left_out


def _target(table: Table, name: str, is_class: bool, train: np.ndarray) -> Target:
    if is_class:
        found = {table.column(name)[row] for row in np.flatnonzero(train)}
        if len(found) == 1:
            raise mistake("target", f"{name} is always {found.pop()!r}: there is nothing to learn")
        numeric = all(value.lstrip("+-").isdigit() for value in found)
        return Target(column=name, names=tuple(sorted(found, key=int if numeric else str)))
    values = numbers(table, name)[train]
    if np.isnan(values).all():
        raise mistake("target", f"{name} has no value in train")
    deviation = float(np.nanstd(values))
    if deviation == 0:
        raise mistake(
            "target", f"{name} is always {np.nanmean(values):g} in train: there is nothing to learn"
        )
    return Target(column=name, mean=float(np.nanmean(values)), deviation=deviation)


def _kind(table: Table, targets: Sequence[Target], rows: np.ndarray) -> TargetKind:
    def one(target: Target) -> Classes | Values:
        if target.names:
            return Classes(count=len(target.names), names=target.names)
        missing = bool(np.isnan(numbers(table, target.column)[rows]).any())
        return Values(count=1, names=(identifier(target.column),), missing=missing)

    if len(targets) == 1:
        return one(targets[0])
    if not any(target.names for target in targets):
        names = tuple(identifier(target.column) for target in targets)
        missing = any(np.isnan(numbers(table, target.column)[rows]).any() for target in targets)
        return Values(count=len(targets), names=names, missing=bool(missing))
    return Multi(parts={identifier(target.column): one(target) for target in targets})


def identifier(name: str) -> str:
    """A column's name as part of the name of a metric: `yield strength (MPa)` -> `yield_strength_MPa`."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return plain if plain[:1].isalpha() else f"column_{plain}".rstrip("_")


def _describe(table: Table, target: Target, rows: np.ndarray) -> str:
    cells = [table.column(target.column)[row] for row in rows]
    if target.names:
        counts = Counter(cells)
        each = named(f"{name} {counts[name]}" for name in target.names)
        return f"target {target.column}: {len(target.names)} classes ({each})"
    values = numbers(table, target.column)[rows]
    gone = int(np.isnan(values).sum())
    missing = f", {gone} missing" if gone else ""
    return (
        f"target {target.column}: a value from {np.nanmin(values):g} to {np.nanmax(values):g}{missing}; "
        f"in deviations of train (1 = {target.deviation:.4g})"
    )


def _how(config: TableConfig) -> str:
    if config.split is not None:
        return f"by column {config.split!r}"
    if config.group is not None:
        return f"whole groups of {config.group!r}, drawn with seed {config.seed}"
    return f"drawn with seed {config.seed}"


def plain(found: Study) -> dict[str, Any]:
    """What the contract must know, as plain data."""
    from zoo.kinds import kind_to_dict

    return {"features": found.features, "targets": kind_to_dict(found.kind), "notes": list(found.notes)}
