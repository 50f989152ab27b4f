"""The norm of what is read, times a gate (section 4.4). B streams, N tokens, H heads, d channels of each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_titans.told import EPS


def gated_norm(x: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
    """RMS norm of each head with learned weights (d,), times SiLU of a gate: (B, N, H d) each."""
    heads = x.to(weight.dtype).unflatten(-1, (-1, len(weight)))
    if torch.compiler.is_compiling() or gate.dtype != weight.dtype:  # under autocast gates are halves
        return F.rms_norm(heads, weight.shape, weight, EPS).flatten(-2).to(gate.dtype) * F.silu(gate)
    return _GatedNorm.apply(heads, weight, gate.unflatten(-1, (-1, len(weight)))).flatten(-2)


class _GatedNorm(torch.autograd.Function):
    """x, gate: (..., d), weight: (d,); its backward takes half of the passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.rsqrt(size.square_().div_(x.shape[-1]).add_(EPS))
        unit, open_ = x * scale, F.silu(gate)
        ctx.save_for_backward(unit, scale, weight, gate, open_)
        return (unit * weight).mul_(open_)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        unit, scale, weight, gate, open_ = ctx.saved_tensors
        g_gate = torch.ops.aten.silu_backward((unit * weight).mul_(grad), gate)
        g_normed = grad * open_
        g_weight = torch.mul(g_normed, unit).flatten(0, -2).sum(0)
        g_unit = g_normed.mul_(weight)
        along = torch.linalg.vecdot(g_unit, unit).div_(-unit.shape[-1]).unsqueeze(-1)
        return g_unit.addcmul_(unit, along).mul_(scale), g_weight, g_gate
