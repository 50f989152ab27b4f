"""What goes into a model and what is asked of it: data kinds and target kinds (torch-free).

A dataset declares one of each; the contract (`zoo.contract`) finds the stem, head and task between
them and a model. Tensor shapes below use B batch, N tokens or time steps, C channels, D width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, get_args

from zoo.config import Config, ConfigError, Problem, build, describe, param
from zoo.errors import suggest


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
class Events(Config):
    """Marked events in time, float (B, N, 3), ragged ones padded on the right; `length` is the longest N.

    The columns are `time`, `gap` (the time since the event before; 0 for the first of a sequence) and
    `mark`, a whole number in [0, marks). Times are in `unit`, from a start that the dataset chooses.

    scale: a typical gap: what a stem measures time by.
    period: a rhythm, e.g. 24 where the hour of the day matters; times then count from one of its starts.
    """

    kind: ClassVar[str] = "events"
    columns: ClassVar[tuple[str, ...]] = ("time", "gap", "mark")
    marks: int = param(at_least=1)
    length: int = param(at_least=1)
    ragged: bool = False
    scale: float = param(1.0, above=0)
    period: float | None = param(None, above=0)
    unit: str = ""

    def __str__(self) -> str:
        return f"events(marks {self.marks}, length {_at_most(self.length, self.ragged)})"


@dataclass(frozen=True, kw_only=True)
class Episodes(Config):
    """Steps of decisions in an environment, float (B, N, columns), ragged ones padded on the right.

    Three tokens per step, in this order: the return to go, the state and the action that was taken. Columns
    are `role` (its number in `roles`), `time` (the step of the episode, in [0, horizon)) and then the values:
    one return, `state` numbers, or `action` numbers (1 at the choice, or the values), zeros behind them.

    steps: the most steps in one example. horizon: the most steps of an episode.
    """

    kind: ClassVar[str] = "episodes"
    roles: ClassVar[tuple[str, ...]] = ("return", "state", "action")
    ragged: ClassVar[bool] = True
    state: int = param(at_least=1)
    action: int = param(at_least=1)
    steps: int = param(at_least=1)
    horizon: int = param(at_least=1)

    @property
    def columns(self) -> int:
        """Numbers of a token."""
        return 2 + max(self.state, self.action)

    @property
    def length(self) -> int:
        """The most tokens of an example."""
        return len(self.roles) * self.steps

    def __str__(self) -> str:
        return f"episodes(state {self.state}, action {self.action}, steps <= {self.steps})"


@dataclass(frozen=True, kw_only=True)
class Vector(Config):
    """Rows of a table, float (B, features)."""

    kind: ClassVar[str] = "vector"
    features: int = param(at_least=1)

    def __str__(self) -> str:
        return f"vector({self.features})"


@dataclass(frozen=True, kw_only=True)
class Classes(Config):
    """One class per example, int64 (B,) in [0, count).

    `missing`: some are not known and are IGNORE; they are neither trained on nor scored.
    """

    kind: ClassVar[str] = "classes"
    count: int = param(at_least=1)
    names: tuple[str, ...] = ()
    missing: bool = False

    def check(self) -> Iterator[tuple[str, str]]:
        if self.names and len(self.names) != self.count:
            yield "names", f"are {len(self.names)}, but there are {self.count} classes"

    @property
    def outputs(self) -> int:
        """How many numbers a head gives per example."""
        return self.count

    def __str__(self) -> str:
        return f"{self.count} classes" + (", some missing" if self.missing else "")


@dataclass(frozen=True, kw_only=True)
class Values(Config):
    """One or several real values per example, float (B, count).

    `missing`: some were not measured and are NaN; they are neither trained on nor scored.
    """

    kind: ClassVar[str] = "values"
    count: int = param(at_least=1)
    names: tuple[str, ...] = ()
    missing: bool = False

    def check(self) -> Iterator[tuple[str, str]]:
        if self.names and len(self.names) != self.count:
            yield "names", f"are {len(self.names)}, but there are {self.count} values"

    @property
    def outputs(self) -> int:
        """How many numbers a head gives per example."""
        return self.count

    def __str__(self) -> str:
        some = ", some missing" if self.missing else ""
        return f"{self.count} value{'s' if self.count > 1 else ''}{some}"


@dataclass(frozen=True, kw_only=True)
class NextId(Config):
    """The next symbol at each position, int64 (B, N) in [0, vocab); IGNORE where nothing is asked.

    `unit` says what a symbol is (character, byte, token); it names the metric `bits_per_<unit>`.
    """

    kind: ClassVar[str] = "next_id"
    vocab: int = param(at_least=1)
    unit: str = "token"

    @property
    def outputs(self) -> int:
        """How many numbers a head gives per position."""
        return self.vocab

    def __str__(self) -> str:
        return f"next of {self.vocab} {self.unit}s"


@dataclass(frozen=True, kw_only=True)
class Labels(Config):
    """A label for each token, int64 (B, N) in [0, count); IGNORE where none is asked.

    Unlike `NextId`, what comes later may help: models that see both directions are welcome.
    """

    kind: ClassVar[str] = "labels"
    count: int = param(at_least=1)
    names: tuple[str, ...] = ()

    def check(self) -> Iterator[tuple[str, str]]:
        if self.names and len(self.names) != self.count:
            yield "names", f"are {len(self.names)}, but there are {self.count} labels"

    @property
    def outputs(self) -> int:
        """How many numbers a head gives per token."""
        return self.count

    def __str__(self) -> str:
        return f"one of {self.count} labels per token"


@dataclass(frozen=True, kw_only=True)
class NextEvent(Config):
    """What follows each event, float (B, N, 2): the gap until the next event, and its mark.

    Both are NaN where nothing is asked. scale, unit: as in `Events`.
    """

    kind: ClassVar[str] = "next_event"
    columns: ClassVar[tuple[str, ...]] = ("gap", "mark")
    marks: int = param(at_least=1)
    names: tuple[str, ...] = ()
    scale: float = param(1.0, above=0)
    unit: str = ""

    def check(self) -> Iterator[tuple[str, str]]:
        if self.names and len(self.names) != self.marks:
            yield "names", f"are {len(self.names)}, but there are {self.marks} marks"

    @property
    def outputs(self) -> int:
        """How many numbers a head gives per position and component: a weight, two of a log-normal, marks."""
        return 3 + self.marks

    def __str__(self) -> str:
        time = f"time in {self.unit}s" if self.unit else "time"
        return f"the next event: its {time}" + (f", one of {self.marks} marks" if self.marks > 1 else "")


@dataclass(frozen=True, kw_only=True)
class Actions(Config):
    """What to do in each state, float (B, N, numbers): NaN at tokens that are no state.

    Without a `limit` one of `count` choices, a whole number in [0, count): one number. With one, `count` real
    values in [-limit, limit].
    """

    kind: ClassVar[str] = "actions"
    count: int = param(at_least=1)
    limit: float | None = param(None, above=0)
    names: tuple[str, ...] = ()

    def check(self) -> Iterator[tuple[str, str]]:
        if self.names and len(self.names) != self.count:
            yield "names", f"are {len(self.names)}, but there are {self.count} of an action"

    @property
    def choices(self) -> bool:
        """Whether one is chosen; else values are set."""
        return self.limit is None

    @property
    def numbers(self) -> int:
        """How many numbers say what was done."""
        return 1 if self.choices else self.count

    @property
    def outputs(self) -> int:
        """How many numbers a head gives per token."""
        return self.count

    def __str__(self) -> str:
        if self.choices:
            return f"one of {self.count} actions per state"
        return f"{self.count} action value{'s' if self.count > 1 else ''} per state"


@dataclass(frozen=True, kw_only=True)
class Forecast(Config):
    """What comes after a series, float (B, horizon, channels): the first channels of the input, continued.

    NaN where a step was not measured: it neither trains nor counts.
    """

    kind: ClassVar[str] = "forecast"
    channels: int = param(at_least=1)
    horizon: int = param(at_least=1)
    names: tuple[str, ...] = ()

    def check(self) -> Iterator[tuple[str, str]]:
        if self.names and len(self.names) != self.channels:
            yield "names", f"are {len(self.names)}, but there are {self.channels} channels"

    @property
    def outputs(self) -> int:
        """How many numbers a head gives per example."""
        return self.horizon * self.channels

    def __str__(self) -> str:
        return f"the next {self.horizon} steps of {self.channels} channel{'s' if self.channels > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class Questions(Config):
    """Several questions at once, by name: what `Multi` and `Maps` have in common.

    A model answers with one tensor, the answers side by side in the order of `parts`; `split` takes it apart.
    `weights`: of the losses; a part that is not named weighs 1.
    """

    parts: dict[str, Classes | Values]
    weights: dict[str, float] = param(factory=dict)

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.parts:
            yield "parts", "must name at least one question"
        for name in self.parts:
            if not _PART.match(name):
                yield "parts", f"must be called by letters, digits and '_', a letter first; got {name!r}"
        yield from check_weights(self.weights, self.parts)

    @property
    def outputs(self) -> int:
        """How many numbers a head gives per example, or per pixel: those of all parts."""
        return sum(part.outputs for part in self.parts.values())

    def split(self, outputs: Any) -> dict[str, Any]:
        """The answers to each part: a tensor or array (B, outputs, ...) -> name -> (B, its own, ...)."""
        found, start = {}, 0
        for name, part in self.parts.items():
            found[name] = outputs[:, start : start + part.outputs]
            start += part.outputs
        return found

    def __str__(self) -> str:
        return " + ".join(f"{name} ({part})" for name, part in self.parts.items())


@dataclass(frozen=True, kw_only=True)
class Multi(Questions):
    """Several questions about one example: a dict of tensors, by names of `parts`. Outputs: (B, outputs)."""

    kind: ClassVar[str] = "multi"


@dataclass(frozen=True, kw_only=True)
class Maps(Questions):
    """Questions about each pixel of an image: a dict of maps, by the names of `parts`.

    Classes are int64 (B, H, W), IGNORE where none is asked; values are float (B, count, H, W), NaN where
    none was measured (`missing`). Outputs are (B, outputs, H, W).
    """

    kind: ClassVar[str] = "maps"
    height: int = param(at_least=1)
    width: int = param(at_least=1)

    def __str__(self) -> str:
        return f"{super().__str__()} per pixel of {self.height} x {self.width}"


def check_weights(weights: dict[str, float], parts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with weights of losses, field by field."""
    for name, weight in weights.items():
        if name not in parts:
            yield f"weights.{name}", f"is no part.{suggest(name, parts)}"
        if not 0 <= weight < math.inf:
            yield f"weights.{name}", f"must be at least 0 and finite, got {weight}"


