"""Parameters of the core's stems, and how many tokens each makes (torch-free)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zoo.config import Config, param
from zoo.errors import ContractError
from zoo.kinds import Episodes, Events, Ids, Image, Series, Vector

#: What `core/patches` aims at when no patch size is given.
MAX_PATCHES = 64


@dataclass(frozen=True, kw_only=True)
class PatchesConfig(Config):
    """Parameters of `core/patches`."""

    patch: int | None = param(
        None,
        "side of a square patch in pixels; null: the smallest of 2, 4, 8, ... "
        f"that gives at most {MAX_PATCHES} patches",
        at_least=1,
    )

    def side(self, inputs: Image) -> int:
        """The side of a patch in pixels for these images."""
        side = self.patch or 2
        while self.patch is None and math.prod(_grid(inputs, side)) > MAX_PATCHES:
            side *= 2
        return side

    def tokens(self, inputs: Image) -> int:
        """How many patches cover an image."""
        if self.patch is not None and self.patch > max(inputs.height, inputs.width):
            raise ContractError(f"patch={self.patch} is larger than {inputs}; choose a smaller one, or null")
        rows, columns = self.grid(inputs)
        return rows * columns

    def grid(self, inputs: Image) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return _grid(inputs, self.side(inputs))


def _grid(inputs: Image, side: int) -> tuple[int, int]:
    return -(-inputs.height // side), -(-inputs.width // side)


class _ToVector(Config):
    """A stem whose result is one vector."""

    def tokens(self, inputs: Image | Ids | Series | Events | Episodes | Vector) -> None:
        """No tokens."""


class _ToSteps(Config):
    """A stem that makes each symbol or time step a token."""

    def tokens(self, inputs: Ids | Series | Events | Episodes) -> int:
        """As many as the longest input has."""
        return inputs.length


@dataclass(frozen=True, kw_only=True)
class FlattenConfig(_ToVector):
    """`core/flatten` takes no parameters."""

    def flattened(self, inputs: Image) -> int:
        """How many values go into the one linear map."""
        return inputs.channels * inputs.height * inputs.width


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig(_ToSteps):
    """Parameters of `core/embedding`."""

    scale: Literal["one", "sqrt_width"] = param(
        "one",
        "factor of the vectors; with 'sqrt_width' they are stored as much smaller, so that Adam moves them "
        "faster; best beside a tied head",
    )
    init_std: float = param(0.3, "standard deviation of the vectors at the start, after the factor", above=0)

    def factor(self, width: int) -> float:
        """The factor as a number."""
        return width**0.5 if self.scale == "sqrt_width" else 1.0


@dataclass(frozen=True, kw_only=True)
class BagConfig(_ToVector):
    """`core/bag` takes no parameters."""


@dataclass(frozen=True, kw_only=True)
class StepsConfig(_ToSteps):
    """`core/steps` takes no parameters."""


@dataclass(frozen=True, kw_only=True)
class ConvolutionsConfig(Config):
    """Parameters of `core/convolutions`."""

    layers: int = param(3, "convolutions, one after the other", at_least=1)
    stride: int = param(2, "steps that a layer makes one", at_least=1)
    kernel_size: int = param(7, "steps that a layer looks at", at_least=1)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.kernel_size < self.stride:
            yield (
                "kernel_size",
                f"{self.kernel_size} is smaller than the stride, {self.stride}: the steps between would "
                f"never be seen; choose at least {self.stride}",
            )

    def tokens(self, inputs: Series) -> int:
        """As many as the longest series has steps, divided by the stride of each layer and rounded up."""
        return -(-inputs.length // self.stride**self.layers)


@dataclass(frozen=True, kw_only=True)
class EventsConfig(_ToSteps):
    """Parameters of `core/events`."""

    waves: int = param(
        8, "sines and cosines of the time, from twice the typical gap to four times a sequence", at_least=0
    )
    harmonics: int = param(4, "sines and cosines of the data's rhythm, where it has one", at_least=0)

    def wavelengths(self, inputs: Events) -> list[float]:
        """Of every sine and cosine of the time, in the unit of the data."""
        longest, last = 4 * inputs.length * inputs.scale, max(self.waves - 1, 1)
        shortest = 2 * inputs.scale
        waves = [shortest * (longest / shortest) ** (i / last) for i in range(self.waves)]
        if inputs.period is None:
            return waves
        return waves + [inputs.period / n for n in range(1, self.harmonics + 1)]


@dataclass(frozen=True, kw_only=True)
class EpisodesStemConfig(_ToSteps):
    """`core/episodes` takes no parameters."""


@dataclass(frozen=True, kw_only=True)
class SeriesPoolConfig(_ToVector):
    """`core/series_pool` takes no parameters."""


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(Config):
    """`core/features` takes no parameters."""

    def tokens(self, inputs: Vector) -> int:
        """One per feature."""
        return inputs.features


@dataclass(frozen=True, kw_only=True)
class LinearConfig(_ToVector):
    """`core/linear` takes no parameters."""
