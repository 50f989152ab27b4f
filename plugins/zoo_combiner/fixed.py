"""Combiner-Fixed: the own block token by token, every other block through one summary (eq. (10)).

B batch, H heads, n blocks of s tokens, m summaries, D channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_combiner.grid import Grid, other_rows, own_row
from zoo_combiner.joint import Part, joint_attention
from zoo_combiner.span import last, pool, span_values


class Spans(NamedTuple):
    """One key and one value for each span; valid bool (B, 1, m): the span holds a token (`None`: all do)."""

    keys: Tensor
    values: Tensor
    valid: Tensor | None = None


def block_spans(grid: Grid) -> Spans:
    """The summaries of all blocks, keys and values (B, H, n, D); the local law is that of eq. (9)."""
    some = None if grid.valid is None else grid.valid.any(-1)
    if grid.pooling == "none" or not grid.rows:
        return Spans(last(grid.k, grid.valid), last(grid.v, grid.valid), some)
    query, key = (pool(x, grid.valid, grid.pooling) for x in (grid.pool_q, grid.pool_k))  # (B, H, n, D)
    k, v = (x.flatten(0, 1).flatten(1, 2) for x in (grid.k, grid.v))  # (B H, n s, D)
    valid = None if grid.valid is None else grid.valid.expand(*query.shape[:2], -1, -1)
    (values,) = span_values(
        k,
        v,
        [query.flatten(0, 1).unsqueeze(2)],
        sizes=[grid.columns],
        valid=None if valid is None else valid.flatten(0, 1).flatten(1, 2),
        scale=grid.scale,
    )
    return Spans(key, values.squeeze(2).unflatten(0, query.shape[:2]), some)


def fixed_attention(
    grid: Grid, spans: Spans, *, first: int = 0, dropout_p: float = 0.0, fused: bool = True
) -> Tensor:
    """Queries of the grid over their own block and over the summaries of the others, (B, H, n, s, D).

    first: the grid's first block is number `first`; `spans` counts from 0.
    """
    own, others = _seen(grid, spans, first)
    each = others.repeat_interleave(grid.columns, -2).unsqueeze(-3)  # (1, n s, m) or (B, 1, 1, n s, m)
    parts = [
        Part(grid.k, grid.v, "row", own),
        Part(spans.keys.unsqueeze(2), spans.values.unsqueeze(2), "all", each),
    ]
    return joint_attention(grid.q, parts, scale=grid.scale, dropout_p=dropout_p, fused=fused)


def fixed_attention_in_one_call(grid: Grid, spans: Spans, *, dropout_p: float = 0.0) -> Tensor:
    """The same as one call of torch's attention, for which the summaries are repeated once per block."""
    batch, heads, n, s, _ = grid.q.shape
    m = spans.keys.shape[2]

    def joined(tokens: Tensor, summaries: Tensor) -> Tensor:
        repeated = summaries.unsqueeze(2).expand(-1, -1, n, -1, -1)  # (B, H, n, m, D)
        return torch.cat((tokens, repeated), 3).flatten(0, 1)

    own, others = _seen(grid, spans, 0)
    lead = (1, 1) if grid.valid is None else (batch, heads)
    seen = torch.cat((own.expand(*lead, n, s, s), others.unsqueeze(-2).expand(*lead, n, s, m)), -1)
    sees = seen.any(-1, keepdim=True)
    out = F.scaled_dot_product_attention(
        grid.q.flatten(0, 1),
        joined(grid.k, spans.keys),
        joined(grid.v, spans.values),
        attn_mask=(seen | ~sees).flatten(
            0, 1
        ),  # (B H or 1, n, s, s + m); a softmax over nothing is undefined
        dropout_p=dropout_p,
        scale=grid.scale,
    ).unflatten(0, (batch, heads))
    return out if grid.valid is None else out.masked_fill(~sees, 0.0)


def _seen(grid: Grid, spans: Spans, first: int) -> tuple[Tensor, Tensor]:
    """What is seen of the own block, (s, s) or (B, 1, n, s, s); which spans, (n, m) or (B, 1, n, m)."""
    others = other_rows(grid, spans.keys.shape[2], first=first)
    if spans.valid is not None:
        others = others & spans.valid.unsqueeze(-2)
    return own_row(grid), others
