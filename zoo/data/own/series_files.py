"""A user's time series to classify, read from `.ts`, `.tsv` or CSV files and looked at (torch-free)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.formats import Labelled, filled, is_ragged, read_ts, read_tsv, valid_length
from zoo.data.own.config import sizes
from zoo.data.own.facts import existing, mistake, named
from zoo.data.own.parts import TEST, TRAIN, check_parts, draw, stratified, unseen
from zoo.data.own.table_columns import is_missing, numbers
from zoo.data.own.table_file import Table, is_number, read_table
from zoo.errors import ZooError, suggest

if TYPE_CHECKING:
    from zoo.data.own.series_config import SeriesFilesConfig


@dataclass(frozen=True, kw_only=True)
class SeriesStudy:
    """Series (N, C) without gaps, their classes and parts."""

    series: Sequence[np.ndarray]
    labels: Sequence[str]
    parts: np.ndarray
    classes: Sequence[str]
    ragged: bool
    notes: Sequence[str]


def files_of(config: SeriesFilesConfig) -> tuple[Path, ...]:
    """The file of all series, or those of train and test.

    Raises:
        ConfigError: they are not there, or a folder does not hold one of each.
    """
    path = existing(config.path)
    if path.is_dir():
        if config.test_path is not None:
            raise mistake("test_path", f"goes with a file as path, but {path.name} is a folder")
        found = [
            sorted(f for end in ("ts", "tsv") for f in path.glob(f"*_{part}.{end}"))
            for part in ("TRAIN", "TEST")
        ]
        if any(len(files) != 1 for files in found):
            raise mistake(
                "path", f"{path.name} must hold one file NAME_TRAIN.ts and one NAME_TEST.ts (or .tsv)"
            )
        return found[0][0], found[1][0]
    if config.test_path is None:
        return (path,)
    return path, existing(config.test_path, field="test_path", folder=False)


def study(files: Sequence[Path], config: SeriesFilesConfig) -> SeriesStudy:
    """Read all series and decide everything about them.

    Raises:
        ConfigError, ZooError: a file is not what it should be; the line is named.
    """
    read = [read_series(file, config) for file in files]
    for file, examples in zip(files, read, strict=True):
        if not examples:
            raise ZooError(f"{file.name} holds no series")
    examples = [example for part in read for example in part]
    channels = {x.shape[1] for x, _ in examples}
    if len(channels) > 1:
        raise ZooError(
            f"{files[0].name}: series must have the same channels, but have {named(map(str, channels))}"
        )
    ragged = is_ragged([x for x, _ in examples])
    series = [_whole(x, ragged, number) for number, (x, _) in enumerate(examples, start=1)]
    labels = [label for _, label in examples]
    if len(files) == 2:
        known = np.array(labels[: len(read[0])])
        parts = np.full(len(labels), TEST)
        parts[: len(known)] = stratified(known, val=config.val, test=0.0, seed=config.seed)
        how = "test by file"
    else:
        parts = draw(len(labels), val=config.val, test=config.test, seed=config.seed, labels=labels)
        how = f"drawn with seed {config.seed}"
    check_parts(
        parts, what="series", hint=f"{files[0].name} has {len(labels)}; a class needs three to be drawn from"
    )
    strange = unseen(labels, parts)
    if strange:
        raise ZooError(
            f"classes occur in {files[-1].name} but not in {files[0].name}, so no model can know them: "
            f"{named(f'{label!r} ({n})' for label, n in strange.items())}"
        )
    classes = sorted({label for label, part in zip(labels, parts, strict=True) if part == TRAIN})
    if len(classes) == 1:
        raise ZooError(
            f"{files[0].name}: all series are of the class {classes[0]!r}: there is nothing to learn"
        )
    counts = Counter(labels)
    lengths = [len(x) for x in series]
    steps = f"{min(lengths)} to {max(lengths)}" if ragged else str(lengths[0])
    notes = [
        f"{' and '.join(f.name for f in files)}: {len(series)} series of {steps} steps and "
        f"{series[0].shape[1]} channels, {sizes([int((parts == p).sum()) for p in range(3)])}, {how}",
        f"{len(classes)} classes: {named(f'{name} {counts[name]}' for name in classes)}",
    ]
    gaps = sum(bool(np.isnan(x[: valid_length(x)]).any()) for x, _ in examples)
    if gaps:
        notes.append(f"{gaps} series have missing values, filled on a line between their neighbours")
    return SeriesStudy(series=series, labels=labels, parts=parts, classes=classes, ragged=ragged, notes=notes)


def plain(found: SeriesStudy) -> dict[str, Any]:
    """What the contract must know, as plain data."""
    return {
        "channels": found.series[0].shape[1],
        "length": max(map(len, found.series)),
        "ragged": found.ragged,
        "classes": list(found.classes),
        "notes": list(found.notes),
    }


def read_series(path: Path, config: SeriesFilesConfig, *, labelled: bool = True) -> list[Labelled]:
    """The series of a file and their classes (`""` where a CSV has no column of them and need not).

    Raises:
        ZooError: it is not what its suffix says.
    """
    suffix = path.suffix.lower()
    if suffix == ".ts":
        return read_ts(path)
    if suffix == ".tsv":
        return read_tsv(path)
    table = read_table(path)
    if labelled and config.label not in table.columns:
        hint = suggest(config.label, table.columns) or f" It has {named(table.columns)}."
        raise mistake("label", f"{path.name} has no column {config.label!r}.{hint}")
    if config.id is None:
        return _rows_as_series(table, config)
    if config.id not in table.columns:
        raise mistake("id", f"{path.name} has no column {config.id!r}.{suggest(config.id, table.columns)}")
    return _rows_as_steps(table, config)


def _rows_as_series(table: Table, config: SeriesFilesConfig) -> list[Labelled]:
    """One channel; the columns are steps, and a row that is shorter ends with empty cells."""
    steps = [name for name in table.columns if name != config.label]
    if not steps:
        raise ZooError(f"{table.path.name} has no column of steps beside {config.label!r}")
    values = np.stack([numbers(table, name) for name in steps], axis=1)  # (series, N)
    labels = table.columns.get(config.label, [""] * len(table))
    return [
        _labelled(row[:, None], label, table, i)
        for i, (row, label) in enumerate(zip(values, labels, strict=True))
    ]


def _rows_as_steps(table: Table, config: SeriesFilesConfig) -> list[Labelled]:
    """The rows of one id, in their order, are the steps of a series; the columns of numbers its channels."""
    channels = [name for name in table.columns if name not in (config.label, config.id)]
    words = [name for name in channels if not all(is_missing(c) or is_number(c) for c in table.columns[name])]
    if words:
        raise ZooError(
            f"{table.path.name}: column {words[0]!r} holds texts; every column must be a channel of numbers"
        )
    values = np.stack([numbers(table, name) for name in channels], axis=1)  # (rows, C)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(table.column(str(config.id))):
        rows.setdefault(name, []).append(row)
    labels = table.columns.get(config.label, [""] * len(table))
    found = []
    for name, at in rows.items():
        if len({labels[row] for row in at}) > 1:
            other = next(row for row in at if labels[row] != labels[at[0]])
            raise ZooError(
                f"{table.path.name}, {table.place(other)}: series {name!r} is of the class {labels[at[0]]!r} "
                f"before, and {labels[other]!r} here"
            )
        found.append(_labelled(values[at], labels[at[0]], table, at[0]))
    return found


def _labelled(x: np.ndarray, label: str, table: Table, row: int) -> Labelled:
    if label and is_missing(label):
        label = ""
    if not np.isfinite(x).any():
        raise ZooError(f"{table.path.name}, {table.place(row)}: a series without a value")
    return x, label


def _whole(x: np.ndarray, ragged: bool, number: int) -> np.ndarray:
    """A series without padding and gaps."""
    if np.isnan(x).all(axis=0).any():
        raise ZooError(f"series {number} has a channel without a value")
    return filled(x[: valid_length(x)] if ragged else x)