_PART = re.compile(r"[A-Za-z]\w*\Z", re.ASCII)


#: The target value of a position where no answer is asked (padding, the given part of a recall task).
IGNORE = -100

DataKind = Image | Ids | Series | Events | Episodes | Vector
TargetKind = Classes | Values | NextId | Labels | NextEvent | Actions | Forecast | Multi | Maps

#: Data whose second dimension is N, and targets that ask something at each of its steps.
STEPWISE = (Ids.kind, Series.kind, Events.kind, Episodes.kind)
PER_TOKEN = (NextId.kind, Labels.kind, NextEvent.kind, Actions.kind)

_KINDS: dict[str, type[Any]] = {cls.kind: cls for union in (DataKind, TargetKind) for cls in get_args(union)}


def kind_to_dict(kind: DataKind | TargetKind) -> dict[str, Any]:
    """Plain data for JSON, e.g. `{"kind": "vector", "features": 30}`."""
    data = {"kind": kind.kind, **asdict(kind)}
    if isinstance(kind, Questions):
        data["parts"] = {name: kind_to_dict(part) for name, part in kind.parts.items()}
    return data


def kind_from_dict(data: dict[str, Any]) -> Any:
    """The inverse of `kind_to_dict`.

    Raises:
        ConfigError: the data names no known kind, or does not fit that kind.
    """
    name = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in _KINDS:
        raise ConfigError([Problem("kind", f"must be one of {', '.join(_KINDS)}, got {describe(name)}")])
    values = {key: value for key, value in data.items() if key != "kind"}
    if issubclass(_KINDS[name], Questions) and isinstance(values.get("parts"), dict):
        values["parts"] = {key: kind_from_dict(part) for key, part in values["parts"].items()}
    return build(_KINDS[name], values)


def _at_most(length: int, ragged: bool) -> str:
    return f"<= {length}" if ragged else str(length)
