"""The slow and obvious form of `core/softmax`, query by query, which the fast one is tested against.

B batch, N tokens, D width, H heads, d head width.
"""

from __future__ import annotations

import cmath

import torch
from torch import Tensor, nn

from zoo.layers.attention import SoftmaxAttention
from zoo.layers.positions import position_ids


def softmax_attention(module: SoftmaxAttention, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """x: (B, N, D), mask: bool (B, N), True = keep -> (B, N, D), with the weights of `module`."""
    b, n, width = x.shape
    keep = torch.ones(b, n, dtype=torch.bool, device=x.device) if mask is None else mask
    q, k, v = (
        t.unflatten(-1, (module.heads, -1)) for t in module.qkv(x).split(width, dim=-1)
    )  # (B, N, H, d)
    q, k = _head_norm(module.query_norm, q), _head_norm(module.key_norm, k)
    if module.rotary is not None:
        base, where = module.rotary.base, position_ids(keep, n)
        q, k = _turn(q, where, base), _turn(k, where, base)
    rows = []
    for example in range(b):
        for i in range(n):
            seen = [j for j in range(n) if keep[example, j] and _sees(module, i, j)]
            if not seen:
                rows.append(x.new_zeros(width))
                continue
            scores = torch.einsum("hd,jhd->hj", q[example, i], k[example, seen]) / q.shape[-1] ** 0.5
            mixed = torch.einsum("hj,jhd->hd", scores.softmax(-1), v[example, seen])  # eq. (1)
            rows.append(module.out(mixed.flatten()))
    return torch.stack(rows).view(b, n, width)


def _sees(module: SoftmaxAttention, i: int, j: int) -> bool:
    """Whether query i sees key j."""
    if module.causal and j > i:
        return False
    return module.config.window is None or abs(i - j) < module.config.window


def _head_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """x: (B, N, H, d), each vector by itself."""
    if isinstance(norm, nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias
    if isinstance(norm, nn.RMSNorm):
        x = x / (x.square().mean(-1, keepdim=True) + (norm.eps or 0.0)).sqrt()
        return x * norm.weight if norm.elementwise_affine else x
    return x


def _turn(x: Tensor, where: Tensor, base: float) -> Tensor:
    """x: (B, N, H, d), where: int (B, N) -> x with each channel pair turned as one complex number."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half], x[..., half:])  # (B, N, H, d/2)
    turns = [
        [[cmath.rect(1.0, p * base ** (-i / half)) for i in range(half)] for p in row]
        for row in where.tolist()
    ]
    turned = pairs * torch.tensor(turns, dtype=pairs.dtype, device=x.device).unsqueeze(2)
    return torch.cat((turned.real, turned.imag), dim=-1)
