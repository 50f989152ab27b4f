"""Losses where some answers are missing: `IGNORE` for a class, NaN for a real value.

Everything is of fixed shape and stays a tensor, so that no step waits for a GPU. Without any answer a loss
is 0 and keeps its graph, with gradients of 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.kinds import IGNORE
from zoo.tasks.config import ValueLoss

_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}


def loss_of_known(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy in nats over the targets that are not `IGNORE`. (B, K, ...), (B, ...) -> scalar."""
    total = F.cross_entropy(
        logits.float(), targets, ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing
    )
    return total / (targets != IGNORE).sum().clamp_min(1)


def loss_of_tokens(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """The same for sequences. (B, N, K), (B, N) -> scalar."""
    return loss_of_known(logits.flatten(0, 1), targets.flatten(), label_smoothing=label_smoothing)


def count_known(targets: Tensor) -> int:
    """How many targets are not `IGNORE`."""
    return int((targets != IGNORE).sum())


def loss_of_measured(outputs: Tensor, targets: Tensor, *, loss: ValueLoss) -> Tensor:
    """The mean loss over the targets that are not NaN. Both of one shape -> scalar."""
    measured = ~targets.isnan()
    each = _LOSSES[loss](outputs.float(), targets.float().where(measured, 0.0), reduction="none")
    return each.where(measured, 0.0).sum() / measured.sum().clamp_min(1)


def count_measured(targets: Tensor) -> int:
    """How many targets are not NaN."""
    return int((~torch.isnan(targets)).sum())
