"""Combiner-Logsparse: of the past as many spans as its length has binary digits, each twice the one after it.

B batch and heads together, N tokens, P = 2^levels >= max(N, 2) places, D channels. A node of level l holds
the 2^l tokens whose numbers agree but for the last l bits; nodes come in pairs of siblings, G = P / 2^(l + 1)
pairs. A token sees the siblings of its nodes; if causal, those that are left ones: they come before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_combiner.joint import HIDDEN
from zoo_combiner.span import add_outer, last, mixture, pool, products, span_values


def logsparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    key_mask: Tensor | None,
    pooling: str,
    span_qk: tuple[Tensor, Tensor],
    scale: float | None = None,
    dropout_p: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """q, k, v: (B, H, N, D), key_mask: bool (B, N) -> (B, H, N, D).

    Token i sees itself, and at each level l the sibling of its node; causal: where that comes before it,
    which is where bit l of i is set. So [0, i) falls into spans as i into powers of two.
    """
    batch, heads, tokens, _ = q.shape
    places = 2 ** max(1, (tokens - 1).bit_length())
    if key_mask is None and not causal and places > tokens:
        key_mask = torch.ones(batch, tokens, dtype=torch.bool, device=q.device)
    q, k, v, pool_q, pool_k = (
        F.pad(x.flatten(0, 1), (0, 0, 0, places - tokens)) for x in (q, k, v, *span_qk)
    )
    valid = None
    if key_mask is not None:
        valid = F.pad(key_mask, (0, places - tokens), value=False).repeat_interleave(heads, 0)  # (B H, P)
    sides = 1 if causal else 2
    summaries = _summaries(
        k, v, pool_q, pool_k, valid, sides=sides, pooling=pooling, scale=scale, fused=fused
    )
    seen = None if valid is None else _seen(valid, sides)
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    if fused and not dropout_p and not torch.compiler.is_compiling():
        out = _Siblings.apply(sides, seen, q, k, v, *summaries)
    else:
        out = _forward(sides, seen, q, k, v, summaries, dropout_p)[0]
    return out.unflatten(0, (batch, heads))[:, :, :tokens]


def _summaries(
    k: Tensor,
    v: Tensor,
    pool_q: Tensor,
    pool_k: Tensor,
    valid: Tensor | None,
    *,
    sides: int,
    pooling: str,
    scale: float | None,
    fused: bool,
) -> list[Tensor]:
    """Keys and values in turn, (B, G, sides, D), of every level but the lowest, whose nodes are the tokens.

    sides: 1, of the left nodes; 2, of the right ones too.
    """
    sizes = [2**level for level in range(1, (k.shape[1] - 1).bit_length())]
    if pooling == "none":
        members = [None if valid is None else in_pairs(valid, size)[:, :, :sides] for size in sizes]
        keys, values = (
            [last(in_pairs(x, size)[:, :, :sides], keep) for size, keep in zip(sizes, members, strict=True)]
            for x in (k, v)
        )
    else:
        queries, keys = (
            [in_pairs(nodes, 1)[:, :, :sides, 0] for nodes in pyramid(x, valid, pooling, len(sizes))]
            for x in (pool_q, pool_k)
        )
        values = span_values(k, v, queries, sizes=sizes, valid=valid, scale=scale, fused=fused)
    return [x for level in zip(keys, values, strict=True) for x in level]


def pyramid(x: Tensor, valid: Tensor | None, pooling: str, levels: int) -> list[Tensor]:
    """x (B, P, D) pooled over the nodes of levels 1, 2, ...: (B, P / 2^level, D) each, 0 where nothing is.

    Level by level from pairs; a mean from the sums.
    """
    found = []
    empty = 0.0 if pooling == "mean" else torch.finfo(x.dtype).min
    if valid is not None:
        x = x.masked_fill(~valid.unsqueeze(-1), empty)
    for level in range(1, levels + 1):
        pairs = x.unflatten(1, (-1, 2))
        x = pairs.sum(2) if pooling == "mean" else pool(pairs, None, "max")
        if valid is None:
            found.append(x / 2**level if pooling == "mean" else x)
            continue
        kept = valid.unflatten(1, (-1, 2**level)).sum(-1).unsqueeze(-1)
        found.append(x / kept.clamp_min(1) if pooling == "mean" else x.masked_fill(kept == 0, 0.0))
    return found


def _seen(valid: Tensor, sides: int) -> Tensor:
    """Which scores count where tokens are missing: valid bool (B, P) -> (levels + 1, B, P)."""
    seen = [valid]
    for level in range((valid.shape[1] - 1).bit_length()):
        siblings = torch.zeros_like(valid)
        for side in range(sides):
            there = in_pairs(valid, 2**level)[:, :, side].any(-1)  # (B, G)
            in_pairs(siblings, 2**level)[:, :, 1 - side] = there.unsqueeze(-1)
        seen.append(siblings)
    return torch.stack(seen)


def _forward(
    sides: int,
    seen: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    summaries: Sequence[Tensor],
    dropout_p: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The outputs (B, P, D); the weights of itself and of each sibling, (levels + 1, B, P)."""
    keys, values = _siblings(k, summaries[::2], sides), _siblings(v, summaries[1::2], sides)
    own = torch.linalg.vecdot(q, k).to(torch.promote_types(q.dtype, torch.float32))
    scores = [own]
    for size, of_level in _by_size(keys):
        siblings = torch.full_like(own, HIDDEN)
        for side in range(sides):
            asking = in_pairs(q, size)[:, :, 1 - side]  # (B, G, size, D)
            in_pairs(siblings, size)[:, :, 1 - side] = products(asking, of_level[:, :, side])
        scores.append(siblings)
    joint = torch.stack(scores)  # (levels + 1, B, P)
    if seen is not None:
        joint = joint.masked_fill(~seen, HIDDEN)
    weights = joint.softmax(0)
    if seen is not None:
        weights = weights.masked_fill(~seen.any(0), 0.0)
    weights = F.dropout(weights, dropout_p).to(v.dtype)
    out = weights[0].unsqueeze(-1) * v
    for weight, (size, of_level) in zip(weights[1:], _by_size(values), strict=True):
        for side in range(sides):
            add_outer(
                in_pairs(out, size)[:, :, 1 - side],
                in_pairs(weight, size)[:, :, 1 - side],
                of_level[:, :, side],
            )
    return out, weights


