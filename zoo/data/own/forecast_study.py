"""A user's table of time steps looked at: channels, time, gaps, parts (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.own.config import sizes
from zoo.data.own.facts import mistake, named
from zoo.data.own.table_columns import is_missing, looks_numeric, numbers
from zoo.data.own.table_file import Table, is_number, read_table
from zoo.errors import ZooError, suggest

if TYPE_CHECKING:
    from zoo.data.own.forecast_config import ForecastTableConfig


@dataclass(frozen=True, kw_only=True)
class ForecastStudy:
    """values: float64 (steps, C), the targets first, NaN where one is missing. counts: steps per part."""

    values: np.ndarray
    channels: Sequence[str]
    targets: Sequence[str]
    counts: tuple[int, int, int]
    notes: Sequence[str]


def study(path: Path, config: ForecastTableConfig) -> ForecastStudy:
    """Read the table and decide everything about it.

    Raises:
        ConfigError: a parameter does not fit the table.
        ZooError: the table itself is at fault; the line is named.
    """
    table = read_table(path, delimiter=config.delimiter, encoding=config.encoding)
    if config.time is not None:
        _check_time(table, config.time)
    channels, left_out = _channels(table, config)
    targets = config.targets or tuple(channels)
    channels = [*targets, *(name for name in channels if name not in targets)]
    values = np.stack([numbers(table, name) for name in channels], axis=1)
    steps = len(values)
    first, second = round((1 - config.val - config.test) * steps), round((1 - config.test) * steps)
    counts = (first, second - first, steps - second)
    needed = config.length + config.horizon
    if min(counts) < needed:
        raise mistake(
            "length",
            f"and horizon together are {needed} steps, but the shortest part of {steps} has {min(counts)}",
        )
    for name, column in zip(channels, values.T, strict=True):
        known = column[:first][~np.isnan(column[:first])]
        if len(known) == 0:
            raise ZooError(f"{path.name}: column {name!r} has no value in train, the first {first} steps")
        if len(np.unique(known)) == 1 and name in targets:
            raise ZooError(
                f"{path.name}: column {name!r} is always {known[0]:g} in train: there is nothing to forecast"
            )
    notes = [f"{path.name}: {steps} steps, {sizes(counts)}, one after the other"]
    notes.append(f"forecast: {named(targets)}")
    if len(channels) > len(targets):
        notes.append(f"given only: {named(channels[len(targets) :])}")
    gaps = {name: int(np.isnan(column).sum()) for name, column in zip(channels, values.T, strict=True)}
    if any(gaps.values()):
        which = named(f"{name} ({count})" for name, count in gaps.items() if count)
        notes.append(f"missing values, given as the last one before and not asked: {which}")
    if left_out:
        notes.append(f"left out, no numbers: {named(left_out)}")
    return ForecastStudy(values=values, channels=channels, targets=targets, counts=counts, notes=notes)


def plain(found: ForecastStudy) -> dict[str, Any]:
    """What the contract must know, as plain data."""
    return {"channels": list(found.channels), "targets": list(found.targets), "notes": list(found.notes)}


def channels_of(table: Table, names: Sequence[str]) -> np.ndarray:
    """The channels of a table to predict on: float64 (steps, C).

    Raises:
        ZooError: a column is not there, or holds something that is no number.
    """
    return np.stack([numbers(table, name) for name in names], axis=1)


def _channels(table: Table, config: ForecastTableConfig) -> tuple[list[str], list[str]]:
    """The columns to use, and those that are left out since they hold no numbers."""
    wanted = [("columns", name) for name in config.columns or ()]
    wanted += [("target", name) for name in config.targets]
    for field, name in wanted:
        if name not in table.columns:
            hint = suggest(name, table.columns) or f" It has {named(table.columns)}."
            raise mistake(field, f"{table.path.name} has no column {name!r}.{hint}")
    if config.columns is not None:
        return list(config.columns), []
    names = [name for name in table.columns if name != config.time]
    numeric = [name for name in names if looks_numeric(table.columns[name]) or name in config.targets]
    if not numeric:
        raise ZooError(f"{table.path.name} has no column of numbers: {named(table.columns)}")
    return numeric, [name for name in names if name not in numeric]


def _check_time(table: Table, name: str) -> None:
    """The time must rise from row to row; it may be numbers, or dates as ISO 8601 writes them."""
    if name not in table.columns:
        raise mistake("time", f"{table.path.name} has no column {name!r}.{suggest(name, table.columns)}")
    before: float | None = None
    for row, cell in enumerate(table.column(name)):
        now = _moment(cell)
        if now is None:
            raise mistake(
                "time",
                f"column {name!r} must hold numbers or dates such as 2026-01-31 13:00; "
                f"{table.place(row)} says {cell!r}",
            )
        if before is not None and now <= before:
            raise ZooError(
                f"{table.path.name}, {table.place(row)}: the time {cell!r} is not after that of the row "
                "before; sort the rows, and keep one for each time"
            )
        before = now


def _moment(cell: str) -> float | None:
    if is_missing(cell):
        return None
    if is_number(cell):
        return float(cell)
    try:
        return datetime.fromisoformat(cell).timestamp()
    except ValueError:
        return None
