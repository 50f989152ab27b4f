"""Sums run in float32 (or float64), whatever autocast says."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast leaves matrix products alone."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def sum_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """What sums over inputs of these dtypes run in."""
    return torch.float64 if torch.float64 in dtypes else torch.float32
