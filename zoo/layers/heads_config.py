"""Parameters of the core's heads (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.config import Config, param


@dataclass(frozen=True, kw_only=True)
class VectorHeadConfig(Config):
    """Parameters of `core/classifier`, `core/regressor` and `core/multi`."""

    dropout_prob: float = param(0.0, "dropout of the features", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class _SkipConfig(Config):
    """What both forecasting heads share."""

    skip: Literal["linear", "none"] = param(
        "linear",
        "linear: add a linear map of each channel's past to its future, one for all channels, counted from "
        "the last value; the network then learns what that leaves",
    )


@dataclass(frozen=True, kw_only=True)
class VectorForecastHeadConfig(_SkipConfig):
    """Parameters of `core/forecaster`."""

    dropout_prob: float = param(0.0, "dropout of the features", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ImageHeadConfig(Config):
    """Parameters of `core/image_classifier`, `core/image_regressor` and `core/image_multi`."""

    dropout_prob: float = param(0.0, "dropout of the pooled features", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class MapsHeadConfig(Config):
    """Parameters of `core/token_maps` and `core/image_maps`."""

    hidden: int = param(32, "channels of the decoder", at_least=1)
    unfold: int = param(
        4,
        "pixels per side that each token, or place of a feature map, becomes before it is resized",
        at_least=1,
    )
    dropout_prob: float = param(0.0, "dropout of the decoder's channels", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class VectorMapsHeadConfig(MapsHeadConfig):
    """Parameters of `core/vector_maps`."""

    unfold: int = param(8, "pixels per side that the vector becomes before it is resized", at_least=1)


@dataclass(frozen=True, kw_only=True)
class PooledHeadConfig(Config):
    """Parameters of `core/pooled_classifier`, `core/pooled_regressor` and `core/pooled_multi`."""

    pool: Literal["mean", "max", "last", "attention"] = param("mean", "how kept tokens become one vector")
    dropout_prob: float = param(0.0, "dropout of the pooled features", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ForecastHeadConfig(_SkipConfig):
    """Parameters of `core/pooled_forecaster`.

    Measured on `appliance_energy_small`. The skip: test MSE of the recipe of that name 0.630 with it (mean of
    three seeds), 0.977 without (seed 0). The pool, without the skip (width 32, 4 epochs, best validation MSE,
    mean of two seeds): last 0.627, mean 0.652, attention 0.661.
    """

    pool: Literal["last", "mean", "max", "attention"] = param("last", "how kept tokens become one vector")
    dropout_prob: float = param(0.0, "dropout of the pooled features", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class TokenHeadConfig(Config):
    """Parameters of `core/token_classifier`."""

    dropout_prob: float = param(0.0, "dropout of the features", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class NextIdHeadConfig(Config):
    """Parameters of `core/next_id`."""

    tied: bool = param(False, "score with the stem's own embedding instead of a second matrix")
    bias: bool = param(True, "a learned score of each symbol by itself")
    dropout_prob: float = param(0.0, "dropout of the features", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class NextEventHeadConfig(Config):
    """Parameters of `core/next_event`.

    The default of `joint` was measured on `hawkes` (recipe `core/hawkes`, seed 0, nats per event on test):
    true 1.364, false 1.396; the process itself has 1.348.
    """

    components: int = param(8, "log-normal distributions that are mixed", at_least=1)
    joint: bool = param(
        True,
        "each component has its own marks, so that the mark depends on the time too; false: one distribution "
        "of marks for all, as in the paper",
    )
    dropout_prob: float = param(0.0, "dropout of the features", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ActionsHeadConfig(Config):
    """Parameters of `core/actions`."""

    dropout_prob: float = param(0.0, "dropout of the features", at_least=0, below=1)
