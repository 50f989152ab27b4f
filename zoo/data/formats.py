"""File formats of fetched datasets, read without further libraries: IDX, .ts, UCR's .tsv, .xlsx."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from zoo.data.archive import readable
from zoo.errors import ZooError

#: A labelled series: float64 (N, C), NaN where a value is missing, and the text of its class.
Labelled = tuple[np.ndarray, str]

_XLSX = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of bytes (that of MNIST): uint8 of the shape in its header.

    Raises:
        ZooError: it is something else, or not as long as its header says.
    """
    data = path.read_bytes()
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ZooError(f"{path}: this is no IDX file of bytes")
    dimensions = data[3]
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    if len(data) != start + math.prod(shape):
        raise ZooError(f"{path}: its header says {shape}, but {len(data) - start} bytes follow")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_ts(path: Path) -> list[Labelled]:
    """A .ts file of aeon: header lines `@...`, then per line the channels and the class, split by `:`.

    Raises:
        ZooError: a line does not hold series of one length and a class.
    """
    examples: list[Labelled] = []
    for number, line in _lines(path):
        if line.startswith(("#", "@")):
            continue
        *channels, label = line.split(":")
        try:
            values = [[_number(cell) for cell in channel.split(",")] for channel in channels]
        except ValueError as error:
            raise ZooError(f"{path}: line {number}: {error}") from None
        if not values or len({len(channel) for channel in values}) != 1:
            raise ZooError(
                f"{path}: line {number}: the channels must be of one length, and a class must follow"
            )
        examples.append((np.array(values).T, label.strip()))
    return examples


def read_tsv(path: Path) -> list[Labelled]:
    """A .tsv file of the UCR archive: per line the class, then the values of one channel.

    Raises:
        ZooError: a line holds something that is no number.
    """
    examples: list[Labelled] = []
    for number, line in _lines(path):
        label, *cells = line.split("\t")
        try:
            examples.append((np.array([[_number(cell)] for cell in cells]), label))
        except ValueError as error:
            raise ZooError(f"{path}: line {number}: {error}") from None
    return examples


def read_xlsx(path: Path) -> np.ndarray:
    """The numbers of the first sheet of a workbook below its header row: float64 (rows, columns).

    Raises:
        ZooError: it cannot be read, or its rows are not all full of numbers.
    """
    with readable(path), zipfile.ZipFile(path) as book:
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    rows = []
    for row in list(sheet.iter(f"{_XLSX}row"))[1:]:
        cells = [cell for cell in row if cell.get("t", "n") == "n"]
        values = [value.text for cell in cells if (value := cell.find(f"{_XLSX}v")) is not None]
        rows.append([float(value or "nan") for value in values])
    if len({len(row) for row in rows}) != 1:
        raise ZooError(f"{path}: the rows of its first sheet are not all of one length")
    return np.array(rows)


def valid_length(x: np.ndarray) -> int:
    """Steps of a series (N, C) up to the last that has a value: what follows is padding."""
    present = np.flatnonzero(np.isfinite(x).any(axis=1))
    return int(present[-1]) + 1 if len(present) else 0


def is_ragged(series: Sequence[np.ndarray]) -> bool:
    """Whether series differ in length.

    The archive pads short series with missing values. Where such values occur within series too, those at
    an end are missing like the others, and the series are of one length.
    """
    if len({len(x) for x in series}) > 1:
        return True
    lengths = [valid_length(x) for x in series]
    within = any(np.isnan(x[:n]).any() for x, n in zip(series, lengths, strict=True))
    return not within and len(set(lengths)) > 1


def filled(x: np.ndarray) -> np.ndarray:
    """A series (N, C) whose missing values lie on a line between their neighbours."""
    x, steps = x.copy(), np.arange(len(x))
    for channel in x.T:  # a view: written in place
        missing = np.isnan(channel)
        if missing.any():
            channel[missing] = np.interp(steps[missing], steps[~missing], channel[~missing])
    return x


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def _number(cell: str) -> float:
    return math.nan if cell.strip() in ("?", "NaN") else float(cell)
