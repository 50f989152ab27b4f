"""Parameters of the core's tasks (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.config import Config, param


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(Config):
    """Cross entropy over the classes."""

    label_smoothing: float = param(
        0.0, "share of the target spread evenly over all classes", at_least=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(Config):
    """A loss per value, averaged."""

    loss: Literal["mse", "mae", "huber"] = param("mse", "what is minimised: squared, absolute or Huber error")


@dataclass(frozen=True, kw_only=True)
class LanguageModellingConfig(Config):
    """Cross entropy of the next symbol."""

    label_smoothing: float = param(
        0.0, "share of the target spread evenly over all symbols; metrics stay without", at_least=0, below=1
    )
