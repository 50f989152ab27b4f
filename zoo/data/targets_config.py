"""Parameters of forecasting sets, of sets with several questions and of a labelling set (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from zoo.config import Config, param
from zoo.kinds import Classes, Forecast, Ids, Image, Labels, Multi, Series, Values, Vector


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
class ApplianceEnergyConfig(WindowsConfig):
    """The same house every ten minutes, all channels but the two random ones."""

    shortest_part: ClassVar[int] = 1974
    names: ClassVar[tuple[str, ...]] = (
        "Appliances", "lights", "T1", "RH_1", "T2", "RH_2", "T3", "RH_3", "T4", "RH_4", "T5", "RH_5",
        "T6", "RH_6", "T7", "RH_7", "T8", "RH_8", "T9", "RH_9", "T_out", "Press_mm_hg", "RH_out",
        "Windspeed", "Visibility", "Tdewpoint",
    )  # fmt: skip

    length: int = param(144, "steps of ten minutes that are given", at_least=1)
    horizon: int = param(96, "steps of ten minutes to forecast", at_least=1)


@dataclass(frozen=True, kw_only=True)
class HouseholdPowerConfig(WindowsConfig):
    """Hourly means of a house in France, 2006 to 2010."""

    shortest_part: ClassVar[int] = 3459
    names: ClassVar[tuple[str, ...]] = (
        "Global_active_power",
        "Global_reactive_power",
        "Voltage",
        "Global_intensity",
        "Sub_metering_1",
        "Sub_metering_2",
        "Sub_metering_3",
    )

    length: int = param(168, "hours that are given", at_least=1)
    horizon: int = param(96, "hours to forecast", at_least=1)


@dataclass(frozen=True, kw_only=True)
class ElectricityConfig(WindowsConfig):
    """What 321 clients in Portugal used on average, by the hour, 2012 to 2014."""

    shortest_part: ClassVar[int] = 2630
    names: ClassVar[tuple[str, ...]] = ("kilowatt",)

    length: int = param(168, "hours that are given", at_least=1)
    horizon: int = param(96, "hours to forecast", at_least=1)


@dataclass(frozen=True, kw_only=True)
class BeijingPmConfig(WindowsConfig):
    """Fine dust and weather in Beijing by the hour, 2010 to 2014."""

    shortest_part: ClassVar[int] = 4382
    names: ClassVar[tuple[str, ...]] = ("pm2.5", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir")

    length: int = param(168, "hours that are given", at_least=1)
    horizon: int = param(96, "hours to forecast", at_least=1)


@dataclass(frozen=True, kw_only=True)
class DigitsMtlConfig(Config):
    """Of how many digits the answers are known."""

    labelled: float = param(
        1.0, "share of the images of train whose answers are given; the others have none", above=0, at_most=1
    )
    seed: int = param(0, "seed of which images those are", at_least=0)

    def kinds(self) -> tuple[Image, Multi]:
        """Inputs and targets for these parameters."""
        missing = self.labelled < 1
        parts: dict[str, Classes | Values] = {
            "digit": Classes(count=10, names=tuple("0123456789"), missing=missing),
            "loops": Classes(count=3, names=("none", "one", "two"), missing=missing),
            "slant": Values(count=1, names=("slant",), missing=missing),
        }
        return Image(channels=1, height=8, width=8), Multi(parts=parts)


@dataclass(frozen=True, kw_only=True)
class HeaStrengthConfig(Config):
    """How alloys whose strength was measured are split."""

    split: Literal["grouped", "random"] = param(
        "grouped",
        "grouped: the alloys of a paper, and of papers that share some, lie in one part; random: by row",
    )
    seed: int | None = param(
        None, "seed of the split; none: grouped as it comes with the data, random as of seed 0", at_least=0
    )

    def kinds(self) -> tuple[Vector, Values]:
        """Inputs and targets for these parameters."""
        names = ("yield_strength", "tensile_strength", "hardness")
        return Vector(features=38), Values(count=3, names=names, missing=True)


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
