"""Decayed linear attention in linear time: products within chunks, one state between them (LA2, Alg. 1, 2).

Shapes: R rows (batch B times heads H), T tokens, D and E channels of keys and values, C tokens per chunk, N
chunks per row, n chunks per piece. Memory is a list of R N chunks, row by row.

Time and memory are linear in T: kept for the backward are q, k, v, the states between chunks and the weights
within them, D E / C + C numbers per token and row. Every power of lambda is the exponential of a difference
of positions, never positive: no overflow, and underflow to 0 is right.

The backward is our own: a slice of a tensor under autograd has a gradient as large as the tensor, so that a
loop over blocks is quadratic in T. It also lets us do what makes this fast on CPU, where the products take
three quarters of the time and moving memory the rest:

* Each product runs over all chunks of a piece and writes straight to its place in the result.
* Powers of lambda scale results in place, not copies of the inputs, wherever that is the same.
* States are carried in place from chunk to chunk, for all rows at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.layers.precision import full_precision

#: Tokens (times rows) that are computed at once on CPU, which bounds what is held beside the results.
PIECE = 8192


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    state: Tensor | None,
    lengths: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """o_t = q_t S_t with S_t = e^(-slope) S_{t-1} + k_t v_t^T, and the state after the last token.

    q, k: (B, H, T, D), v: (B, H, T, E), slopes: (H,) or (B, H), state: (B, H, D, E) or `None`, all of one
    type. lengths: int (B,), how many tokens of a row are there, or `None`; the others, at its end, must have
    k = v = 0, and decay nothing. Returns (B, H, T, E) and (B, H, D, E).
    """
    lead, tokens = q.shape[:2], q.shape[2]
    if state is None:
        state = q.new_zeros(*lead, q.shape[3], v.shape[3])
    if q.numel() == 0 or v.numel() == 0:
        return torch.zeros_like(v), state
    if lengths is None:
        lengths = torch.full((1,), tokens, device=q.device)
    else:
        lengths = lengths.repeat_interleave(lead[1])
    chunk = min(chunk, tokens)
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    padding = -tokens % chunk
    if padding:
        q, k, v = (F.pad(x, (0, 0, 0, padding)) for x in (q, k, v))
    q, k, v = (x.reshape(-1, chunk, x.shape[-1]).contiguous() for x in (q, k, v))  # (R N, C, ...)
    scan = _plainly if torch.compiler.is_exporting() else _Chunked.apply
    out, state = scan(q, k, v, slopes.expand(lead).flatten(), state.flatten(0, 1), lengths)
    out = out.view(lead[0] * lead[1], -1, v.shape[-1])[:, :tokens]
    return out.unflatten(0, lead), state.unflatten(0, lead)


class Decay(NamedTuple):
    """The powers of lambda. r = 1, ..., C is the place in a chunk, m how many of its tokens are there."""

    within: Tensor  # (R, 1, C, C): lambda^(r - s) for s <= r, else 0
    since: Tensor  # (R N, C, 1): lambda^r, from the state before the chunk to a query
    until: Tensor  # (R N, C, 1): lambda^(m - r), from a key to the state after the chunk
    over: Tensor  # (R, N, 1, 1): lambda^m, from the state before the chunk to that after it

    @classmethod
    def of(cls, slopes: Tensor, lengths: Tensor, *, chunk: int, chunks: int) -> Decay:
        """slopes: (R,); lengths: int (R or 1,), how many tokens are there."""
        place = torch.arange(1, chunk + 1, device=slopes.device)
        starts = torch.arange(chunks, device=slopes.device) * chunk
        there = (lengths.unsqueeze(-1) - starts).clamp(0, chunk)  # (R or 1, N): m
        rate = slopes[:, None, None]
        age = place[:, None] - place
        within = (-rate * age.clamp_min(0)).exp()
        since = (-rate * place).exp().expand(-1, chunks, -1)  # (R, N, C)
        until = (-rate * (there.unsqueeze(-1) - place).clamp_min(0)).exp()  # (R, N, C)
        return cls(
            # What lies ahead is told by its age, not by rate * age: the rate may be 0.
            within=torch.where(age >= 0, within, 0.0).unsqueeze(1),
            since=since.reshape(-1, chunk, 1),
            until=until.reshape(-1, chunk, 1),
            over=(-rate * there.unsqueeze(-1)).exp().unsqueeze(-1),
        )


class Piece(NamedTuple):
    """Chunks that are computed at once: all of some rows, or some of one row."""

    rows: slice
    chunks: slice  # of all R N


def _pieces(rows: int, chunks: int, most: int) -> Iterator[Piece]:
    """The pieces of R rows of N chunks, of at most `most` chunks (or one row) each."""
    if chunks <= most:
        for first in range(0, rows, most // chunks):
            last = min(first + most // chunks, rows)
            yield Piece(slice(first, last), slice(first * chunks, last * chunks))
        return
    for row in range(rows):
        for start in range(0, chunks, most):
            stop = min(start + most, chunks)
            yield Piece(slice(row, row + 1), slice(row * chunks + start, row * chunks + stop))


class _Chunked(torch.autograd.Function):
    """q, k: (R N, C, D), v: (R N, C, E), slopes: (R,), state: (R, D, E), lengths: int (R or 1,)."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows, (total, chunk, channels) = state.shape[0], q.shape
        decay = Decay.of(slopes, lengths, chunk=chunk, chunks=total // rows)
        pieces = _all_pieces(q, rows)
        out = torch.empty_like(v)
        weights = v.new_empty(total, chunk, chunk)  # (Q K^T) . M
        # The sum over chunk i is put into slot i + 1; then slot i becomes the state before chunk i.
        slots = v.new_empty(total + 1, channels, v.shape[2])
        sums, starts = slots[1:], slots[:-1]
        with full_precision(q.device):
            for _, at in pieces:
                torch.bmm((k[at] * decay.until[at]).mT, v[at], out=sums[at])
            final = _carry_(_in_time(sums, rows), _in_time(starts, rows), state, decay.over.unbind(1))
            for some, at in pieces:
                q1, w1 = q[at], weights[at]
                _weigh(q1, k[at], decay.within[some], out=w1)
                torch.bmm(q1, starts[at], out=out[at]).mul_(decay.since[at]).baddbmm_(w1, v[at])
        ctx.save_for_backward(q, k, v, slots, weights, *decay)
        return out, final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_state: Tensor) -> Any:
        q, k, v, slots, weights, *powers = ctx.saved_tensors
        decay, starts = Decay(*powers), slots[:-1]
        rows, pieces = grad_state.shape[0], _all_pieces(q, grad_state.shape[0])
        grad = grad.contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        # What reaches the state before chunk i is put into slot i; then slot i + 1 becomes the gradient of
        # the state after chunk i.
        slots = torch.empty_like(slots)
        sums, afters = slots[:-1], slots[1:]
        with full_precision(q.device):
            for _, at in pieces:
                torch.bmm(q[at].mT, grad[at] * decay.since[at], out=sums[at])
            grad_state = _carry_(
                _in_time(sums, rows)[::-1],
                _in_time(afters, rows)[::-1],
                grad_state,
                decay.over.unbind(1)[::-1],
            )
            for some, at in pieces:
                q1, k1, v1, grad1, after = q[at], k[at], v[at], grad[at], afters[at]
                since, until = decay.since[at], decay.until[at]
                inner = _weigh(grad1, v1, decay.within[some])
                torch.bmm(grad1, starts[at].mT, out=grad_q[at]).mul_(since).baddbmm_(inner, k1)
                torch.bmm(v1, after.mT, out=grad_k[at]).mul_(until).baddbmm_(inner.mT, q1)
                torch.bmm(k1, after, out=grad_v[at]).mul_(until).baddbmm_(weights[at].mT, grad1)
        return grad_q, grad_k, grad_v, None, grad_state, None


