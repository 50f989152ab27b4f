"""From columns of text to columns of numbers: what a column is taken for and how it is encoded (torch-free).

| a column of ...                | becomes                                                                   |
|--------------------------------|---------------------------------------------------------------------------|
| numbers                        | one column, standardised on train; missing: the mean of train             |
| texts (or `category`)          | a column of 0 and 1 for each value that train has; another value is all 0 |
| either, with cells missing     | one column more, 1 where the cell is missing                              |
| one value throughout train     | nothing: it is left out, with a note                                      |
| another text in most rows      | nothing: it is left out, with a note                                      |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.own.table_file import Table, is_number
from zoo.errors import ZooError, suggest

#: Cells (in lower case) that say that there is nothing.
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?", "-"))
#: A text column of more values than this share of its rows names its rows: nothing can be learnt from it.
NAMES_ROWS = 0.5
#: Whole numbers of at most this many values, as a target, are classes.
MOST_WHOLE_CLASSES = 20

#: What is known of one encoded column, as plain data.
Encoder = dict[str, Any]


def is_missing(cell: str) -> bool:
    """Whether a cell holds nothing; a number that is not finite counts as that."""
    return cell.lower() in MISSING or (is_number(cell) and not np.isfinite(float(cell)))


def is_infinite(cell: str) -> bool:
    """Whether a cell is an infinite number."""
    return is_number(cell) and bool(np.isinf(float(cell)))


def looks_numeric(cells: Iterable[str]) -> bool:
    """Whether every cell that is there is a number."""
    there = [cell for cell in cells if not is_missing(cell)]
    return bool(there) and all(map(is_number, there))


def looks_like_classes(cells: Sequence[str], rows: int) -> bool:
    """Whether a target is a class: a text, or one of few whole numbers that repeat."""
    if not looks_numeric(cells):
        return True
    values = {float(cell) for cell in cells if not is_missing(cell)}
    few = len(values) <= min(MOST_WHOLE_CLASSES, max(2, rows // 10))
    return few and all(value.is_integer() for value in values)


def numbers(table: Table, name: str) -> np.ndarray:
    """A column as float64, NaN where it is missing.

    Raises:
        ZooError: a cell is no number; its line is named.
    """
    found = np.full(len(table), np.nan)
    for row, cell in enumerate(table.column(name)):
        if not is_missing(cell):
            if not is_number(cell):
                raise ZooError(
                    f"{table.path.name}, {table.place(row)}: column {name!r} must hold numbers, got {cell!r}"
                )
            found[row] = float(cell)
    return found


def fit_encoder(
    table: Table, name: str, train: np.ndarray, *, kind: str | None, most: int
) -> tuple[Encoder | None, str]:
    """How a feature is encoded, or `None` and why it is left out.

    Args:
        train: bool (rows,), the rows to fit on.
        kind: "number" or "category"; `None`: as its cells look.
        most: values of a category that get a column; the commonest ones do.
    """
    cells = table.column(name)
    seen = [cells[row] for row in np.flatnonzero(train)]
    there = [cell for cell in seen if not is_missing(cell)]
    flagged = any(map(is_missing, cells))
    if not there:
        return None, "no value in train"
    if kind is None:
        kind = "number" if looks_numeric(cells) else "category"
    if kind == "number":
        values = numbers(table, name)[train]
        mean, deviation = float(np.nanmean(values)), float(np.nanstd(values))
        if deviation <= 1e-12 * abs(mean) and not flagged:
            return None, f"always {there[0]}"
        return {"name": name, "as": "number", "mean": mean, "deviation": deviation, "flag": flagged}, ""
    counts = Counter(there)
    if len(counts) == 1 and not flagged:
        return None, f"always {there[0]!r}"
    if len(counts) > most and len(counts) > NAMES_ROWS * len(there):
        return None, f"{len(counts)} different texts in {len(there)} rows"
    kept = sorted(value for value, _ in counts.most_common(most))
    return {"name": name, "as": "category", "values": kept, "of": len(counts), "flag": flagged}, ""


def width(encoder: Encoder) -> int:
    """How many columns an encoded one has."""
    own = 1 if encoder["as"] == "number" else len(encoder["values"])
    return own + bool(encoder["flag"])


def encode(table: Table, encoders: Sequence[Encoder]) -> np.ndarray:
    """The features of each row: float32 (rows, columns).

    Raises:
        ZooError: a column is not there, or a cell of a number is none.
    """
    _check_names(table, [encoder["name"] for encoder in encoders])
    blocks = []
    for encoder in encoders:
        name = encoder["name"]
        if encoder["as"] == "number":
            values = numbers(table, name)
            scaled = (values - encoder["mean"]) / (encoder["deviation"] or 1.0)
            blocks.append(np.nan_to_num(scaled, nan=0.0)[:, None])
            gone = np.isnan(values)
        else:
            cells = np.array(table.column(name), dtype=object)
            blocks.append(np.stack([cells == value for value in encoder["values"]], axis=1))
            gone = np.array([is_missing(cell) for cell in cells])
        if encoder["flag"]:
            blocks.append(gone[:, None])
    return np.concatenate(blocks, axis=1).astype(np.float32)


def describe_features(encoders: Sequence[Encoder], left_out: Mapping[str, str]) -> list[str]:
    """What each column was taken for, in sentences."""
    from zoo.data.own.facts import named

    plain = [e["name"] for e in encoders if e["as"] == "number"]
    categories = [_category(e) for e in encoders if e["as"] == "category"]
    flagged = [e["name"] for e in encoders if e["flag"]]
    sentences = []
    if plain:
        sentences.append(f"numbers, standardised on train: {named(plain)}")
    if categories:
        sentences.append(f"categories, a column per value: {named(categories)}")
    if flagged:
        sentences.append(
            f"with missing values, filled (mean of train, or no category) and flagged: {named(flagged)}"
        )
    if left_out:
        sentences.append(f"left out: {named(f'{name} ({why})' for name, why in left_out.items())}")
    return sentences


def _category(encoder: Encoder) -> str:
    kept, of = len(encoder["values"]), encoder["of"]
    return f"{encoder['name']} ({kept if kept == of else f'the commonest {kept} of {of}'})"


def _check_names(table: Table, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        several = f"columns {', '.join(map(repr, missing))}" if len(missing) > 1 else f"column {missing[0]!r}"
        hint = suggest(missing[0], table.columns)
        raise ZooError(f"{table.path.name} lacks the {several}, on which the model was trained.{hint}")
