"""Parameters of the bundled forecasting set and the generated labelling set (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from zoo.config import Config, param
from zoo.kinds import Forecast, Ids, Labels, Series


@dataclass(frozen=True, kw_only=True)
class WindowsConfig(Config):
    """How a long series becomes windows of inputs and of what follows them."""

    #: How many steps the shortest part has: longer windows find no place.
    shortest_part: ClassVar[int]
    names: ClassVar[tuple[str, ...]]

    length: int = param(96, "steps that are given", at_least=1)
    horizon: int = param(24, "steps to forecast", at_least=1)
    stride: int = param(1, "steps from the start of one train window to the next", at_least=1)
    relative: bool = param(
        True,
        "give and ask all steps relative to the last given one, so that a level which train has not seen can "
        "be followed; errors are the same numbers either way",
    )

    def check(self) -> Iterator[tuple[str, str]]:
        needed = self.length + self.horizon
        if needed > self.shortest_part:
            yield (
                "length",
                f"and horizon together are {needed} steps, but validation has only {self.shortest_part}",
            )

    def kinds(self) -> tuple[Series, Forecast]:
        """Inputs and targets for these parameters."""
        channels = len(self.names)
        inputs = Series(channels=channels, length=self.length)
        return inputs, Forecast(channels=channels, horizon=self.horizon, names=self.names)


@dataclass(frozen=True, kw_only=True)
class ApplianceEnergySmallConfig(WindowsConfig):
    """Hourly means of a house in Belgium: 2302 hours of train, 329 of validation, 658 of test."""

    shortest_part: ClassVar[int] = 329
    names: ClassVar[tuple[str, ...]] = (
        "appliances",
        "kitchen_temperature",
        "kitchen_humidity",
        "living_room_temperature",
        "living_room_humidity",
        "outside_temperature",
        "outside_humidity",
        "wind_speed",
    )


@dataclass(frozen=True, kw_only=True)
class NoisyStatesConfig(Config):
    """A chain of hidden states, each seen through noise. Which state was it?"""

    length: int = param(64, "symbols per sequence", at_least=1)
    states: int = param(4, "hidden states, as many as symbols", at_least=2)
    stay: float = param(0.9, "chance that the next state is the same", at_least=0, at_most=1)
    noise: float = param(0.6, "chance that a symbol is drawn evenly from all", at_least=0, at_most=1)
    examples: int = param(4096, "sequences to train on", at_least=1)
    eval_examples: int = param(1024, "sequences in each of validation and test", at_least=1)
    seed: int = param(0, "seed of all sequences; each split has its own stream", at_least=0)

    def kinds(self) -> tuple[Ids, Labels]:
        """Inputs and targets for these parameters."""
        return Ids(vocab=self.states, length=self.length), Labels(count=self.states)
