"""Losses of real values of which some may be missing (NaN)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.tasks.config import ValueLoss

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}


def loss_of_measured(outputs: Tensor, targets: Tensor, *, loss: ValueLoss) -> Tensor:
    """The mean loss over the targets that are not NaN, 0 without any. Both of one shape -> scalar."""
    measured = ~targets.isnan()
    if not measured.any():
        return (outputs * 0.0).sum()  # keeps the graph: every parameter gets a gradient of 0
    return _LOSSES[loss](outputs.float()[measured], targets.float()[measured])


def count_measured(targets: Tensor) -> int:
    """How many targets are not NaN."""
    return int((~torch.isnan(targets)).sum())