class _Siblings(torch.autograd.Function):
    """`_forward` with a backward that writes all levels into one gradient each of q, k and v.

    With p the weights and g the gradient of the outputs o: ds = p (g v - g o).
    A gradient that is itself to be differentiated goes through plain operations instead.
    """

    @staticmethod
    def forward(
        ctx: Any, sides: int, seen: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *summaries: Tensor
    ) -> Tensor:
        out, weights = _forward(sides, seen, q, k, v, summaries)
        ctx.sides, ctx.seen = sides, seen
        ctx.save_for_backward(out, weights, q, k, v, *summaries)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        out, weights, q, k, v, *summaries = ctx.saved_tensors
        sides = ctx.sides
        if torch.is_grad_enabled():
            again = _forward(sides, ctx.seen, q, k, v, summaries)[0]
            inputs = (q, k, v, *summaries)
            return None, None, *torch.autograd.grad(again, inputs, gradient, create_graph=True)
        gradient = gradient.contiguous()
        common = torch.linalg.vecdot(gradient, out)
        own = (weights[0] * (torch.linalg.vecdot(gradient, v) - common)).unsqueeze(-1)
        grad_q, grad_k, grad_v = own * k, own * q, weights[0].unsqueeze(-1) * gradient
        of_summaries = [torch.zeros_like(x) for x in summaries]
        levels = zip(
            weights[1:],
            *(
                _siblings(x, rest, sides)
                for x, rest in (
                    (k, summaries[::2]),
                    (v, summaries[1::2]),
                    (grad_k, of_summaries[::2]),
                    (grad_v, of_summaries[1::2]),
                )
            ),
            strict=True,
        )
        for level, (weight, *of_level) in enumerate(levels):
            for side in range(sides):
                asking = [
                    in_pairs(x, 2**level)[:, :, 1 - side] for x in (weight, common, gradient, q, grad_q)
                ]
                p, o, g, queries, of_queries = asking  # (B, G, 2^level) and (B, G, 2^level, D)
                key, value, of_key, of_value = (x[:, :, side] for x in of_level)  # (B, G, D)
                scores = p * (products(g, value) - o)
                add_outer(of_queries, scores, key)
                of_key += mixture(scores, queries)
                of_value += mixture(p, g)
        return None, None, grad_q, grad_k, grad_v, *of_summaries


def _siblings(tokens: Tensor, summaries: Sequence[Tensor], sides: int) -> list[Tensor]:
    """What is seen at each level, (B, G, 1 or 2, D): tokens (B, P, D) themselves at the lowest."""
    return [in_pairs(tokens, 1)[:, :, :sides, 0], *summaries]


def _by_size(levels: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """The levels with the size of their nodes."""
    return ((2**level, x) for level, x in enumerate(levels))


def in_pairs(x: Tensor, size: int) -> Tensor:
    """(B, P, *) -> (B, G, 2, size, *): pairs of nodes of so many places."""
    return x.unflatten(1, (-1, 2, size))
