"""Combiner-Fixed: the own block token by token, every other block through one summary (eq. (10)).

B batch, H heads, n blocks of s tokens, m summaries, D channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_combiner.grid import Grid
from zoo_combiner.joint import Part, joint_attention, last, local_attention, pool


class Spans(NamedTuple):
    """One key and one value for each span; valid bool (B, 1, m): the span holds a token (`None`: all do)."""

    keys: Tensor
    values: Tensor
    valid: Tensor | None = None


def block_spans(grid: Grid) -> Spans:
    """The summaries of all blocks, keys and values (B, H, n, D); the local law is that of eq. (9)."""
    some = None if grid.valid is None else grid.valid.any(-1)
    if grid.pooling == "none":
        return Spans(last(grid.k, grid.valid), last(grid.v, grid.valid), some)
    query = pool(grid.pool_q, grid.valid, grid.pooling).unsqueeze(3)  # (B, H, n, 1, D)
    values = local_attention(query, grid.k, grid.v, valid=grid.valid).squeeze(3)
    return Spans(pool(grid.pool_k, grid.valid, grid.pooling), values, some)


def fixed_attention(
    grid: Grid, spans: Spans, *, first: int = 0, dropout_p: float = 0.0, fused: bool = True
) -> Tensor:
    """Queries of the grid over their own block and over the summaries of the others, (B, H, n, s, D).

    first: the grid's first block is number `first`; `spans` counts from 0. fused: one call of torch's fused
    attention, for which the summaries are repeated once per block.
    """
    n, s, m = grid.rows, grid.columns, spans.keys.shape[2]
    here = torch.arange(first, first + n, device=grid.q.device)[:, None]
    there = torch.arange(m, device=grid.q.device)
    others = there < here if grid.causal else there != here  # (n, m)
    if spans.valid is not None:
        others = others & spans.valid.transpose(1, 2)[:, None].mT  # (B, 1, n, m)
    own = torch.ones(s, s, dtype=torch.bool, device=grid.q.device)
    own = own.tril() if grid.causal else own
    if grid.valid is not None:
        own = own & grid.valid.unsqueeze(-2)  # (B, 1, n, s, s)
    if fused:
        return _fused(grid, spans, own, others, dropout_p)
    parts = [Part(grid.k, grid.v, "row", own)]
    if m:
        seen = others.repeat_interleave(s, -2)  # (n s, m)
        parts.append(Part(spans.keys, spans.values, "all", seen))
    return joint_attention(grid.q, parts, dropout_p=dropout_p)


def _fused(grid: Grid, spans: Spans, own: Tensor, others: Tensor, dropout_p: float) -> Tensor:
    batch, heads, n, s, _ = grid.q.shape
    m = spans.keys.shape[2]

    def joined(tokens: Tensor, summaries: Tensor) -> Tensor:
        repeated = summaries.unsqueeze(2).expand(-1, -1, n, -1, -1)  # (B, H, n, m, D)
        return torch.cat((tokens, repeated), 3).flatten(0, 1)

    lead = torch.broadcast_shapes(own.shape[:-3], others.shape[:-2])  # () or (B, 1)
    seen = torch.cat((own.expand(*lead, n, s, s), others.unsqueeze(-2).expand(*lead, n, s, m)), -1)
    sees: Tensor | None = None
    if lead:
        sees = seen.any(-1, keepdim=True)  # (B, 1, n, s, 1)
        seen = (seen | ~sees).expand(batch, heads, *seen.shape[2:]).flatten(0, 1)
    out = F.scaled_dot_product_attention(
        grid.q.flatten(0, 1),
        joined(grid.k, spans.keys),
        joined(grid.v, spans.values),
        # With four axes: else torch takes its plain form.
        attn_mask=seen if seen.dim() == 4 else seen.unsqueeze(0),  # (B H or 1, n, s, s + m)
        dropout_p=dropout_p,
        scale=1.0,
    ).unflatten(0, (batch, heads))
    return out if sees is None else out.masked_fill(~sees, 0.0)
