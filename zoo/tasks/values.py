"""Losses of real values of which some may be missing (NaN)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.tasks.config import ValueLoss

_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}


def loss_of_measured(outputs: Tensor, targets: Tensor, *, loss: ValueLoss) -> Tensor:
    """The mean loss over the targets that are not NaN, 0 without any. Both of one shape -> scalar."""
    measured = ~targets.isnan()
    # Of fixed shape, so that nothing waits for a GPU; 0 without any keeps its graph, with gradients of 0.
    each = _LOSSES[loss](outputs.float(), targets.float().where(measured, 0.0), reduction="none")
    return each.where(measured, 0.0).sum() / measured.sum().clamp_min(1)


def count_measured(targets: Tensor) -> int:
    """How many targets are not NaN."""
    return int((~torch.isnan(targets)).sum())
