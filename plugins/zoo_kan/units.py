"""What the numbers that a network is given and gives are called, and what they are in natural units.

F features, K values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Numbers at which an encoder is tried, far apart since it may answer in float32: where what it makes of them
#: lies on a line, it is a scale and a shift.
TRIED = (0.0, 1000.0, -3000.0)


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number: (natural - mean) / deviation is what the network sees of it.

    name: fit for a formula. says: what it is, where that is no number of the data: "1 where colour is 'red'".
    """

    name: str
    mean: float = 0.0
    deviation: float = 1.0
    says: str = ""


def features_of(encode: Any, count: int) -> list[Quantity]:
    """What each of `count` features is, from what encoded them (`zoo.data.Splits.encode`).

    Columns of a table have their names, others are x1, x2, ... Where it cannot be told how they were encoded,
    they are what the network is given, and say so.
    """
    unknown = _unnamed("x", count, says="as the network is given it, not in natural units")
    if encode is None:
        return _unnamed("x", count)
    told = encode.to_dict() if hasattr(encode, "to_dict") else {}
    if told.get("kind") == "row":
        found = [each for column in told["columns"] for each in _of_column(column)]
        return _distinct(found) if len(found) == count else unknown
    line = _line(lambda value: encode(torch.full((count,), value)))
    if line is None or not all(line[0]):
        return unknown
    return [
        Quantity(name=each.name, mean=-shift / slope, deviation=1 / slope)
        for each, slope, shift in zip(unknown, *line, strict=True)
    ]


def values_of(decode: Callable[[Tensor], Any] | None, names: Sequence[str], count: int) -> list[Quantity]:
    """What each of `count` values is, from what brings them back (`zoo.data.Splits.decode`).

    names: theirs; without any y, or y1, y2, ... Where `decode` is more than a scale and a shift of each, they
    are what the network answers, and say so.
    """
    plain = [Quantity(name=name) for name in _identifiers(names)] or _unnamed("y", count)
    if decode is None:
        return plain
    line = _line(lambda value: decode(torch.full((1, count), value))[0])
    if line is None:
        return [
            Quantity(name=each.name, says="as the network answers, not in natural units") for each in plain
        ]
    return [
        Quantity(name=each.name, mean=shift, deviation=slope)
        for each, slope, shift in zip(plain, *line, strict=True)
    ]


def _unnamed(letter: str, count: int, *, says: str = "") -> list[Quantity]:
    """x1, x2, ...; a single y is called y."""
    one = count == 1 and letter == "y"
    return [Quantity(name=letter if one else f"{letter}{n + 1}", says=says) for n in range(count)]


def _line(f: Callable[[float], Tensor]) -> tuple[list[float], list[float]] | None:
    """Slopes and shifts of what is a line in each entry; `None` where anything is not."""
    try:
        zero, right, left = (f(value).double() for value in TRIED)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError):  # of data of another kind
        return None
    slope = (right - zero) / TRIED[1]
    off = (left - zero - TRIED[2] * slope).abs()
    if (
        zero.dim() != 1
        or not slope.isfinite().all()
        or not (off <= 1e-3 * (TRIED[2] * slope).abs() + 1e-5 * zero.abs()).all()
    ):
        return None
    return slope.tolist(), zero.tolist()


def _of_column(column: Mapping[str, Any]) -> Iterator[Quantity]:
    """The features that a column of a table became, see `docs/own_data.md`."""
    name = str(column["name"])
    if column["as"] == "number":
        says = "" if _identifier(name) == name else f"the column {name!r}"
        yield Quantity(name=name, mean=column["mean"], deviation=column["deviation"] or 1.0, says=says)
    else:
        for value in column["values"]:
            yield Quantity(name=f"{name}_{value}", says=f"1 where {name} is {value!r}, else 0")
    if column["flag"]:
        yield Quantity(name=f"{name}_missing", says=f"1 where {name} is missing, else 0")


def _distinct(quantities: Sequence[Quantity]) -> list[Quantity]:
    names = _identifiers([each.name for each in quantities])
    return [
        Quantity(name=name, mean=each.mean, deviation=each.deviation, says=each.says)
        for name, each in zip(names, quantities, strict=True)
    ]


def _identifiers(names: Sequence[str]) -> list[str]:
    """Names that can stand in a formula, no two alike."""
    found: list[str] = []
    for name in map(_identifier, names):
        fresh, number = name, 2
        while fresh in found:
            fresh, number = f"{name}_{number}", number + 1
        found.append(fresh)
    return found


def _identifier(name: str) -> str:
    word = re.sub(r"[\W_]+", "_", name).strip("_") or "x"
    return f"x_{word}" if word[0].isdigit() else word
