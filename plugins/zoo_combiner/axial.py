"""Combiner-Axial: the own row and column token by token, the rest through summaries of columns or of rows.

B batch, H heads, n rows of s columns, D channels; query (r, c) lies in row r and column c.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_combiner.grid import Grid
from zoo_combiner.joint import Part, joint_attention, local_attention, prefix_pool


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
    grid: Grid, *, plan: str, dropout_p: float = 0.0, first: int = 0, row_sides: Sides | None = None
) -> Tensor:
    """The queries of rows `first` and later, (B, H, n - first, s, D).

    plan: "axial_vertical", "axial_horizontal", or "axial_mixture", both in one softmax.
    row_sides: the summaries of the rows, where they are known already.
    """
    parts = _own_row_and_column(grid, first)
    if grid.pooling == "none":
        return joint_attention(grid.q[:, :, first:], parts, dropout_p=dropout_p)
    if plan != "axial_horizontal":
        parts += _other_columns(grid, first)
    if plan != "axial_vertical":
        parts += _other_rows(grid, first, sides_of(grid.asked()) if row_sides is None else row_sides)
    return joint_attention(grid.q[:, :, first:], parts, dropout_p=dropout_p)


def _own_row_and_column(grid: Grid, first: int) -> list[Part]:
    n, s = grid.rows, grid.columns
    own = torch.ones(s, s, dtype=torch.bool, device=grid.q.device)
    own = own.tril() if grid.causal else own
    above = _other(n, first, causal=grid.causal, device=grid.q.device)  # the query itself is in its row
    if grid.valid is not None:
        own = own & grid.valid[:, :, first:].unsqueeze(-2)  # (B, 1, n - first, s, s)
        above = above & grid.valid.mT.unsqueeze(-2)  # (B, 1, s, n - first, n)
    return [
        Part(grid.k[:, :, first:], grid.v[:, :, first:], "row", own),
        Part(grid.k.transpose(2, 3), grid.v.transpose(2, 3), "column", above),
    ]


def _other_columns(grid: Grid, first: int) -> list[Part]:
    """Vertical: of each other column the rows above, and unless causal those below."""
    columns = grid.each(lambda x: x.transpose(2, 3))
    different = ~torch.eye(grid.columns, dtype=torch.bool, device=grid.q.device)

    def part(keys: Tensor, values: Tensor, valid: Tensor) -> Part:
        seen = valid.transpose(2, 3).unsqueeze(-2) & different  # (B or 1, 1, n - first, s, s)
        return Part(keys.transpose(2, 3), values.transpose(2, 3), "row", seen)

    parts = [part(*_before(columns, first))]
    if not grid.causal:
        parts.append(part(*_after(columns)))
    return parts


def _other_rows(grid: Grid, first: int, sides: Sides) -> list[Part]:
    """Horizontal: of each other row (earlier ones, if causal) the columns to the left, and to the right."""
    known = sides.before_keys.shape[2]  # rows that have summaries
    other = _other(grid.rows, first, causal=grid.causal, device=grid.q.device)[:, :known]

    def part(keys: Tensor, values: Tensor, valid: Tensor) -> Part:
        seen = valid.transpose(2, 3).unsqueeze(-2) & other  # (B or 1, 1, s, n - first, known)
        return Part(keys.transpose(2, 3), values.transpose(2, 3), "column", seen)

    return [part(*sides[:3]), part(*sides[3:])]


def sides_of(rows: Grid) -> Sides:
    """What lies left and right of each place in its row."""
    return Sides(*_before(rows, 0), *_after(rows))


def _before(lines: Grid, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Summaries of what comes strictly before each place t >= first of each line: keys, values, valid."""
    start = max(first - 1, 0)
    keys, values, valid = _prefixes(lines, start)
    if first:
        return keys[:, :, :, :-1], values[:, :, :, :-1], valid[:, :, :, :-1]
    shift = (0, 0, 1, -1)  # before the first place lies nothing
    return F.pad(keys, shift), F.pad(values, shift), F.pad(valid, (1, -1), value=False)


def _after(lines: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Summaries of what comes strictly after each place."""
    turned = lines.each(lambda x: x.flip(3))
    keys, values, some = _before(turned, 0)
    return keys.flip(3), values.flip(3), some.flip(3)


def _prefixes(lines: Grid, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Summaries of every prefix that ends at place t >= start, t included."""
    queries = prefix_pool(lines.pool_q, lines.valid, lines.pooling)[:, :, :, start:]
    keys = prefix_pool(lines.pool_k, lines.valid, lines.pooling)[:, :, :, start:]
    values = local_attention(queries, lines.k, lines.v, valid=lines.valid, causal=True, first=start)
    if lines.valid is None:
        some = torch.ones(1, 1, *keys.shape[2:4], dtype=torch.bool, device=keys.device)
    else:
        some = (lines.valid.cumsum(3) > 0)[:, :, :, start:]
    return keys, values, some


def _other(n: int, first: int, *, causal: bool, device: torch.device) -> Tensor:
    """bool (n - first, n): the earlier rows, or all but the own."""
    here, there = torch.arange(first, n, device=device)[:, None], torch.arange(n, device=device)
    return there < here if causal else there != here
