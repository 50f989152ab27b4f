"""Landmark attention on the regular grid, some blocks of queries at a time, with its own backward.

Shapes: R rows (batch times heads), N places, d channels, L places per block with its landmark (the last),
n blocks. A tile is g blocks of queries of some rows against the keys up to the last of them: no tensor of
N x N scores is ever held, neither by forward nor for backward, which computes the tiles again.

Two levels instead of adjusted scores, for speed. In block b, p = softmax of s_ij over its tokens; over
blocks, W_ib = softmax of (LSE of the own block; s_i,landmark(b) of an earlier one); j weighs W_ib p_ij.
With G = dO V^T, D_ib = sum_{j in b} p_ij G_ij and D_i = sum_b W_ib D_ib the gradients are
    another block:  ds_ij = W_ib p_ij (G_ij - D_ib)    its landmark:  ds = W_ib (D_ib - D_i)
    own block:      ds_ij = W_ib p_ij (G_ij - D_i).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.precision import full_precision, sum_dtype

NEG_INF = float("-inf")
#: Scores held at once, and queries per tile; the fastest of those tried on CPU (README).
TILE = 3 * 2**18
QUERIES = 128

_softmax_backward = torch.ops.aten._softmax_backward_data


def blocked_attention(q: Tensor, k: Tensor, v: Tensor, block_len: int) -> Tensor:
    """q, k: (B, H, N, d), v: (B, H, N, d'), a landmark after every `block_len` -> (B, H, N, d')."""
    batch, heads, places, width = q.shape
    if q.numel() == 0 or v.numel() == 0:
        return v.new_zeros(batch, heads, places, v.shape[3])
    size = block_len + 1
    padding = -places % size  # behind the last place: no query sees it
    dtype = sum_dtype(q.dtype)
    rows = (F.pad(t.to(dtype).flatten(0, 1), (0, 0, 0, padding)).contiguous() for t in (q, k, v))
    out = _Blocked.apply(*rows, size, 1 / math.sqrt(width))
    return out[:, :places].unflatten(0, (batch, heads)).to(q.dtype)


class _Blocked(torch.autograd.Function):
    """Saves queries, keys and values, nothing else.

    A gradient that is itself to be differentiated goes through plain operations instead.
    """

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, size: int, scale: float) -> Tensor:
        with full_precision(q.device):
            out, later = torch.empty_like(v), _later(size, q)
            for rows, queries, keys in _tiles(q, size):
                inner, gates = _tile_weights(q[rows, queries] * scale, k[rows, keys], queries, later)
                weights = inner.mul_(gates.unsqueeze(-1)).flatten(1, 2).flatten(2)
                out[rows, queries] = torch.bmm(weights, v[rows, keys])
            return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.size, ctx.scale = inputs[3:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad_out,) = grads
        q, k, v = ctx.saved_tensors
        with full_precision(q.device):
            if torch.is_grad_enabled():

                def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                    return plain(q, k, v, ctx.size, ctx.scale)

                return *torch.func.vjp(form, q, k, v)[1](grad_out), None, None
            return *_backward(q, k, v, grad_out.contiguous(), ctx.size, ctx.scale), None, None


def _backward(
    q: Tensor, k: Tensor, v: Tensor, grad_out: Tensor, size: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    later = _later(size, q)
    for rows, queries, keys in _tiles(q, size):
        scaled, seen, grad = q[rows, queries] * scale, k[rows, keys], grad_out[rows, queries]
        inner, gates = _tile_weights(scaled, seen, queries, later)  # (r, g, L, n, L), (r, g, L, n)
        weights = (inner * gates.unsqueeze(-1)).flatten(1, 2).flatten(2)
        grad_v[rows, keys].baddbmm_(weights.mT, grad)
        grad_weights = torch.bmm(grad, v[rows, keys].mT).view(inner.shape)
        # Landmarks have p = 0. With -1 in its place and G = 0, softmax's own backward leaves D_ib there.
        inner[..., -1] = -1.0
        grad_weights[..., -1] = 0.0
        grad_scores = _softmax_backward(grad_weights, inner, -1, inner.dtype)  # p_ij (G_ij - D_ib)
        grad_gates = _softmax_backward(grad_scores[..., -1].clone(), gates, -1, gates.dtype)
        grad_scores.mul_(gates.unsqueeze(-1))
        first = queries.start // size
        for block in range(inner.shape[1]):  # of the own block the gate is the LSE, whose gradient is p_ij
            own = (slice(None), block, slice(None), first + block)
            grad_scores[own].addcmul_(inner[own], grad_gates[own].unsqueeze(-1))
            grad_gates[own] = 0.0
        grad_scores[..., -1] = grad_gates
        flat = grad_scores.flatten(1, 2).flatten(2)
        grad_q[rows, queries] = torch.bmm(flat, seen).mul_(scale)
        grad_k[rows, keys].baddbmm_(flat.mT, scaled)
    return grad_q, grad_k, grad_v


def _tiles(q: Tensor, size: int) -> Iterator[tuple[slice, slice, slice]]:
    """Rows, queries and the keys that they see, of each tile."""
    count, places, _ = q.shape
    blocks = places // size
    group = max(1, min(blocks, QUERIES // size))
    for start in range(0, blocks, group):
        stop = min(start + group, blocks)
        rows = max(1, TILE // ((stop - start) * stop * size * size))
        for some in _parts(count, rows):
            yield some, slice(start * size, stop * size), slice(0, stop * size)


def _parts(count: int, most: int) -> list[slice]:
    """Rows, at most so many at once; all of them where their number is left open (torch.export)."""
    if not isinstance(count, int):
        return [slice(None)]
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]


def _later(size: int, like: Tensor) -> Tensor:
    """Which tokens of its own block a query must not see, bool (L, L)."""
    return torch.ones(size, size, dtype=torch.bool, device=like.device).triu_(1)


def _tile_weights(q: Tensor, k: Tensor, queries: slice, later: Tensor) -> tuple[Tensor, Tensor]:
    """p_ij by block, (r, g, L, n, L), and W_ib, (r, g, L, n), of a tile; q is scaled."""
    size = len(later)
    scores = torch.bmm(q, k.mT).unflatten(2, (-1, size)).unflatten(1, (-1, size))
    gates = scores[..., -1].clone()
    scores[..., -1] = NEG_INF
    first = queries.start // size
    own = [(slice(None), block, slice(None), first + block) for block in range(scores.shape[1])]
    largest = [scores[place].masked_fill_(later, NEG_INF).amax(-1) for place in own]
    inner = scores.softmax(-1)
    for block, (place, score) in enumerate(zip(own, largest, strict=True)):
        # The LSE from the largest score s and its weight p = exp(s - LSE): no query has an empty own block.
        gates[place] = score - inner[place].amax(-1).log()
        gates[:, block, :, first + block + 1 :] = NEG_INF
    return inner, gates.softmax(-1)


def plain(q: Tensor, k: Tensor, v: Tensor, size: int, scale: float) -> Tensor:
    """The same in plain operations, all scores at once; for second derivatives. (R, N, d) each."""
    places = q.shape[1]
    at = torch.arange(places, device=q.device)
    block, landmark = at // size, at % size == size - 1
    scores = q @ k.mT * scale
    seen = (at.unsqueeze(1) >= at) & ~landmark
    inner = scores.masked_fill(~seen, NEG_INF).unflatten(2, (-1, size))
    earlier = block.unsqueeze(1) > torch.arange(places // size, device=q.device)  # (N, n)
    totals = inner.logsumexp(-1).masked_fill(~earlier, 0.0)
    shift = (scores[..., landmark] - totals).masked_fill(~earlier, 0.0)
    adjusted = scores + shift.repeat_interleave(size, -1)
    return adjusted.masked_fill(~seen, NEG_INF).softmax(-1) @ v
