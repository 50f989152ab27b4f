"""What makes one key and one value of many: pooling, and the local laws p(j | span) of eq. (4) and (9).

B batch, H heads, G sets of T tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo_combiner.joint import HIDDEN


def pool(x: Tensor, valid: Tensor | None, pooling: str) -> Tensor:
    """Maximum or mean of tokens, 0 of none: x (..., T, D), valid bool (..., T) -> (..., D)."""
    if valid is None:
        return maximum(x) if pooling == "max" else x.mean(-2)
    keep = valid.unsqueeze(-1)
    if pooling == "mean":
        return x.masked_fill(~keep, 0.0).sum(-2) / keep.sum(-2).clamp_min(1)
    return maximum(x.masked_fill(~keep, torch.finfo(x.dtype).min)).masked_fill(~keep.any(-2), 0.0)


def maximum(x: Tensor) -> Tensor:
    """(..., T, D) -> (..., D), with a gradient in fewer passes than that of `amax`."""
    if torch.compiler.is_compiling():
        return x.amax(-2)
    out: Tensor = _Maximum.apply(x)
    return out


class _Maximum(torch.autograd.Function):
    """As `amax`: those that are equally large share the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.amax(-2)
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        with torch.no_grad():
            largest = torch.eq(x, out.unsqueeze(-2), out=torch.empty_like(x))
            share = largest.sum(-2).reciprocal_()
        gradient = (gradient * share).unsqueeze(-2)
        return largest * gradient if torch.is_grad_enabled() else largest.mul_(gradient)


