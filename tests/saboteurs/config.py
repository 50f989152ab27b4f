"""Parameters of the toys (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.kinds import Ids, Series
from zoo.layers.stems_config import ConvolutionsConfig
from zoo.plugin import Config, param


@dataclass(frozen=True, kw_only=True)
class MeanConfig(Config):
    bias: bool = param(True, "biases of both maps")


@dataclass(frozen=True, kw_only=True)
class StackConfig(Config):
    depth: int = param(2, "layers", at_least=1)


@dataclass(frozen=True, kw_only=True)
class StemConfig(Config):
    def tokens(self, inputs: Ids | Series) -> int:
        return inputs.length


@dataclass(frozen=True, kw_only=True)
class StridesConfig(ConvolutionsConfig):
    pass


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Config):
    label_smoothing: float = param(0.0, "share of the probability given to all", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class SilentConfig(Config):
    bias: bool = True  # no help text


@dataclass(frozen=True, kw_only=True)
class GrowingConfig(Config):
    """Says one thing and keeps another: each construction adds to the number."""

    rounds: int = param(1, "how many rounds")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rounds", self.rounds + 1)


@dataclass(kw_only=True)
class ThawedConfig(Config):
    """Not frozen: whoever holds it may change it."""

    bias: bool = param(True, "biases of both maps")


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """A dataclass that checks nothing when it is made."""

    bias: bool = param(True, "biases of both maps")
