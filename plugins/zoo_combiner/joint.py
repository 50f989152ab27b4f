"""One softmax over several sets of keys at once, and the pooling that makes one key of many.

B batch, H heads, n rows (blocks) of s columns, m keys, D channels. Queries lie in a grid, (B, H, n, s, D).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

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
    grid = q.shape[2:4]
    parts = [part for part in parts if part.keys.shape[-2]]
    scores = [_scores(q, part) for part in parts]
    with torch.no_grad():  # the maximum only stabilises
        top = torch.cat(
            [_to_grid(s.amax(-1, keepdim=True), p.along, grid) for s, p in zip(scores, parts, strict=True)],
            -1,
        )
        top = top.amax(-1, keepdim=True)  # (B, H, n, s, 1)
        top.masked_fill_(top == NEG_INF, 0.0)
    total: Tensor | None = None
    mixed: Tensor | None = None
    for part, score in zip(parts, scores, strict=True):
        weights = score.sub_(_from_grid(top, part.along)).exp_()
        share = _to_grid(weights.sum(-1, keepdim=True), part.along, grid)
        if dropout_p:
            weights = F.dropout(weights, dropout_p)
        said = _to_grid(weights.to(part.values.dtype) @ part.values, part.along, grid)
        total = share if total is None else total + share
        mixed = said if mixed is None else mixed + said
    assert total is not None and mixed is not None
    return (mixed / total.masked_fill(total == 0, 1.0)).to(parts[0].values.dtype)


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
        return x.cummax(-2).values
    keep = valid.unsqueeze(-1)
    return x.masked_fill(~keep, NEG_INF).cummax(-2).values.masked_fill(keep.cumsum(-2) == 0, 0.0)


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
