"""`optim.lr=1e-3,3e-3 seed=0..4` -> what is combined or drawn, a list of overrides each (torch-free).

A file says the same as YAML: `{optim: {lr: [1e-3, 3e-3]}, seed: 0..4}`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.config import join
from zoo.errors import ZooError
from zoo.recipe.render import flow
from zoo.recipe.source import Node

#: More points than this are a typing mistake.
MOST_POINTS = 10_000
_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_OPENING, _CLOSING = "[{", "]}"


@dataclass(frozen=True)
class Span:
    """All numbers from low to high, both included; whole ones only, where `whole`."""

    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        """Whether a number is drawn by its logarithm: a span of fractions over a factor of ten or more."""
        return not self.whole and self.low > 0 and self.high >= 10 * self.low

    def text(self, number: float) -> str:
        """A number of it as one would write it; fractions in four digits."""
        if self.whole:
            return str(round(number))
        return f"{min(max(float(f'{number:.4g}'), self.low), self.high):g}"


@dataclass(frozen=True)
class Axis:
    """A key and the values it takes, as they were written. span: the range, where it was given as one.

    A span of fractions has no values of its own: a sampler draws them.
    """

    key: str
    values: tuple[str, ...]
    span: Span | None = None

    @property
    def ends(self) -> tuple[str, ...]:
        """Its values, of a span the two ends."""
        return (self.span.text(self.span.low), self.span.text(self.span.high)) if self.span else self.values

    def __iter__(self) -> Iterator[str]:
        return (override(self.key, value) for value in self.values)


def override(key: str, value: str) -> str:
    """As it is written on the command line."""
    return f"{key}={value}"


def parse_axes(arguments: Sequence[str]) -> list[Axis]:
    """`key=v1,v2`, `key=0..4` and `key=1e-4..1e-2` as axes; a single value is an axis of one.

    A comma inside brackets, braces or quotes belongs to the value: `optim.params={betas: [0.9, 0.95]}`.

    Raises:
        ZooError: an argument is no `key=values`, a key is given twice, a range runs backwards.
    """
    axes: list[Axis] = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ZooError(
                f"{argument!r} is no override; a sweep takes key=v1,v2 or key=0..4, e.g. seed=0..2"
            )
        if key in (axis.key for axis in axes):
            raise ZooError(f"{key} is given twice; give all its values at once, {key}=v1,v2")
        span = _span(key, text)
        axes.append(Axis(key, tuple(_whole(span) if span else _values(key, text)), span))
    return axes


def combine(axes: Sequence[Axis], rows: Sequence[Mapping[str, str]] = ()) -> list[tuple[str, ...]]:
    """The overrides of each point: every row with every combination of the axes, the last axis fastest.

    rows: points that are listed one by one, by key.

    Raises:
        ZooError: far too many, a key that both rows and axes give, or a span of fractions.
    """
    for axis in axes:
        if not axis.values:
            raise ZooError(
                f"{axis.key} has no end of values between {axis.ends[0]} and {axis.ends[1]}: draw some with "
                "--sampler random --trials N (or tpe), or name them"
            )
    count = len(rows or [{}])
    for axis in axes:
        count *= len(axis.values)
    if count > MOST_POINTS:
        raise ZooError(f"this sweep has {count:,} points, the most is {MOST_POINTS:,}; name fewer values")
    for key in {key for row in rows for key in row} & {axis.key for axis in axes}:
        raise ZooError(f"{key} is given by the list of points and by an argument; give it once")
    listed = [tuple(itertools.starmap(override, row.items())) for row in rows] or [()]
    return [(*row, *point) for row in listed for point in itertools.product(*axes)]


def axis_of(key: str, value: Any) -> Axis:
    """An axis as a file says it: a list is its values, a text like `0..4` a range, all else its one value.

    Raises:
        ZooError: an empty list, a value named twice, a range that runs backwards.
    """
    if isinstance(value, list):
        values = tuple(map(flow, value))
        if not values:
            raise ZooError("an empty list is no value; a list of values that has one empty list is [[]]")
        if len(set(values)) < len(values):
            raise ZooError(f"{flow(value)} names a value twice")
        return Axis(key, values)
    span = _span(key, value) if isinstance(value, str) else None
    return Axis(key, tuple(_whole(span)) if span else (flow(value),), span)


def leaves(node: Node, above: str = "") -> Iterator[tuple[str, Node]]:
    """(dotted key, value) of all that a fragment of a recipe sets."""
    for key, child in node.value.items() if isinstance(node.value, dict) else ():
        path = join(above, key)
        if isinstance(child.value, dict) and child.value:
            yield from leaves(child, path)
        else:
            yield path, child


def _span(key: str, text: str) -> Span | None:
    """`0..4` or `1e-4..1e-2`; `None` for anything else."""
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        return None
    whole = all(re.fullmatch(r"-?\d+", end) for end in found.groups())
    span = Span(float(found[1]), float(found[2]), whole)
    if span.high < span.low:
        raise ZooError(f"{key}={text} runs backwards; write {key}={found[2]}..{found[1]}")
    if span.high == span.low and not whole:
        raise ZooError(f"{key}={text} holds one number; write {key}={found[1]}")
    if whole and span.high - span.low >= MOST_POINTS:
        count = int(span.high - span.low) + 1
        raise ZooError(f"{key}={text} has {count:,} values, the most is {MOST_POINTS:,}")
    return span


def _whole(span: Span) -> list[str]:
    return [str(value) for value in range(int(span.low), int(span.high) + 1)] if span.whole else []


def _values(key: str, text: str) -> list[str]:
    values = [value.strip() for value in _split(text)]
    if len(values) > 1 and not all(values):
        raise ZooError(f"{key}={text} has an empty value between its commas; write null for no value")
    if len(set(values)) < len(values):
        raise ZooError(f"{key}={text} names a value twice")
    return values


def _split(text: str) -> list[str]:
    """At the commas that stand outside brackets, braces and quotes."""
    pieces, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        if character == "," and not quote and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces
