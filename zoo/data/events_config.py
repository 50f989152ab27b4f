"""Parameters of the event sequences (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from zoo.config import Config, param
from zoo.kinds import Events, NextEvent


@dataclass(frozen=True, kw_only=True)
class EventProcessConfig(Config):
    """What generated event sequences share."""

    length: int = param(64, "events per sequence that are asked for their successor", at_least=1)
    examples: int = param(4096, "sequences to train on", at_least=1)
    eval_examples: int = param(1024, "sequences in each of validation and test", at_least=1)
    seed: int = param(0, "seed of all sequences; each split has its own stream", at_least=0)


@dataclass(frozen=True, kw_only=True)
class HawkesConfig(EventProcessConfig):
    """Events that excite others: each brings about others of its own mark and of the next one, on a ring."""

    marks: int = param(3, "kinds of events", at_least=1)
    base: float = param(0.2, "events per unit of time that come by themselves, of any mark", above=0)
    branching: float = param(
        0.8,
        "how many events each brings about; from 1 on they would explode",
        at_least=0,
        below=1,
    )
    own: float = param(0.2, "share of these with its own mark; the rest has the next", at_least=0, at_most=1)
    decay: float = param(4.0, "how fast the excitement by events of the first mark decays", above=0)
    slowing: float = param(
        0.5, "by how much that of each further mark decays more slowly", above=0, at_most=1
    )

    @property
    def scale(self) -> float:
        """The mean gap in the long run."""
        return (1 - self.branching) / self.base

    def kinds(self) -> tuple[Events, NextEvent]:
        """Inputs and targets for these parameters."""
        return (
            Events(marks=self.marks, length=self.length, scale=self.scale),
            NextEvent(marks=self.marks, scale=self.scale),
        )


@dataclass(frozen=True, kw_only=True)
class SelfCorrectingConfig(EventProcessConfig):
    """Events that relieve a pressure which grows again: none for long makes one likely."""

    growth: float = param(1.0, "how fast the logarithm of the intensity grows", above=0)
    relief: float = param(1.0, "by how much each event lowers it", above=0)

    @property
    def scale(self) -> float:
        """The mean gap in the long run: growth and relief balance."""
        return self.relief / self.growth

    def kinds(self) -> tuple[Events, NextEvent]:
        """Inputs and targets for these parameters."""
        return (
            Events(marks=1, length=self.length, scale=self.scale),
            NextEvent(marks=1, scale=self.scale),
        )


@dataclass(frozen=True, kw_only=True)
class NycFlightsConfig(Config):
    """Departures of planes, in hours."""

    airports: ClassVar[tuple[str, ...]] = ("EWR", "JFK", "LGA")

    length: int = param(64, "most events of a window", at_least=1)
    stride: int | None = param(
        None, "events from the start of one train window to the next; the default is `length`", at_least=1
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.stride is not None and self.stride > self.length:
            yield "stride", f"must be at most length {self.length}, or events between windows are lost"

    def kinds(self) -> tuple[Events, NextEvent]:
        """Inputs and targets for these parameters. The typical gap is the mean of train."""
        marks, scale, unit = len(self.airports), 25.0, "hour"
        inputs = Events(marks=marks, length=self.length, ragged=True, scale=scale, period=24.0, unit=unit)
        return inputs, NextEvent(marks=marks, names=self.airports, scale=scale, unit=unit)
