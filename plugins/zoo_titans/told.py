"""What a memory is told of each token, and its queries, keys and values from their mixture.

B streams, N tokens, H heads, d channels of each, D = H d.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.precision import sum_dtype
from zoo_titans.native_told import native_tell, obstacle

EPS = 1e-6


class Told(NamedTuple):
    """What the memory is told of tokens: q, k, v (B, H, N, d); theta, eta, alpha (B, H, N)."""

    q: Tensor
    k: Tensor
    v: Tensor
    theta: Tensor
    eta: Tensor
    alpha: Tensor


def tell(projected: Tensor, tail: Tensor, conv: Tensor | None, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution, SiLU, and norms of 1: projected (B, N, 3 D) -> q, k, v (B, H, N, d).

    tail: (B, K - 1, 3 D), what came before. conv: (3 D, 1, K).
    """
    if obstacle(projected, tail):
        return queries_keys_values(convolve(projected, tail, conv), heads)
    return native_tell(projected, tail, None if conv is None else conv[:, 0].mT, heads, EPS)


def convolve(projected: Tensor, tail: Tensor, conv: Tensor | None) -> Tensor:
    """The causal convolution of the first channels, (B, N, E) after the tail -> (B, N, E)."""
    if conv is None or projected.shape[1] == 0:
        return projected
    kernel = conv[: projected.shape[-1]].to(projected.dtype)
    padded = torch.cat((tail.to(projected.dtype), projected), 1)
    # As images one pixel high with channels last, as they lie in memory: on CPU twice as fast as conv1d.
    image = padded.transpose(1, 2).unsqueeze(2)
    mixed = F.conv2d(image, kernel.unsqueeze(2), groups=len(kernel))
    return mixed.squeeze(2).transpose(1, 2)


def queries_keys_values(mixed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """SiLU of all, q and k of norm 1: (B, N, 3 D) -> (B, H, N, d) each, in what sums are taken in."""
    if torch.compiler.is_compiling():
        q, k, v = F.silu(mixed).chunk(3, -1)
        return unit(in_heads(q, heads)), unit(in_heads(k, heads)), in_heads(v, heads)
    return _QueriesKeysValues.apply(mixed, heads)


class _QueriesKeysValues(torch.autograd.Function):
    """The same with a backward of its own, in a quarter of the passes over memory."""

    @staticmethod
    def forward(ctx: Any, mixed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        active = in_heads(F.silu(mixed).unflatten(-1, (3, -1)), heads).to(sum_dtype(mixed.dtype))
        keyed = active[:2]
        scale = torch.rsqrt(torch.linalg.vector_norm(keyed, dim=-1, keepdim=True).square_() + EPS)
        q, k, v = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in active)
        torch.mul(active[0], scale[0], out=q)
        torch.mul(active[1], scale[1], out=k)
        v.copy_(active[2])
        ctx.save_for_backward(mixed, q, k, scale)
        return q, k, v

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        mixed, q, k, scale = ctx.saved_tensors
        found = torch.empty_like(mixed)
        places = in_heads(found.unflatten(-1, (3, -1)), q.shape[1])
        for place, grad, unit, size in zip(places, grads, (q, k), scale, strict=False):
            along = torch.linalg.vecdot(grad, unit).unsqueeze(-1)
            torch.mul(torch.addcmul(grad, unit, along, value=-1), size, out=place)
        places[2].copy_(grads[2])
        return torch.ops.aten.silu_backward(found, mixed), None


def in_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, D) -> (B, H, N, d), or (B, N, P, D) -> (P, B, H, N, d)."""
    apart = x.unflatten(-1, (heads, -1))
    return apart.transpose(1, 2) if x.dim() == 3 else apart.permute(2, 0, 3, 1, 4)


def unit(x: Tensor) -> Tensor:
    """Of norm 1; zeros stay zeros, and have a gradient."""
    wide = x.to(sum_dtype(x.dtype))
    return (wide * torch.rsqrt((wide * wide).sum(-1, keepdim=True) + EPS)).to(x.dtype)
