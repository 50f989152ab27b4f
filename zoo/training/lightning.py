"""The one place where Lightning is imported, and how it is kept quiet."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from zoo import torchvision_shim

torchvision_shim.install()

import pytorch_lightning as pl  # noqa: E402
from lightning_fabric.utilities.exceptions import MisconfigurationException  # noqa: E402
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, EMAWeightAveraging  # noqa: E402
from pytorch_lightning.loggers import Logger  # noqa: E402
from pytorch_lightning.plugins.environments import (  # noqa: E402
    ClusterEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.plugins.io import CheckpointIO  # noqa: E402
from pytorch_lightning.profilers import PassThroughProfiler  # noqa: E402
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy  # noqa: E402
from pytorch_lightning.utilities import GradClipAlgorithmType, rank_zero_only  # noqa: E402

#: What may have started the processes of a run, in the order in which Lightning looks for them.
CLUSTERS: dict[Any, Callable[[], ClusterEnvironment]] = {
    TorchElasticEnvironment: TorchElasticEnvironment,
    SLURMEnvironment: lambda: SLURMEnvironment(auto_requeue=False),  # of no run that it could go on with
    LSFEnvironment: LSFEnvironment,
    MPIEnvironment: MPIEnvironment,
}

_LOGGERS = ("pytorch_lightning", "lightning_fabric")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's tips, device reports and advice on workers; ZOO_VERBOSE=1 lets them through."""
    if os.environ.get("ZOO_VERBOSE", "0") not in ("", "0"):
        yield
        return
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in (r"pytorch_lightning\b", r"lightning_fabric\b", r"torchmetrics\b"):
                warnings.filterwarnings("ignore", module=module)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


__all__ = [
    "CLUSTERS",
    "Checkpoint",
    "CheckpointIO",
    "ClusterEnvironment",
    "DDPStrategy",
    "EMAWeightAveraging",
    "EarlyStopping",
    "GradClipAlgorithmType",
    "LightningEnvironment",
    "Logger",
    "MisconfigurationException",
    "ModelParallelStrategy",
    "PassThroughProfiler",
    "Strategy",
    "TorchElasticEnvironment",
    "pl",
    "quiet_lightning",
    "rank_zero_only",
]
