"""Combiner-Axial in row-major order: the own row token by token, every other row through a summary that
depends on the column of the query.

B batch, H heads, n rows of s columns, m rows with summaries, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_combiner.grid import Grid
from zoo_combiner.joint import Part, joint_attention, local_attention


def row_values(grid: Grid) -> Tensor:
    """What each token says of its whole row, (B, H, n, s, D): the value of its summary.

    It looks at later tokens of the row, and is causal all the same: only the rows below ask for it.
    """
    return local_attention(grid.q, grid.k, grid.v, valid=grid.valid)


def row_keys_wsum(grid: Grid) -> Tensor:
    """The keys of a row, weighted like its values: the summary's key for row_summary 'wsum'."""
    return local_attention(grid.q, grid.k, grid.k, valid=grid.valid)


def rowmajor_attention(
    grid: Grid,
    keys: Tensor,
    values: Tensor,
    *,
    valid: Tensor | None = None,
    first: int = 0,
    dropout_p: float = 0.0,
) -> Tensor:
    """Queries of the grid over their own row and over the summaries in their column, (B, H, n, s, D).

    keys, values: (B, H, m, s, D), counted from row 0, while the grid starts with row `first`.
    valid: bool (B, 1, m): the row holds a token; or (B, 1, m, s): its token in that column is there.
    """
    n, s, m = grid.rows, grid.columns, keys.shape[2]
    own = torch.ones(s, s, dtype=torch.bool, device=grid.q.device)
    own = own.tril() if grid.causal else own
    if grid.valid is not None:
        own = own & grid.valid.unsqueeze(-2)  # (B, 1, n, s, s)
    parts = [Part(grid.k, grid.v, "row", own)]
    if m:
        here = torch.arange(first, first + n, device=grid.q.device)[:, None]
        there = torch.arange(m, device=grid.q.device)
        other = there < here if grid.causal else there != here  # (n, m)
        if valid is not None:
            there = valid[:, :, None, None] if valid.dim() == 3 else valid.mT.unsqueeze(-2)
            other = other & there  # (B, 1, 1 or s, n, m)
        parts.append(Part(keys.transpose(2, 3), values.transpose(2, 3), "column", other))
    return joint_attention(grid.q, parts, dropout_p=dropout_p)