def _plainly(
    q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """The forward of `_Chunked` as a graph can say it: without pieces, nothing written in place."""
    rows, chunk = state.shape[0], q.shape[1]
    decay = Decay.of(slopes, lengths, chunk=chunk, chunks=q.shape[0] // rows)
    sums = torch.bmm((k * decay.until).mT, v).unflatten(0, (rows, -1))  # (R, N, D, E)
    starts = []
    for now, over in zip(sums.unbind(1), decay.over.unbind(1), strict=True):
        starts.append(state)
        state = state * over + now
    before = torch.stack(starts, 1).flatten(0, 1)  # (R N, D, E)
    weights = (torch.bmm(q, k.mT).unflatten(0, (rows, -1)) * decay.within).flatten(0, 1)
    return torch.bmm(q, before) * decay.since + torch.bmm(weights, v), state


def _all_pieces(q: Tensor, rows: int) -> list[Piece]:
    """q: (R N, C, ...) -> all of it on a GPU or compiled, where few large operations are best."""
    total, chunk = q.shape[:2]
    if q.is_cuda or torch.compiler.is_compiling():
        return [Piece(slice(0, rows), slice(0, total))]
    return list(_pieces(rows, total // rows, max(1, PIECE // chunk)))


def _weigh(left: Tensor, right: Tensor, within: Tensor, *, out: Tensor | None = None) -> Tensor:
    """(left right^T) . M of chunks, (r n, C, ...) both, within: (r, 1, C, C) -> (r n, C, C)."""
    out = torch.bmm(left, right.mT) if out is None else torch.bmm(left, right.mT, out=out)
    out.unflatten(0, (within.shape[0], -1)).mul_(within)
    return out


def _in_time(x: Tensor, rows: int) -> tuple[Tensor, ...]:
    """(R N, D, E) -> N times (R, D, E), views."""
    return x.unflatten(0, (rows, -1)).unbind(1)


def _carry_(
    sums: Sequence[Tensor], states: Sequence[Tensor], first: Tensor, over: Sequence[Tensor]
) -> Tensor:
    """states[0] = first, states[i + 1] = over[i] states[i] + sums[i], written in place; returns the last one.

    Each is (R, D, E) but `over`, (R, 1, 1). The memory of states[i + 1] is that of sums[i], except for the
    last sum, whose place the next row's first state takes.
    """
    last = sums[-1].clone()
    states[0].copy_(first)
    for now, later, kept in zip(states[:-1], states[1:], over[:-1], strict=True):
        later.addcmul_(now, kept)
    return last.addcmul_(states[-1], over[-1])
