"""Combiner-Axial: the own row and column token by token, the rest through summaries of columns or of rows.

B batch, H heads, n rows of s columns, D channels; query (r, c) lies in row r and column c.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo_combiner.grid import Grid, other_rows, own_row
from zoo_combiner.joint import Part, joint_attention
from zoo_combiner.span import local_attention, pool_before


class Sides(NamedTuple):
    """Summaries of what lies strictly before and after each place of a line, (B, H, G, T, D).

    valid: bool (B or 1, 1, G, T): there is something.
    """

    before_keys: Tensor
    before_values: Tensor
    before: Tensor
    after_keys: Tensor
    after_values: Tensor
    after: Tensor


def axial_attention(
    grid: Grid,
    *,
    plan: str,
    dropout_p: float = 0.0,
    first: int = 0,
    row_sides: Sides | None = None,
    fused: bool = True,
) -> Tensor:
    """The queries of rows `first` and later, (B, H, n - first, s, D).

    plan: "axial_vertical", "axial_horizontal", or "axial_mixture", both in one softmax.
    row_sides: the summaries of the rows, where they are known already.
    """
    asking = grid.part(first, grid.rows)
    other = other_rows(asking, grid.rows, first=first)  # (n - first, n)
    above = other if grid.valid is None else other & grid.valid.mT.unsqueeze(-2)  # (B, 1, s, n - first, n)
    parts = [
        Part(asking.k, asking.v, "row", own_row(asking)),
        Part(grid.k.transpose(2, 3), grid.v.transpose(2, 3), "column", above),
    ]
    if grid.pooling != "none" and plan != "axial_horizontal":
        parts += _other_columns(grid, first)
    if grid.pooling != "none" and plan != "axial_vertical":
        sides = sides_of(grid.asked()) if row_sides is None else row_sides
        parts += _other_rows(other, sides, masked=grid.valid is not None)
    return joint_attention(asking.q, parts, scale=grid.scale, dropout_p=dropout_p, fused=fused)


def _other_columns(grid: Grid, first: int) -> list[Part]:
    """Vertical: of each other column the rows above, and unless causal those below."""
    columns = grid.each(lambda x: x.transpose(2, 3))
    different = ~torch.eye(grid.columns, dtype=torch.bool, device=grid.q.device)

    def part(keys: Tensor, values: Tensor, valid: Tensor) -> Part:
        valid = valid.transpose(2, 3)  # (B or 1, 1, n - first, s)
        seen = different if grid.valid is None else different & valid.unsqueeze(-2)
        asks = valid.any(3, keepdim=True)
        return Part(keys.transpose(2, 3), values.transpose(2, 3), "row", seen, asks)

    parts = [part(*_before(columns, first))]
    if not grid.causal:
        parts.append(part(*_after(columns)))
    return parts


def _other_rows(other: Tensor, sides: Sides, *, masked: bool) -> list[Part]:
    """Horizontal: of each other row (earlier ones, if causal) the columns to the left, and to the right."""
    other = other[:, : sides.before_keys.shape[2]]  # (n - first, rows with summaries)

    def part(keys: Tensor, values: Tensor, valid: Tensor) -> Part:
        seen = (
            other & valid.mT.unsqueeze(-2) if masked else other
        )  # (B, 1, s, n - first, rows with summaries)
        asks = valid.any(2, keepdim=True)  # (B or 1, 1, 1, s)
        return Part(keys.transpose(2, 3), values.transpose(2, 3), "column", seen, asks)

    return [part(*sides[:3]), part(*sides[3:])]


def whole_sides(
    before_keys: Tensor, before_values: Tensor, after_keys: Tensor, after_values: Tensor
) -> Sides:
    """`Sides` of lines of which no place is missing."""
    place = torch.arange(before_keys.shape[3], device=before_keys.device)
    before = (place > 0).expand(1, 1, before_keys.shape[2], -1)
    return Sides(before_keys, before_values, before, after_keys, after_values, before.flip(3))


def sides_of(rows: Grid) -> Sides:
    """What lies left and right of each place in its row."""
    return Sides(*_before(rows, 0), *_after(rows))


def _before(lines: Grid, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Summaries of what comes strictly before each place t >= first of each line: keys, values, valid."""
    length = lines.columns
    queries, keys = (
        pool_before(x, lines.valid, lines.pooling)[:, :, :, first:] for x in (lines.pool_q, lines.pool_k)
    )
    earlier = torch.ones(length, length, dtype=torch.bool, device=keys.device).tril(-1)[first:]
    values = local_attention(queries, lines.k, lines.v, valid=lines.valid, seen=earlier, scale=lines.scale)
    valid = torch.ones(1, 1, 1, length, dtype=torch.bool, device=keys.device)
    valid = valid.expand(-1, -1, lines.rows, -1) if lines.valid is None else lines.valid
    some = valid.cumsum(3) > valid.long()
    return keys, values, some[:, :, :, first:]


def _after(lines: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Summaries of what comes strictly after each place."""
    turned = lines.each(lambda x: x.flip(3))
    keys, values, some = _before(turned, 0)
    return keys.flip(3), values.flip(3), some.flip(3)
