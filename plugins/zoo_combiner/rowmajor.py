"""Combiner-Axial in row-major order: the own row token by token, every other row through a summary that
depends on the column of the query.

B batch, H heads, n rows of s columns, m rows with summaries, D channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo_combiner.grid import Grid, in_rows, other_rows, own_row
from zoo_combiner.joint import Part, joint_attention
from zoo_combiner.span import local_attention


def row_values(grid: Grid) -> Tensor:
    """What each token says of its whole row, (B, H, n, s, D): the value of its summary.

    It looks at later tokens of the row, and is causal all the same: only the rows below ask for it.
    """
    return local_attention(grid.q, grid.k, grid.v, valid=grid.valid, scale=grid.scale)


def row_keys_wsum(grid: Grid) -> Tensor:
    """The keys of a row, weighted like its values: the summary's key for row_summary 'wsum'."""
    return local_attention(grid.q, grid.k, grid.k, valid=grid.valid, scale=grid.scale)


class RowKeys(nn.Module):
    """Learned keys of rows, W2 LN(W1 o + x): o what a token says of its row, over all heads, x its input."""

    def __init__(self, *, width: int, heads: int, bias: bool, dropout_prob: float) -> None:
        super().__init__()
        self.heads = heads
        self.inner = nn.Linear(width, width, bias=bias)
        self.norm = nn.LayerNorm(width)
        self.outer = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(dropout_prob)

    def forward(self, said: Tensor, x: Tensor) -> Tensor:
        """said: (B, H, n, s, D), x: (B, n s, width) -> (B, H, n, s, D)."""
        hidden = self.inner(said.flatten(2, 3).transpose(1, 2).flatten(2))  # (B, n s, width)
        keys: Tensor = self.outer(self.norm(self.dropout(hidden) + x))
        return in_rows(keys.unflatten(-1, (self.heads, -1)).transpose(1, 2), said.shape[3])


def rowmajor_attention(
    grid: Grid,
    keys: Tensor,
    values: Tensor,
    *,
    valid: Tensor | None = None,
    first: int = 0,
    dropout_p: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """Queries of the grid over their own row and over the summaries in their column, (B, H, n, s, D).

    keys, values: (B, H, m, s, D), counted from row 0, while the grid starts with row `first`.
    valid: bool (B, 1, m): the row holds a token; or (B, 1, m, s): its token in that column is there.
    """
    other = other_rows(grid, keys.shape[2], first=first)
    if valid is not None:  # (B, 1, 1 or s, n, m)
        other = other & (valid[:, :, None, None] if valid.dim() == 3 else valid.mT.unsqueeze(-2))
    parts = [
        Part(grid.k, grid.v, "row", own_row(grid)),
        Part(keys.transpose(2, 3), values.transpose(2, 3), "column", other),
    ]
    return joint_attention(grid.q, parts, scale=grid.scale, dropout_p=dropout_p, fused=fused)
