"""The layers the slow and obvious way, in float64; the fast forms are tested against it.

B batch, N tokens, D width, H heads, d channels per head. Every token is looked at by itself: q_t S_t with the
sum S_t written out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo_transnormer.layers import LightningAttention
    from zoo_transnormer.v1 import DiagAttention, NormAttention


def lightning(layer: LightningAttention, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """TNL, eq. 5 to 9, row by row on the kept tokens alone. x: (B, N, D) -> (B, N, D), zeros at padding."""

    def row(x: Tensor) -> Tensor:
        q, k, v = _heads(layer.qkv(x), layer.heads)  # (H, N, d)
        q, k, v = layer.activation(q), layer.activation(k), layer.value_activation(v)
        if layer.lrpe is not None:
            theta = layer.lrpe.theta.view(layer.heads, 1, -1)
            angle = torch.arange(len(x))[:, None] * theta  # (H, N, d)
            q, k = (torch.cat((t * angle.cos(), t * angle.sin()), -1) for t in (q, k))
        found = decayed_attention(q, k, v, layer.slopes.to(x.dtype))
        return layer.out(layer.gate(x, layer.norm(_joined(found))))

    return _by_row(row, x, mask)


def norm_attention(layer: NormAttention, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """TransNormer, eq. 14, row by row. x: (B, N, D) -> (B, N, D), zeros at padding."""

    def row(x: Tensor) -> Tensor:
        q, k, v = _heads(layer.qkv(x), layer.heads)
        q, k = layer.activation(q), layer.activation(k)
        if layer.positions is not None:
            q, k = (_reflected_rotary(t, layer.positions.mirror, layer.positions.theta) for t in (q, k))
        weights = q @ k.mT
        found = (weights.tril() if layer.causal else weights) @ v
        return layer.out(layer.norm(_joined(found)))

    return _by_row(row, x, mask)


def diag(layer: DiagAttention, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """TransNormer, section 4.2, token by token. x: (B, N, D) -> (B, N, D), zeros at padding."""

    def row(x: Tensor) -> Tensor:
        q, k, v = _heads(layer.qkv(x), layer.heads)
        if layer.positions is not None:
            q, k = (_reflected_rotary(t, layer.positions.mirror, layer.positions.theta) for t in (q, k))
        found = []
        for t in range(len(x)):
            start = t // layer.block * layer.block
            stop = t + 1 if layer.causal else min(start + layer.block, len(x))
            scores = (k[:, start:stop] @ q[:, t].unsqueeze(-1)).squeeze(-1) / math.sqrt(q.shape[-1])  # (H, m)
            weights = scores.softmax(-1) if layer.weights == "softmax" else scores.relu()
            found.append((weights.unsqueeze(-1) * v[:, start:stop]).sum(1))  # (H, d)
        return layer.out(layer.norm(_joined(torch.stack(found, 1))))

    return _by_row(row, x, mask)


def decayed_attention(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
    """o_t = sum_{s <= t} e^{-slope (t - s)} (q_t . k_s) v_s for (H, N, D), (H, N, D), (H, N, E), (H,)."""
    outputs = []
    for t in range(q.shape[1]):
        age = torch.arange(t, -1, -1)  # of tokens 0, ..., t
        weights = (k[:, : t + 1] @ q[:, t].unsqueeze(-1)).squeeze(-1) * (
            -slopes[:, None] * age
        ).exp()  # (H, t + 1)
        outputs.append((weights.unsqueeze(-1) * v[:, : t + 1]).sum(1))
    return torch.stack(outputs, 1)


def _reflected_rotary(x: Tensor, mirror: Tensor, theta: Tensor) -> Tensor:
    """x: (H, N, d). Complex numbers x_i + i x_{i + d/2}, turned by n theta_i, after I - 2 u u^T."""
    u = mirror / mirror.norm()
    x = x @ (torch.eye(len(u), dtype=x.dtype) - 2 * torch.outer(u, u))
    first, second = x.chunk(2, dim=-1)
    turned = torch.complex(first, second) * torch.exp(1j * torch.arange(x.shape[1])[:, None] * theta)
    return torch.cat((turned.real, turned.imag), -1)


def _by_row(row: object, x: Tensor, mask: Tensor | None) -> Tensor:
    """Each row's kept tokens by themselves."""
    outputs = []
    for index in range(len(x)):
        kept = torch.ones(x.shape[1], dtype=torch.bool) if mask is None else mask[index]
        y = torch.zeros_like(x[index])
        outputs.append(y.masked_scatter(kept[:, None].expand_as(y), row(x[index][kept])) if kept.any() else y)  # type: ignore[operator]
    return torch.stack(outputs)


def _heads(projected: Tensor, heads: int) -> tuple[Tensor, ...]:
    """(N, 3 D) -> three times (H, N, d)."""
    return tuple(t.unflatten(-1, (heads, -1)).transpose(0, 1) for t in projected.chunk(3, dim=-1))


def _joined(found: Tensor) -> Tensor:
    """(H, N, d) -> (N, D)."""
    return found.transpose(0, 1).flatten(1)
