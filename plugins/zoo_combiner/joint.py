"""One softmax over several sets of keys at once, and the pooling that makes one key of many.

B batch, H heads, n rows (blocks) of s columns, m keys, D channels. Queries lie in a grid, (B, H, n, s, D).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEG_INF = float("-inf")


class Part(NamedTuple):
    """Keys that a query may see, and what they stand for; direct tokens or summaries of spans.

    along: which queries share keys. "row": those of a row, keys (B, H, n, m, D), scores (B, H, n, s, m);
        "column": those of a column, keys (B, H, s, m, D), scores (B, H, s, n, m);
        "all": all of them, keys (B, H, m, D), scores (B, H, n s, m).
    seen: bool, broadcasts to the scores; `None`: all are seen.
    """

    keys: Tensor
    values: Tensor
    along: Literal["row", "column", "all"]
    seen: Tensor | None


def joint_attention(q: Tensor, parts: Sequence[Part], *, dropout_p: float = 0.0) -> Tensor:
    """Softmax attention of each query over all parts together, eq. (9): a span counts as one key.

    q: (B, H, n, s, D), scaled; values of width E -> (B, H, n, s, E), zeros where nothing is seen.
    The weights of a part stay in its own layout, and no more than them is kept for the gradient.
    """
    parts = [
        part._replace(keys=part.keys.to(q.dtype), values=part.values.to(q.dtype))
        for part in parts
        if part.keys.shape[-2]
    ]
    if dropout_p or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return _forward(q, parts, dropout_p)[0]
    layout = [(part.along, part.seen) for part in parts]
    out: Tensor = _Joint.apply(layout, q, *(t for part in parts for t in (part.keys, part.values)))
    return out


def _forward(q: Tensor, parts: Sequence[Part], dropout_p: float = 0.0) -> tuple[Tensor, list[Tensor], Tensor]:
    """The outputs, the weights of each part before they are divided by their sum, and that sum."""
    grid = q.shape[2:4]
    scores = [_scores(q, part) for part in parts]
    with torch.no_grad():  # the maximum only stabilises
        tops = [_to_grid(s.amax(-1, keepdim=True), p.along, grid) for s, p in zip(scores, parts, strict=True)]
        top = torch.cat(tops, -1).amax(-1, keepdim=True)  # (B, H, n, s, 1)
        top.masked_fill_(top == NEG_INF, 0.0)
    kept: list[Tensor] = []
    total: Any = 0.0
    mixed: Any = 0.0
    for part, score in zip(parts, scores, strict=True):
        weights = score.sub_(_from_grid(top, part.along)).exp_()
        total = total + _to_grid(weights.sum(-1, keepdim=True), part.along, grid)
        weights = F.dropout(weights, dropout_p) if dropout_p else weights
        kept.append(weights.to(part.values.dtype))
        mixed = mixed + _to_grid(kept[-1] @ part.values, part.along, grid)
    total = total.masked_fill(total == 0, 1.0)
    return (mixed / total).to(parts[0].values.dtype), kept, total


class _Joint(torch.autograd.Function):
    """`_forward` with a backward in a few passes over the weights, where autograd takes many.

    With p the weights, g the gradient of the outputs o: dv = p^T g, ds = p (g v^T - g o).
    A gradient that is itself to be differentiated goes through the plain operations instead.
    """

    @staticmethod
    def forward(ctx: Any, layout: list[tuple[Any, Tensor | None]], q: Tensor, *tensors: Tensor) -> Tensor:
        out, weights, total = _forward(q, _parts(layout, tensors))
        ctx.layout, ctx.count = layout, len(layout)
        ctx.save_for_backward(q, out, total, *weights, *tensors)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        q, out, total, *rest = ctx.saved_tensors
        weights, tensors = rest[: ctx.count], rest[ctx.count :]
        if torch.is_grad_enabled():
            again = _forward(q, _parts(ctx.layout, tensors))[0]
            return None, *torch.autograd.grad(again, (q, *tensors), gradient, create_graph=True)
        grid = q.shape[2:4]
        gradient = (gradient / total).to(q.dtype)  # the weights are not divided by their sum
        common = (gradient * out).sum(-1, keepdim=True)
        grad_q: Any = 0.0
        gradients: list[Tensor] = []
        for part, p in zip(_parts(ctx.layout, tensors), weights, strict=True):
            said = _from_grid(gradient, part.along)
            scores = (said @ part.values.mT).sub_(_from_grid(common, part.along)).mul_(p)
            grad_q = grad_q + _to_grid(scores @ part.keys, part.along, grid)
            gradients += [scores.mT @ _from_grid(q, part.along), p.mT @ said]
        return None, grad_q, *gradients


def _parts(layout: list[tuple[Any, Tensor | None]], tensors: Sequence[Tensor]) -> list[Part]:
    """Parts from their layout and their keys and values in turn."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return [
        Part(keys, values, along, seen) for (along, seen), (keys, values) in zip(layout, pairs, strict=True)
    ]


