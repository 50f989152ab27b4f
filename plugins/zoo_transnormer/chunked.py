"""Decayed linear attention in linear time: products within chunks, one state between them (LA2, Alg. 1, 2).

Shapes: R rows (batch times heads), T tokens, D and E channels of keys and values, C tokens per chunk,
n chunks per piece.

A sequence is cut into pieces that fit the cache: a few rows by at most `PIECE` tokens. Within a piece all
chunks are computed at once, and the states before its chunks are one small triangular product over the sums
of earlier chunks. From piece to piece the state is handed on, so that time and memory are linear in T. Every
power of lambda is the exponential of a difference of positions, never positive: no overflow, and underflow
to 0 is right.

The backward is our own, for two reasons. A slice of a tensor under autograd has a gradient as large as the
tensor, so that a loop over blocks is quadratic in T. And it stores no (C, C) weights but computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.layers.precision import full_precision

#: Tokens (times rows) of a piece; the fastest of 512, 1024, 2048 on CPU.
PIECE = 2048

Span = tuple[slice, slice]


def chunked_attention(
    q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor, lengths: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor]:
    """o_t = q_t S_t with S_t = e^(-slope) S_{t-1} + k_t v_t^T, and the state after the last token.

    q, k: (R, T, D), v: (R, T, E), slopes: (R,), state: (R, D, E), all of one type. lengths: int (R,), how
    many tokens of a row are there; the others, at its end, must have k = v = 0, and decay nothing.
    Returns (R, T, E) and (R, D, E).
    """
    tokens = q.shape[1]
    if q.numel() == 0 or v.numel() == 0:
        return torch.zeros_like(v), state
    chunk = min(chunk, tokens)
    padding = -tokens % chunk
    if padding:
        q, k, v = (F.pad(x, (0, 0, 0, padding)) for x in (q, k, v))
    out, state = _Chunked.apply(
        q.contiguous(), k.contiguous(), v.contiguous(), slopes, state, lengths, tokens, chunk
    )
    return out[:, :tokens], state


class Decay(NamedTuple):
    """The powers of lambda that a piece needs. r = 1, ..., C is the place in a chunk, m its tokens."""

    within: Tensor  # (R, 1, C, C): lambda^(r - s) for s <= r, else 0
    since: Tensor  # (R, 1, C, 1): lambda^r, from the state before the chunk to a query
    until: Tensor  # (R, n, C, 1): lambda^(m - r), from a key to the state after the chunk
    carry: Tensor  # (R, n + 1, n + 1): from the state before and the chunks' sums to the states between

    @classmethod
    def of(cls, slopes: Tensor, tokens: Tensor, *, chunk: int, chunks: int) -> Decay:
        """slopes: (R,); tokens: int (R or 1,), how many of the piece's are there."""
        place = torch.arange(1, chunk + 1, device=slopes.device)
        starts = torch.arange(chunks + 1, device=slopes.device) * chunk
        before = torch.minimum(starts, tokens.unsqueeze(-1))  # (R or 1, n + 1): tokens before each chunk
        there = before.diff(dim=-1)  # (R or 1, n): m
        order = torch.arange(chunks + 1, device=slopes.device)
        rate = slopes[:, None, None]
        return cls(
            within=_powers(rate, place[:, None] - place).unsqueeze(1),
            since=(-rate * place[:, None]).exp().unsqueeze(1),
            until=(-rate * (there.unsqueeze(-1) - place).clamp_min(0)).exp().unsqueeze(-1),
            carry=_powers(rate, before.unsqueeze(-1) - before.unsqueeze(-2), seen=order[:, None] >= order),
        )

    def rows(self, rows: slice) -> Decay:
        return Decay(*(part[rows] for part in self))


