"""What makes one key and one value of many: pooling, and the local laws p(j | span) of eq. (4) and (9).

B batch, H heads, G sets of T tokens, D channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def pool(x: Tensor, valid: Tensor | None, pooling: str) -> Tensor:
    """Maximum or mean of tokens, 0 of none: x (..., T, D), valid bool (..., T) -> (..., D)."""
    if valid is None:
        return x.amax(-2) if pooling == "max" else x.mean(-2)
    keep = valid.unsqueeze(-1)
    if pooling == "mean":
        return x.masked_fill(~keep, 0.0).sum(-2) / keep.sum(-2).clamp_min(1)
    return x.masked_fill(~keep, float("-inf")).amax(-2).masked_fill(~keep.any(-2), 0.0)


def last(x: Tensor, valid: Tensor | None) -> Tensor:
    """The last token that is there: x (..., T, D), valid bool (..., T) -> (..., D)."""
    if valid is None:
        return x[..., -1, :]
    place = torch.arange(x.shape[-2], device=x.device).where(valid, 0).amax(-1)[..., None, None]
    return x.take_along_dim(place, -2).squeeze(-2)


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, *, valid: Tensor | None, seen: Tensor | None = None
) -> Tensor:
    """Softmax attention within each of many sets.

    q: (B, H, G, M, D), scaled; k, v: (B, H, G, T, D); valid: bool (B, 1, G, T); seen: bool (M, T).
    Returns (B, H, G, M, D), something finite where nothing is seen.
    """
    if valid is not None:
        there = valid.unsqueeze(-2)  # (B, 1, G, 1, T)
        seen = there if seen is None else seen & there
    if seen is not None:
        seen = seen | ~seen.any(-1, keepdim=True)  # a softmax over nothing is undefined
        seen = seen.expand(*q.shape[:3], -1, -1).flatten(0, 1) if seen.dim() > 2 else seen[None, None]
    out = F.scaled_dot_product_attention(
        q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=seen, scale=1.0
    )
    return out.unflatten(0, q.shape[:2])


# -- all prefixes at once ----------------------------------------------------------------------


def pool_before(x: Tensor, valid: Tensor | None, pooling: str) -> Tensor:
    """`pool` over what comes strictly before each place: x (..., T, D), valid bool (..., T) -> (..., T, D)."""
    if pooling == "mean":
        if valid is None:
            count = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype).clamp_min(1).unsqueeze(-1)
            return (x.cumsum(-2) - x) / count
        keep = valid.unsqueeze(-1)
        x = x.masked_fill(~keep, 0.0)
        return (x.cumsum(-2) - x) / (keep.cumsum(-2) - keep.long()).clamp_min(1)
    if valid is None:
        return max_before(x)
    keep = valid.unsqueeze(-1)
    nothing = keep.cumsum(-2) == keep.long()
    return max_before(x.masked_fill(~keep, torch.finfo(x.dtype).min)).masked_fill(nothing, 0.0)


def max_before(x: Tensor) -> Tensor:
    """The maximum of what comes before each place, 0 at the first: (..., T, D) -> (..., T, D)."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.pad(x[..., :-1, :].cummax(-2).values, (0, 0, 1, 0))
    out: Tensor = _MaxBefore.apply(x)  # faster than `cummax`
    return out


class _MaxBefore(torch.autograd.Function):
    """The gradient of a maximum goes to where it was attained, halved where the one before is as large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        out[..., 0, :] = 0.0
        out[..., 1:2, :] = x[..., :1, :]
        for t in range(2, x.shape[-2]):
            torch.maximum(out[..., t - 1, :], x[..., t - 1, :], out=out[..., t, :])
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        grad = torch.zeros_like(x)
        if x.shape[-2] < 2:
            return grad
        half = torch.tensor(0.5, dtype=x.dtype)
        carried = gradient[..., -1, :].clone()
        for t in range(x.shape[-2] - 2, 0, -1):
            share = torch.heaviside(x[..., t, :] - out[..., t, :], half)
            torch.mul(carried, share, out=grad[..., t, :])
            carried.sub_(grad[..., t, :]).add_(gradient[..., t, :])
        grad[..., 0, :] = carried
        return grad
