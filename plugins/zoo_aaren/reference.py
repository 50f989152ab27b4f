"""Aaren the slow and obvious way; the fast forms are tested against it.

Shapes: B batch, H heads, N tokens, D channels per head. The attention runs in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo_aaren.layers import Aaren


def aaren(layer: Aaren, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The layer of section 3.3: a projected query token, keys and values of all tokens, multi-head attention.

    x: (B, N, H D) -> (B, N, H D); mask: bool (B, N), True = keep. Zeros where nothing was seen yet.
    """

    def heads(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (layer.heads, layer.channels))

    query = heads(layer.query(layer.query_token))  # (H, D)
    keys, values = heads(layer.key(x)).transpose(1, 2), heads(layer.value(x)).transpose(1, 2)  # (B, H, N, D)
    scores = torch.einsum("bhnd,hd->bhn", keys, query) * layer.scale
    mixed = prefix_attention(scores, values, mask).to(x.dtype)
    y = layer.out(mixed.transpose(1, 2).flatten(2))
    return y if mask is None else y * (mask.cumsum(1) > 0).unsqueeze(-1)


def prefix_attention(scores: Tensor, values: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """The definition: at each position an ordinary softmax over the tokens so far.

    scores: (B, H, N); values: (B, H, N, D); key_mask: bool (B, N), True = keep -> (B, H, N, D).
    """
    scores, values = scores.double(), values.double()
    outputs = []
    for k in range(1, scores.shape[-1] + 1):
        seen = torch.ones_like(scores[:, 0, :k], dtype=torch.bool) if key_mask is None else key_mask[:, :k]
        seen = seen.unsqueeze(1)  # (B, 1, k)
        some = seen.any(-1, keepdim=True)  # a softmax over nothing is undefined: zeros instead
        weights = scores[..., :k].masked_fill(~seen & some, float("-inf")).softmax(-1)
        outputs.append(torch.einsum("bhk,bhkd->bhd", weights * some, values[..., :k, :]))
    return torch.stack(outputs, 2)


def recurrent_attention(scores: Tensor, values: Tensor) -> Tensor:
    """The recurrent cell of section 3.1, token by token, in the paper's letters: state (a, c, m).

    scores: (B, H, N); values: (B, H, N, D) -> (B, H, N, D).
    """
    scores, values = scores.double(), values.double()
    a = torch.zeros_like(values[:, :, 0])  # (B, H, D)
    c = torch.zeros_like(scores[:, :, 0])  # (B, H)
    m = torch.full_like(c, float("-inf"))  # deviation: 0 in the paper, which underflows for scores << 0
    outputs = []
    for s, v in zip(scores.unbind(2), values.unbind(2), strict=True):
        new_m = torch.maximum(m, s)
        keep, add = (m - new_m).exp(), (s - new_m).exp()
        a = a * keep.unsqueeze(-1) + v * add.unsqueeze(-1)
        c = c * keep + add
        m = new_m
        outputs.append(a / c.unsqueeze(-1))
    return torch.stack(outputs, 2)