def _powers(rate: Tensor, distance: Tensor, seen: Tensor | None = None) -> Tensor:
    """lambda^distance where `seen` (the distance is not negative), else 0."""
    seen = distance >= 0 if seen is None else seen  # not by the sign of rate * distance: the rate may be 0
    return torch.where(seen, (-rate * distance.clamp_min(0)).exp(), 0.0)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        slopes: Tensor,
        state: Tensor,
        lengths: Tensor | None,
        tokens: int,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        out = torch.empty_like(v)
        starts = v.new_empty(q.shape[0], q.shape[1] // chunk, q.shape[2], v.shape[2])  # states before chunks
        state = state.clone()
        with full_precision(q.device):
            for (rows, span), decay in _pieces(q, slopes, lengths, tokens, chunk):
                q1, k1, v1 = (_in_chunks(x[rows, span], chunk) for x in (q, k, v))
                at = slice(span.start // chunk, span.stop // chunk)
                out[rows, span], starts[rows, at], state[rows] = _forward(q1, k1, v1, state[rows], decay)
        ctx.save_for_backward(q, k, v, slopes, starts, *([] if lengths is None else [lengths]))
        ctx.tokens, ctx.chunk = tokens, chunk
        return out, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, slopes, starts, *lengths = ctx.saved_tensors
        chunk = ctx.chunk
        grad_out, grad_state = grads[0].contiguous(), grads[1].clone()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        with full_precision(q.device):
            pieces = list(_pieces(q, slopes, lengths[0] if lengths else None, ctx.tokens, chunk))
            for (rows, span), decay in reversed(pieces):
                q1, k1, v1, grad1 = (_in_chunks(x[rows, span], chunk) for x in (q, k, v, grad_out))
                before = starts[rows, span.start // chunk : span.stop // chunk].flatten(0, 1)
                grad_q[rows, span], grad_k[rows, span], grad_v[rows, span], grad_state[rows] = _backward(
                    q1, k1, v1, grad1, before, grad_state[rows], decay
                )
        return grad_q, grad_k, grad_v, None, grad_state, None, None, None


def _forward(q: Tensor, k: Tensor, v: Tensor, state: Tensor, decay: Decay) -> tuple[Tensor, Tensor, Tensor]:
    """q, k: (R, n, C, D), v: (R, n, C, E), state: (R, D, E) -> the outputs (R, n C, E), the states before
    the chunks (R, n, D, E) and after the last (R, D, E)."""
    rows, chunks = q.shape[:2]
    values = v.flatten(0, 1)  # (R n, C, E)
    sums = torch.bmm((k * decay.until).flatten(0, 1).mT, values)  # (R n, D, E)
    sums = torch.cat((state.flatten(1).unsqueeze(1), sums.view(rows, chunks, -1)), 1)  # (R, n + 1, D E)
    states = torch.bmm(decay.carry, sums).unflatten(-1, state.shape[1:])  # (R, n + 1, D, E)
    starts = states[:, :-1]
    out = torch.bmm(_weights(q, k, decay), values)
    out.baddbmm_((q * decay.since).flatten(0, 1), starts.flatten(0, 1))
    return out.view(rows, -1, v.shape[-1]), starts, states[:, -1]


def _backward(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, starts: Tensor, grad_state: Tensor, decay: Decay
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, each (R, n C, ...), and of the state before the piece.

    grad: (R, n, C, E), of the outputs; starts: (R n, D, E); grad_state: (R, D, E), of the state after it.
    """
    rows, chunks = q.shape[:2]
    queries, keys, grads = (x.flatten(0, 1) for x in (q, k, grad))
    weights, grad_weights = _weights(q, k, decay), _weights(grad, v, decay)  # (R n, C, C)
    reaching = (grad * decay.since).flatten(0, 1)  # the gradient that reaches the states, (R n, C, E)
    grad_q = torch.bmm(grad_weights, keys).baddbmm_(reaching, starts.mT)

    sums = torch.bmm(queries.mT, reaching).view(rows, chunks, -1)
    sums = torch.cat((sums, grad_state.flatten(1).unsqueeze(1)), 1)  # (R, n + 1, D E)
    states = torch.bmm(decay.carry.mT, sums).unflatten(-1, grad_state.shape[1:])
    after = states[:, 1:].flatten(0, 1)  # the gradient of the state after each chunk, (R n, D, E)

    grad_k = torch.bmm(grad_weights.mT, queries).baddbmm_((v * decay.until).flatten(0, 1), after.mT)
    grad_v = torch.bmm(weights.mT, grads).baddbmm_((k * decay.until).flatten(0, 1), after)
    return *(x.view(rows, -1, x.shape[-1]) for x in (grad_q, grad_k, grad_v)), states[:, 0]  # type: ignore[return-value]


def _weights(left: Tensor, right: Tensor, decay: Decay) -> Tensor:
    """(left right^T) . M, both (R, n, C, ...) -> (R n, C, C)."""
    products = torch.bmm(left.flatten(0, 1), right.flatten(0, 1).mT)
    products.unflatten(0, left.shape[:2]).mul_(decay.within)
    return products


def _pieces(
    q: Tensor, slopes: Tensor, lengths: Tensor | None, tokens: int, chunk: int
) -> Iterator[tuple[Span, Decay]]:
    """(rows, tokens) of each piece, in time order for each row, with its powers of lambda."""
    rows, padded = q.shape[:2]
    length = min(max(PIECE // chunk, 1) * chunk, padded)
    # Compiled or on a GPU there is no cache to fit: few large operations are better.
    group = rows if q.is_cuda or torch.compiler.is_compiling() else max(1, PIECE // length)
    decays: list[Decay] = []
    for start in range(0, padded, length):
        size = min(length, padded - start)
        if not decays or lengths is not None or start + size > tokens or size < length:
            counts = torch.full((1,), tokens, device=q.device) if lengths is None else lengths
            counts = (counts - start).clamp(0, size)
            decays.append(Decay.of(slopes, counts, chunk=chunk, chunks=size // chunk))
        else:
            decays.append(decays[0])
    for first in range(0, rows, group):
        some = slice(first, min(first + group, rows))
        for start, decay in zip(range(0, padded, length), decays, strict=True):
            yield (some, slice(start, min(start + length, padded))), decay.rows(some)


def _in_chunks(x: Tensor, chunk: int) -> Tensor:
    """(R, n C, D) -> (R, n, C, D)."""
    return x.unflatten(1, (-1, chunk))
