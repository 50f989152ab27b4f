"""Parameters of the core's tasks (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.config import Config, param

ValueLoss = Literal["mse", "mae", "huber"]


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(Config):
    """Cross entropy over the classes."""

    label_smoothing: float = param(
        0.0, "share of the target spread evenly over all classes", at_least=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(Config):
    """A loss per measured value, averaged."""

    loss: ValueLoss = param("mse", "what is minimised: squared, absolute or Huber error")


@dataclass(frozen=True, kw_only=True)
class LanguageModellingConfig(Config):
    """Cross entropy of the next symbol."""

    label_smoothing: float = param(
        0.0, "share of the target spread evenly over all symbols; metrics stay without", at_least=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class ForecastingConfig(Config):
    """A loss per step and channel, averaged."""

    loss: ValueLoss = param("mse", "what is minimised: squared, absolute or Huber error")


@dataclass(frozen=True, kw_only=True)
class SequenceLabellingConfig(Config):
    """Cross entropy of each token's label."""

    label_smoothing: float = param(
        0.0, "share of the target spread evenly over all labels; metrics stay without", at_least=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class MultiTaskConfig(Config):
    """The weighted sum of a loss per question, about an example or about each pixel."""

    weights: dict[str, float] = param(
        factory=dict, help="weights of the losses by question, instead of those the dataset gives"
    )
    value_loss: ValueLoss = param("mse", "what is minimised for values: squared, absolute or Huber error")
    label_smoothing: float = param(
        0.0, "for classes: share of the target spread evenly over all", at_least=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class ControlConfig(Config):
    """How a model plays after training."""

    episodes: int = param(20, "episodes that it plays", at_least=1)
    target_return: float | None = param(
        None, "the return that it is told to reach, in the environment's own unit; null: the best recorded"
    )
