"""One softmax over several sets of keys at once, eq. (9): what a query sees directly, and its spans.

B batch, H heads, n rows (blocks) of s columns, m keys, D channels. Queries lie in a grid, (B, H, n, s, D).

Attention over one set of keys is known by its outputs o_p and the logarithm l_p of the sum of its
exponentials. Attention over all sets together follows, without any set's weights being kept:

    l = log sum_p exp(l_p)        o = sum_p exp(l_p - l) o_p

and so do its gradients: those of each set alone, with o and l in place of o_p and l_p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: The score of what is not seen: finite, so that no sum of exponentials is empty.
HIDDEN = -1e30


class Part(NamedTuple):
    """Keys that a query may see, and what they stand for: tokens, or summaries of spans.

    along: which queries share keys. "row": those of a row, keys (B, H, n, m, D), scores (B, H, n, s, m);
        "column": those of a column, keys (B, H, s, m, D), scores (B, H, s, n, m);
        "all": all of them, keys (B, H, 1, m, D), scores (B, H, 1, n s, m).
    seen: bool, broadcasts to the scores: which keys a query sees.
    asks: bool, broadcasts to (B, H, n, s): which queries see any of them; `None`: all do.
    """

    keys: Tensor
    values: Tensor
    along: Literal["row", "column", "all"]
    seen: Tensor
    asks: Tensor | None = None


def joint_attention(
    q: Tensor,
    parts: Sequence[Part],
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """Softmax attention of each query over all parts together; a span counts as one key.

    q: (B, H, n, s, D) -> (B, H, n, s, D), zeros where nothing is seen. fused: torch's attention
    kernel for each part where there is one (on a CPU), which keeps no weights; else plain operations.
    """
    parts = [part for part in parts if part.keys.shape[3]]
    layout = [(part.along, part.seen, part.asks) for part in parts]
    tensors = [t.to(q.dtype) for part in parts for t in (part.keys, part.values)]
    if fused and q.device.type == "cpu" and not dropout_p and not torch.compiler.is_compiling():
        out: Tensor = _Fused.apply(layout, scale, q, *tensors)
        return out
    return _plain(q, _parts(layout, tensors), scale, dropout_p)


def _plain(q: Tensor, parts: Sequence[Part], scale: float | None, dropout_p: float = 0.0) -> Tensor:
    grid = q.shape[:4]
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = [_scores(q, part) for part in parts]
    sums = [
        _to_grid(score.logsumexp(-1), part.along, grid) for part, score in zip(parts, scores, strict=True)
    ]
    total = _total(sums)
    mixed = []
    for part, score in zip(parts, scores, strict=True):
        weights = F.dropout((score - _from_grid(total, part.along).unsqueeze(-1)).exp(), dropout_p)
        mixed.append(_to_grid(weights.to(part.values.dtype) @ part.values, part.along, grid))
    return torch.stack(mixed).sum(0)


def _scores(q: Tensor, part: Part) -> Tensor:
    """Products of queries and keys in the part's layout, in float32 at least."""
    scores = _from_grid(q, part.along) @ part.keys.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scores = scores.masked_fill(~part.seen, HIDDEN)
    if part.asks is None:
        return scores
    asks = _from_grid(part.asks.expand(q.shape[:4]), part.along).unsqueeze(-1)
    return scores.masked_fill(~asks, HIDDEN)


#: All of a part but its keys and values.
Layout = tuple[Literal["row", "column", "all"], Tensor, Tensor | None]


