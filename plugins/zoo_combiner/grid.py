"""Tokens laid out in rows of s columns. B batch, H heads, N tokens, n = ceil(N / s) rows, D channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Grid(NamedTuple):
    """Queries, keys and values (B, H, n, s, D), what summaries are pooled from, and who is there.

    valid: bool (B, 1, n, s); `None`: nobody who could be seen is missing. scale: of all scores; `None`:
    1 / sqrt(D).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    pool_q: Tensor
    pool_k: Tensor
    valid: Tensor | None
    causal: bool
    pooling: str
    scale: float | None

    @property
    def rows(self) -> int:
        return self.q.shape[2]

    @property
    def columns(self) -> int:
        return self.q.shape[3]

    def each(self, change: Callable[[Tensor], Tensor]) -> Grid:
        """The same change to all tensors."""
        valid = None if self.valid is None else change(self.valid)
        q, k, v, pool_q, pool_k = (change(x) for x in (self.q, self.k, self.v, self.pool_q, self.pool_k))
        return self._replace(q=q, k=k, v=v, pool_q=pool_q, pool_k=pool_k, valid=valid)

    def part(self, start: int, stop: int) -> Grid:
        """Rows `start` to `stop` - 1."""
        return self.each(lambda x: x[:, :, start:stop])

    def asked(self) -> Grid:
        """The rows whose summaries somebody may ask for: all, unless there is one only.

        If causal, nobody asks for the last one; but to leave it out would cost copies in the backward pass.
        """
        return self.part(0, 0) if self.rows == 1 else self


def make_grid(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    columns: int,
    causal: bool,
    key_mask: Tensor | None = None,
    pooling: str = "max",
    span_qk: tuple[Tensor, Tensor],
    scale: float | None = None,
) -> Grid:
    """Rows of tokens (B, H, N, D), the last one filled up with tokens that are not there."""
    tokens = q.shape[2]
    padding = -tokens % columns
    # A causal query sees none of the filling, which comes after it.
    if key_mask is None and padding and not causal:
        key_mask = torch.ones(1, tokens, dtype=torch.bool, device=q.device)
    valid = None if key_mask is None else in_rows(key_mask[:, None, :, None], columns).squeeze(-1)

    def rows(x: Tensor) -> Tensor:
        return in_rows(x, columns)

    pool_q, pool_k = (rows(x) for x in span_qk)
    return Grid(rows(q), rows(k), rows(v), pool_q, pool_k, valid, causal, pooling, scale)


def in_rows(x: Tensor, columns: int) -> Tensor:
    """(B, H, N, *) -> (B, H, n, s, *), with zeros after the end."""
    padding = -x.shape[2] % columns
    return (F.pad(x, (0, 0, 0, padding)) if padding else x).unflatten(2, (-1, columns))


def in_line(x: Tensor, tokens: int) -> Tensor:
    """(B, H, n, s, D) -> (B, H, N, D)."""
    return x.flatten(2, 3)[:, :, :tokens]


def own_row(grid: Grid) -> Tensor:
    """What queries see of their own row: bool (s, s), or (B, 1, n, s, s) where tokens are missing."""
    seen = torch.ones(grid.columns, grid.columns, dtype=torch.bool, device=grid.q.device)
    seen = seen.tril() if grid.causal else seen
    return seen if grid.valid is None else seen & grid.valid.unsqueeze(-2)


def other_rows(grid: Grid, rows: int, *, first: int = 0) -> Tensor:
    """Which of `rows` rows lie before the query's own, unless causal also which lie after it: bool (n, rows).

    first: the number of the grid's first row.
    """
    here = torch.arange(first, first + grid.rows, device=grid.q.device)[:, None]
    there = torch.arange(rows, device=grid.q.device)
    return there < here if grid.causal else there != here


def default_block_size(tokens: int) -> int:
    """The power of two nearest to sqrt(tokens), which keeps s + n small."""
    root = math.sqrt(tokens)
    below = 2 ** math.floor(math.log2(root))
    return below if root - below <= 2 * below - root else 2 * below
