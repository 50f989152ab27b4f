"""Activations of the memory with their first and second derivatives: its gradients are themselves trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_SQRT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)


class Activation(NamedTuple):
    """`both(h)` gives value, slope, and what else `curvature(value, slope, that)`, the slope's slope, needs.

    All by element.
    """

    both: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    curvature: Callable[[Tensor, Tensor, Tensor], Tensor]


def _silu(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    share = h.sigmoid()
    value = h * share
    return value, torch.addcmul(share + value, share, value, value=-1), share


def _silu_curvature(value: Tensor, slope: Tensor, share: Tensor) -> Tensor:
    """(1 - share) (slope + share - share value)."""
    inner = torch.addcmul(slope + share, share, value, value=-1)
    return torch.addcmul(inner, inner, share, value=-1)


def _gelu(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    below = 0.5 * (1 + torch.erf(h * _SQRT_HALF))
    return h * below, torch.addcmul(below, h, _DENSITY * (-0.5 * h * h).exp()), h


def _gelu_curvature(value: Tensor, slope: Tensor, h: Tensor) -> Tensor:
    square = h * h
    return _DENSITY * (-0.5 * square).exp() * (2 - square)


ACTIVATIONS = {
    "silu": Activation(_silu, _silu_curvature),
    "gelu": Activation(_gelu, _gelu_curvature),
}
