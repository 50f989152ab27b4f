"""What goes into a model and what is asked of it: data kinds and target kinds (torch-free).

A dataset declares one of each; the contract (`zoo.contract`) finds the stem, head and task between
them and a model. Tensor shapes below use B batch, N tokens or time steps, C channels, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from zoo.config import Config, ConfigError, Problem, build, describe, param


@dataclass(frozen=True, kw_only=True)
class Image(Config):
    """Images, float (B, C, H, W)."""

    kind: ClassVar[str] = "image"
    channels: int = param(at_least=1)
    height: int = param(at_least=1)
    width: int = param(at_least=1)

    def __str__(self) -> str:
        return f"image({self.channels}, {self.height}, {self.width})"


@dataclass(frozen=True, kw_only=True)
class Ids(Config):
    """Sequences of symbols, int64 (B, N) in [0, vocab); `length` is the longest N."""

    kind: ClassVar[str] = "ids"
    vocab: int = param(at_least=1)
    length: int = param(at_least=1)
    ragged: bool = False

    def __str__(self) -> str:
        return f"ids(vocab {self.vocab}, length {_at_most(self.length, self.ragged)})"


@dataclass(frozen=True, kw_only=True)
class Series(Config):
    """Multivariate series, float (B, N, C), ragged ones padded on the right; `length` is the longest N."""

    kind: ClassVar[str] = "series"
    channels: int = param(at_least=1)
    length: int = param(at_least=1)
    ragged: bool = False

    def __str__(self) -> str:
        return f"series(channels {self.channels}, length {_at_most(self.length, self.ragged)})"


@dataclass(frozen=True, kw_only=True)
class Vector(Config):
    """Rows of a table, float (B, features)."""

    kind: ClassVar[str] = "vector"
    features: int = param(at_least=1)

    def __str__(self) -> str:
        return f"vector({self.features})"


@dataclass(frozen=True, kw_only=True)
class Classes(Config):
    """One class per example, int64 (B,) in [0, count)."""

    kind: ClassVar[str] = "classes"
    count: int = param(at_least=1)
    names: tuple[str, ...] = ()

    def check(self) -> Iterator[tuple[str, str]]:
        if self.names and len(self.names) != self.count:
            yield "names", f"are {len(self.names)}, but there are {self.count} classes"

    def __str__(self) -> str:
        return f"{self.count} classes"


@dataclass(frozen=True, kw_only=True)
class Values(Config):
    """One or several real values per example, float (B, count)."""

    kind: ClassVar[str] = "values"
    count: int = param(at_least=1)
    names: tuple[str, ...] = ()

    def check(self) -> Iterator[tuple[str, str]]:
        if self.names and len(self.names) != self.count:
            yield "names", f"are {len(self.names)}, but there are {self.count} values"

    def __str__(self) -> str:
        return f"{self.count} value{'s' if self.count > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class NextId(Config):
    """The next symbol at each position, int64 (B, N) in [0, vocab); IGNORE where nothing is asked.

    `unit` says what a symbol is (character, byte, token); it names the metric `bits_per_<unit>`.
    """

    kind: ClassVar[str] = "next_id"
    vocab: int = param(at_least=1)
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
        ConfigError: the data names no known kind, or does not fit that kind.
    """
    name = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in _KINDS:
        raise ConfigError([Problem("kind", f"must be one of {', '.join(_KINDS)}, got {describe(name)}")])
    return build(_KINDS[name], {key: value for key, value in data.items() if key != "kind"})


def _at_most(length: int, ragged: bool) -> str:
    return f"<= {length}" if ragged else str(length)