def last(x: Tensor, valid: Tensor | None) -> Tensor:
    """The last token that is there: x (..., T, D), valid bool (..., T) -> (..., D)."""
    if valid is None:
        return x[..., -1, :]
    place = torch.arange(x.shape[-2], device=x.device).where(valid, 0).amax(-1)[..., None, None]
    return x.take_along_dim(place, -2).squeeze(-2)


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    valid: Tensor | None,
    seen: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention within each of many sets.

    q: (B, H, G, M, D); k, v: (B, H, G, T, D); valid: bool (B, 1, G, T); seen: bool (M, T).
    Returns (B, H, G, M, D), something finite where nothing is seen.
    """
    if valid is not None:
        there = valid.unsqueeze(-2)  # (B, 1, G, 1, T)
        seen = there if seen is None else seen & there
    if seen is not None:
        seen = seen | ~seen.any(-1, keepdim=True)  # a softmax over nothing is undefined
        seen = seen.expand(*q.shape[:3], -1, -1).flatten(0, 1) if seen.dim() > 2 else seen[None, None]
    out = F.scaled_dot_product_attention(
        q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=seen, scale=scale
    )
    return out.unflatten(0, q.shape[:2])


# -- one query for each span -------------------------------------------------------------------


def span_values(
    k: Tensor,
    v: Tensor,
    queries: Sequence[Tensor],
    *,
    sizes: Sequence[int],
    valid: Tensor | None,
    scale: float | None = None,
    fused: bool = True,
) -> list[Tensor]:
    """The values V(span) of eq. (4) by the law of eq. (9), for spans of several sizes over the same tokens.

    k, v: (B, P, D), B batch and heads together; valid: bool (B, P). queries: for each size T the pooled
    ones, (B, G, S, D): of G groups of P / G tokens, the first S spans -> values (B, G, S, D),
    something finite for a span that holds nothing.
    """
    scale = k.shape[-1] ** -0.5 if scale is None else scale
    queries = [query * scale for query in queries]
    if fused and not torch.compiler.is_compiling():
        return list(_SpanValues.apply(sizes, valid, k, v, *queries))
    pairs = zip(queries, sizes, strict=True)
    return [_law_and_values(query, k, v, valid, size)[1] for query, size in pairs]


def _law_and_values(
    query: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, size: int
) -> tuple[Tensor, Tensor]:
    scores = products(_members(k, query, size), query)  # (B, G, S, T)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if valid is not None:
        scores = scores.masked_fill(~_members(valid, query, size), HIDDEN)
    law = scores.softmax(-1).to(v.dtype)
    return law, mixture(law, _members(v, query, size))


def _members(x: Tensor, query: Tensor, size: int) -> Tensor:
    """The tokens of the spans that queries (B, G, S, D) belong to: (B, P, *) -> (B, G, S, T, *)."""
    groups, spans = query.shape[1:3]
    return x.unflatten(1, (groups, -1, size))[:, :, :spans]


class _SpanValues(torch.autograd.Function):
    """One gradient of k and of v for all sizes. With g the gradient of V: dv = p g, ds = p (g v - g V)."""

    @staticmethod
    def forward(
        ctx: Any, sizes: Sequence[int], valid: Tensor | None, k: Tensor, v: Tensor, *queries: Tensor
    ) -> tuple[Tensor, ...]:
        pairs = zip(queries, sizes, strict=True)
        found = [_law_and_values(query, k, v, valid, size) for query, size in pairs]
        laws, values = [law for law, _ in found], [value for _, value in found]
        ctx.sizes, ctx.valid, ctx.count = sizes, valid, len(queries)
        ctx.save_for_backward(k, v, *queries, *laws, *values)
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        k, v, *rest = ctx.saved_tensors
        queries, laws, values = (rest[i * ctx.count : (i + 1) * ctx.count] for i in range(3))
        if torch.is_grad_enabled():
            again = span_values(k, v, queries, sizes=ctx.sizes, valid=ctx.valid, scale=1.0, fused=False)
            grads = torch.autograd.grad(again, (k, v, *queries), gradients, create_graph=True)
            return None, None, *grads
        grad_k, grad_v, of_queries = torch.zeros_like(k), torch.zeros_like(v), []
        for g, query, law, value, size in zip(gradients, queries, laws, values, ctx.sizes, strict=True):
            keys, said, of_keys, of_said = (_members(x, query, size) for x in (k, v, grad_k, grad_v))
            scores = law * (products(said, g) - torch.linalg.vecdot(g, value).unsqueeze(-1))
            add_outer(of_keys, scores, query)
            add_outer(of_said, law, g)
            of_queries.append(mixture(scores, keys))
        return None, None, grad_k, grad_v, *of_queries


def products(x: Tensor, y: Tensor) -> Tensor:
    """Of each of T vectors with one: x (..., T, D), y (..., D) -> (..., T)."""
    return (y.unsqueeze(-2) @ x.mT).squeeze(-2)


def mixture(weights: Tensor, x: Tensor) -> Tensor:
    """The weighted sum of T vectors: weights (..., T), x (..., T, D) -> (..., D)."""
    return (weights.unsqueeze(-2) @ x).squeeze(-2)


def add_outer(x: Tensor, weights: Tensor, y: Tensor) -> None:
    """Adds one vector to each of T, with weights: x (..., T, D), weights (..., T), y (..., D)."""
    x.addcmul_(weights.unsqueeze(-1), y.unsqueeze(-2))


# -- all prefixes at once ----------------------------------------------------------------------


def pool_before(x: Tensor, valid: Tensor | None, pooling: str) -> Tensor:
    """`pool` over what comes before each place: x (..., T, D), valid bool (..., T) -> (..., T, D)."""
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
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        grad = torch.zeros_like(x)
        if x.shape[-2] < 2:
            return grad
        carried = gradient[..., -1, :].clone()
        above, tied = torch.empty_like(carried), torch.empty_like(carried)
        for t in range(x.shape[-2] - 2, 0, -1):
            torch.gt(x[..., t, :], out[..., t, :], out=above)
            torch.eq(x[..., t, :], out[..., t, :], out=tied)
            share = above.add_(tied, alpha=0.5)
            torch.mul(carried, share, out=grad[..., t, :])
            carried.sub_(grad[..., t, :]).add_(gradient[..., t, :])
        grad[..., 0, :] = carried
        return grad