def _scores(q: Tensor, part: Part) -> Tensor:
    """Products of queries and keys in the part's layout, -inf where unseen; float32 at least."""
    scores = _from_grid(q, part.along) @ part.keys.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return scores if part.seen is None else scores.masked_fill_(~part.seen, NEG_INF)


def _from_grid(x: Tensor, along: str) -> Tensor:
    """(B, H, n, s, *) -> the layout of a part's scores."""
    return x.transpose(2, 3) if along == "column" else x.flatten(2, 3) if along == "all" else x


def _to_grid(x: Tensor, along: str, grid: torch.Size) -> Tensor:
    """Back to (B, H, n, s, *)."""
    return x.transpose(2, 3) if along == "column" else x.unflatten(2, grid) if along == "all" else x


# -- pooling ---------------------------------------------------------------------------------


def pool(x: Tensor, valid: Tensor | None, pooling: str) -> Tensor:
    """Maximum or mean of tokens, 0 of none: x (..., s, D), valid bool (..., s) -> (..., D)."""
    if valid is None:
        return x.amax(-2) if pooling == "max" else x.mean(-2)
    keep = valid.unsqueeze(-1)
    if pooling == "mean":
        return x.masked_fill(~keep, 0.0).sum(-2) / keep.sum(-2).clamp_min(1)
    return x.masked_fill(~keep, NEG_INF).amax(-2).masked_fill(~keep.any(-2), 0.0)


def last(x: Tensor, valid: Tensor | None) -> Tensor:
    """The last token that is there: x (..., s, D), valid bool (..., s) -> (..., D)."""
    if valid is None:
        return x[..., -1, :]
    place = torch.arange(x.shape[-2], device=x.device).where(valid, 0).amax(-1)[..., None, None]
    return x.take_along_dim(place, -2).squeeze(-2)


def prefix_pool(x: Tensor, valid: Tensor | None, pooling: str) -> Tensor:
    """`pool` over every prefix: x (..., s, D), valid bool (..., s) -> (..., s, D), each position included."""
    if pooling == "mean":
        if valid is None:
            return x.cumsum(-2) / torch.arange(1, x.shape[-2] + 1, device=x.device, dtype=x.dtype).unsqueeze(
                -1
            )
        keep = valid.unsqueeze(-1)
        return x.masked_fill(~keep, 0.0).cumsum(-2) / keep.cumsum(-2).clamp_min(1)
    if valid is None:
        return running_max(x)
    keep = valid.unsqueeze(-1)
    return running_max(x.masked_fill(~keep, NEG_INF)).masked_fill(keep.cumsum(-2) == 0, 0.0)


def running_max(x: Tensor) -> Tensor:
    """The maximum of every prefix: (..., s, D) -> (..., s, D); on a CPU faster than `cummax`."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x.cummax(-2).values
    out: Tensor = _RunningMax.apply(x) if torch.is_grad_enabled() else _running_max(x)
    return out


def _running_max(x: Tensor) -> Tensor:
    out = x.clone(memory_format=torch.contiguous_format)
    for t in range(1, x.shape[-2]):
        torch.maximum(out[..., t - 1, :], out[..., t, :], out=out[..., t, :])
    return out


class _RunningMax(torch.autograd.Function):
    """The gradient of a maximum goes to where it was attained, halved where the one before is as large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = _running_max(x)
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        before = out[..., :-1, :]
        share = (x[..., 1:, :] > before).to(x.dtype) + 0.5 * (x[..., 1:, :] == before)
        grad = gradient.clone(memory_format=torch.contiguous_format)
        for t in range(x.shape[-2] - 1, 0, -1):
            carried = grad[..., t, :]
            mine = carried * share[..., t - 1, :]
            grad[..., t - 1, :] += carried - mine
            grad[..., t, :] = mine
        return grad


# -- attention within spans ------------------------------------------------------------------


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, *, valid: Tensor | None, causal: bool = False, first: int = 0
) -> Tensor:
    """Softmax attention within each of many small sets, the local laws p(j | span) of eq. (4).

    q: (B, H, G, T - first, D), scaled; k, v: (B, H, G, T, D); valid: bool (B, 1, G, T). causal: query t sees
    the keys up to first + t. Returns (B, H, G, T - first, D), something finite where nothing is seen.
    """
    batch, heads, groups, length = q.shape[:4]
    seen: Tensor | None = None
    if valid is not None or (causal and first):
        seen = torch.ones(length, k.shape[3], dtype=torch.bool, device=q.device)
        seen = seen.tril(first) if causal else seen
        if valid is not None:
            seen = seen & valid.unsqueeze(-2)  # (B, 1, G, T - first, T)
            seen = seen | ~seen.any(-1, keepdim=True)  # a softmax over nothing is undefined
            seen = seen.expand(batch, heads, groups, -1, -1).flatten(1, 2)
    out = F.scaled_dot_product_attention(
        q.flatten(1, 2),
        k.flatten(1, 2),
        v.flatten(1, 2),
        attn_mask=seen,
        is_causal=causal and seen is None,
        scale=1.0,
    )
    return out.unflatten(1, (heads, groups))