class _Fused(torch.autograd.Function):
    """The parts one by one through torch's kernel. A gradient of the gradient takes plain operations.

    The kernel is called by its inner name, for `scaled_dot_product_attention` does not give the log-sums.
    """

    @staticmethod
    def forward(ctx: Any, layout: list[Layout], scale: float | None, q: Tensor, *tensors: Tensor) -> Tensor:
        grid = q.shape[:4]
        outs, sums = [], []
        for part in _parts(layout, tensors):
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *_batched(q, part), attn_mask=_bias(q, part), scale=scale
            )
            out, log_sum = (_to_grid(_from_batch(x, part.along, grid), part.along, grid) for x in found)
            outs.append(out)
            sums.append(log_sum if part.asks is None else log_sum.masked_fill(~part.asks, HIDDEN))
        total = _total(sums)
        shares = [(log_sum - total).exp_().unsqueeze(-1) for log_sum in sums]  # of each part in the softmax
        mixed = outs[0].mul_(shares[0])
        for out, share in zip(outs[1:], shares[1:], strict=True):
            mixed.addcmul_(out, share.to(out.dtype))
        ctx.layout, ctx.scale = layout, scale
        ctx.save_for_backward(q, mixed, total, *tensors)
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        q, out, total, *tensors = ctx.saved_tensors
        parts = _parts(ctx.layout, tensors)
        if torch.is_grad_enabled():
            again = _plain(q, parts, ctx.scale)
            return None, None, *torch.autograd.grad(again, (q, *tensors), gradient, create_graph=True)
        grid = q.shape[:4]
        gradient = gradient.contiguous()
        grad_q: Tensor | None = None
        gradients: list[Tensor] = []
        for part in parts:
            asked = total if part.asks is None else total.masked_fill(~part.asks, float("inf"))
            after = (_to_batch(_from_grid(x, part.along), part.along) for x in (gradient, out, asked))
            gradient_there, out_there, total_there = after
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                gradient_there,
                *_batched(q, part),
                out_there,
                total_there,
                0.0,
                False,
                attn_mask=_bias(q, part),
                scale=ctx.scale,
            )
            # `data`: tensors in their own right, not views, so that autograd may add to them in place.
            of_queries, of_keys, of_values = (_from_batch(grad, part.along, grid).data for grad in grads)
            of_queries = _to_grid(of_queries, part.along, grid).data
            grad_q = of_queries if grad_q is None else grad_q.add_(of_queries)
            gradients += [of_keys, of_values]
        return None, None, grad_q, *gradients


def _parts(layout: Sequence[Layout], tensors: Sequence[Tensor]) -> list[Part]:
    """Parts from their layout and their keys and values in turn."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return [Part(keys, values, *rest) for rest, (keys, values) in zip(layout, pairs, strict=True)]


def _total(sums: Sequence[Tensor]) -> Tensor:
    """The logarithm of the sum over all parts; infinite, so that all weights are 0, where nothing is seen."""
    total = torch.stack(list(sums)).logsumexp(0)
    return total.masked_fill(total < HIDDEN / 2, float("inf"))


# -- layouts ---------------------------------------------------------------------------------


def _from_grid(x: Tensor, along: str) -> Tensor:
    """(B, H, n, s, *) -> the layout of a part's scores, (B, H, groups, queries, *)."""
    if along == "column":
        return x.transpose(2, 3)
    return x.flatten(2, 3).unsqueeze(2) if along == "all" else x


def _to_grid(x: Tensor, along: str, grid: Sequence[int]) -> Tensor:
    """Back to (B, H, n, s, *)."""
    if along == "column":
        return x.transpose(2, 3)
    return x.squeeze(2).unflatten(2, tuple(grid[2:])) if along == "all" else x


def _batched(q: Tensor, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as the kernel takes them, four axes."""
    queries, keys, values = (
        _to_batch(x, part.along) for x in (_from_grid(q, part.along), part.keys, part.values)
    )
    return queries, keys, values


def _to_batch(x: Tensor, along: str) -> Tensor:
    """(B, H, groups, queries, *) -> (batch, heads, queries, *) so that outputs come in grid order."""
    return x.flatten(0, 2).unsqueeze(1) if along == "row" else x.flatten(0, 1)


def _from_batch(x: Tensor, along: str, grid: Sequence[int]) -> Tensor:
    """Back to (B, H, groups, queries, *)."""
    if along == "row":
        return x.squeeze(1).unflatten(0, tuple(grid[:3]))
    return x.unflatten(0, tuple(grid[:2]))


def _bias(q: Tensor, part: Part) -> Tensor:
    """What is added to the scores: `HIDDEN` where a query does not see a key."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    bias = torch.zeros(part.seen.shape, dtype=dtype, device=q.device).masked_fill_(~part.seen, HIDDEN)
    if bias.dim() < 5:  # the same for all examples and heads
        return bias.expand(1, 1, -1, -1)
    groups = q.shape[2] if part.along == "row" else bias.shape[2]
    return _to_batch(bias.expand(*q.shape[:2], groups, -1, -1), part.along)
