"""Activations of the memory with their first and second derivatives: its gradients are themselves trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_SQRT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)


class Activation(NamedTuple):
    """`value(h)`; `back(g, h)`, g times the slope at h; `bend(t, h, value)`, t times the slope's slope.

    All by element; few passes, as they are bound by memory. `bend` may use up t.
    """

    value: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]
    bend: Callable[[Tensor, Tensor, Tensor], Tensor]


def _traced() -> bool:
    """Whether kernels will not do that have no derivative of their own and that ONNX does not know."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def _silu_back(grad: Tensor, h: Tensor) -> Tensor:
    if _traced():
        share = h.sigmoid()
        return grad * torch.addcmul(share, h * share, 1 - share)
    return torch.ops.aten.silu_backward(grad, h)


def _silu_bend(t: Tensor, h: Tensor, value: Tensor) -> Tensor:
    """With the sigmoid s: s (1 - s) (2 + h - 2 h s) t."""
    inner = torch.sub(h, value, alpha=2).add_(2).mul_(t)
    return torch.ops.aten.sigmoid_backward(inner, h.sigmoid())


def _gelu_back(grad: Tensor, h: Tensor) -> Tensor:
    if _traced():
        return grad * torch.addcmul(0.5 * torch.erfc(h * -_SQRT_HALF), h, _DENSITY * (-0.5 * h * h).exp())
    return torch.ops.aten.gelu_backward(grad, h)


def _gelu_bend(t: Tensor, h: Tensor, value: Tensor) -> Tensor:
    square = h * h
    return t.mul_((-0.5 * square).exp_()).mul_(square.neg_().add_(2).mul_(_DENSITY))


ACTIVATIONS = {
    "silu": Activation(F.silu, _silu_back, _silu_bend),
    "gelu": Activation(F.gelu, _gelu_back, _gelu_bend),
}
