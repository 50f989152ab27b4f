"""What goes into a model and what is asked of it: data kinds and target kinds (torch-free).

A dataset declares one of each; the contract (`zoo.contract`) finds the stem, head and task between
them and a model. Tensor shapes below use B batch, N tokens or time steps, C channels, D width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Image:
    """Images, float (B, C, H, W)."""

    kind: ClassVar[str] = "image"
    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"image({self.channels}, {self.height}, {self.width})"


@dataclass(frozen=True, kw_only=True)
class Ids:
    """Sequences of symbols, int64 (B, N) in [0, vocab); `length` is the longest N."""

    kind: ClassVar[str] = "ids"
    vocab: int
    length: int
    ragged: bool = False

    def __str__(self) -> str:
        return f"ids(vocab {self.vocab}, length {_at_most(self.length, self.ragged)})"


@dataclass(frozen=True, kw_only=True)
class Series:
    """Multivariate series, float (B, N, C), ragged ones padded on the right; `length` is the longest N."""

    kind: ClassVar[str] = "series"
    channels: int
    length: int
    ragged: bool = False

    def __str__(self) -> str:
        return f"series(channels {self.channels}, length {_at_most(self.length, self.ragged)})"


@dataclass(frozen=True, kw_only=True)
class Vector:
    """Rows of a table, float (B, features)."""

    kind: ClassVar[str] = "vector"
    features: int

    def __str__(self) -> str:
        return f"vector({self.features})"


@dataclass(frozen=True, kw_only=True)
class Classes:
    """One class per example, int64 (B,) in [0, count)."""

    kind: ClassVar[str] = "classes"
    count: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.names and len(self.names) != self.count:
            raise ValueError(f"Classes: {self.count} classes but {len(self.names)} names: {self.names}")

    def __str__(self) -> str:
        return f"{self.count} classes"


@dataclass(frozen=True, kw_only=True)
class Values:
    """One or several real values per example, float (B, count)."""

    kind: ClassVar[str] = "values"
    count: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.names and len(self.names) != self.count:
            raise ValueError(f"Values: {self.count} values but {len(self.names)} names: {self.names}")

    def __str__(self) -> str:
        return f"{self.count} value{'s' if self.count > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class NextId:
    """The next symbol at each position, int64 (B, N) in [0, vocab); IGNORE where nothing is asked.

    `unit` says what a symbol is (character, byte, token); it names the metric `bits_per_<unit>`.
    """

    kind: ClassVar[str] = "next_id"
    vocab: int
    unit: str = "token"

    def __str__(self) -> str:
        return f"next of {self.vocab} {self.unit}s"


#: The target value of a position where no answer is asked (padding, the given part of a recall task).
IGNORE = -100

DataKind = Image | Ids | Series | Vector
TargetKind = Classes | Values | NextId

_KINDS: dict[str, type[Any]] = {
    cls.kind: cls for cls in (Image, Ids, Series, Vector, Classes, Values, NextId)
}


def kind_to_dict(kind: DataKind | TargetKind) -> dict[str, Any]:
    """Plain data for JSON, e.g. `{"kind": "vector", "features": 30}`."""
    return {"kind": kind.kind, **asdict(kind)}


def kind_from_dict(data: dict[str, Any]) -> Any:
    """The inverse of `kind_to_dict`.

    Raises:
        ValueError: the data names no known kind, or has fields that this kind does not have.
    """
    fields = dict(data)
    name = fields.pop("kind", None)
    if name not in _KINDS:
        raise ValueError(f"unknown kind {name!r}; known kinds: {', '.join(_KINDS)}")
    if "names" in fields:
        fields["names"] = tuple(fields["names"])
    try:
        return _KINDS[name](**fields)
    except TypeError as error:
        raise ValueError(f"kind {name!r}: {error}") from None


def _at_most(length: int, ragged: bool) -> str:
    return f"<= {length}" if ragged else str(length)
