"""The Combiner mixers: full attention at less than quadratic cost, both ways or causal and streaming.

B batch, N tokens, H heads, D channels per head, n rows of s columns.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_combiner.base import Combiner
from zoo_combiner.config import AxialConfig, FixedConfig, LogsparseConfig
from zoo_combiner.functional import combiner_attention, combiner_mixture
from zoo_combiner.grid import Grid, in_line, in_rows, make_grid
from zoo_combiner.rowmajor import RowKeys, row_keys_wsum, row_values, rowmajor_attention
from zoo_combiner.stream import AxialCache, FixedCombinerCache, LogsparseCache, RowCache

#: Tokens per block where nothing says how many tokens there will be (the authors' JAX configuration).
BLOCK_SIZE = 32


class CombinerFixed(Combiner):
    """Own block token by token, the other blocks through one summary each: O(N sqrt(N))."""

    _cache = FixedCombinerCache

    def __init__(
        self, config: FixedConfig, *, width: int, heads: int, causal: bool, max_tokens: int | None = None
    ) -> None:
        super().__init__(config, width=width, heads=heads, causal=causal, max_tokens=max_tokens)
        self.block_size = block_size_for(config.block_size, max_tokens)

    def _mix(self, x: Tensor, mask: Tensor | None, values: Tensor | None = None) -> Tensor:
        q, k, v = self._project(x)
        v = v if values is None else values
        options = self._options(q, k, mask)
        return combiner_attention(q, k, v, plan="fixed", block_size=self.block_size, **options)

    def _empty(self, tokens: Tensor, seen: Tensor) -> FixedCombinerCache:
        return FixedCombinerCache(tokens, tokens, tokens, tokens, tokens, seen)

    def _step(self, x: Tensor, state: FixedCombinerCache, age: int) -> tuple[Tensor, FixedCombinerCache]:
        q, k, v = self._project(x)
        out, state = state.of_age(age, self.block_size).step(
            q,
            k,
            v,
            block_size=self.block_size,
            pooling=self.pooling,
            features=self._features,
        )
        return self._merge(out), state


class CombinerLogsparse(Combiner):
    """As many spans as the number of earlier tokens has binary digits: O(N log N)."""

    _cache = LogsparseCache

    def __init__(
        self, config: LogsparseConfig, *, width: int, heads: int, causal: bool, max_tokens: int | None = None
    ) -> None:
        super().__init__(config, width=width, heads=heads, causal=causal, max_tokens=max_tokens)

    def _mix(self, x: Tensor, mask: Tensor | None, values: Tensor | None = None) -> Tensor:
        q, k, v = self._project(x)
        v = v if values is None else values
        return combiner_attention(q, k, v, plan="logsparse", **self._options(q, k, mask))

    def _empty(self, tokens: Tensor, seen: Tensor) -> LogsparseCache:
        return LogsparseCache(tokens, tokens, tokens, tokens, tokens, seen)

    def _step(self, x: Tensor, state: LogsparseCache, age: int) -> tuple[Tensor, LogsparseCache]:
        q, k, v = self._project(x)
        out, state = state.of_age(age).step(q, k, v, pooling=self.pooling, features=self._features)
        return self._merge(out), state


class CombinerAxial(Combiner):
    """Tokens in rows, the others through summaries of rows or columns: O(N sqrt(N)); see `AxialConfig.plan`.

    Row-major, both ways, with a last row that is not full: its missing places ask for the row's summaries as
    its last token does (ours).
    """

    def __init__(
        self, config: AxialConfig, *, width: int, heads: int, causal: bool, max_tokens: int | None = None
    ) -> None:
        super().__init__(config, width=width, heads=heads, causal=causal, max_tokens=max_tokens)
        self.config: AxialConfig = config
        self.block_size = block_size_for(config.block_size, max_tokens)
        self._cache = RowCache if config.plan == "rowmajor" else AxialCache
        self.row_keys: RowKeys | None = None
        if config.plan == "rowmajor" and config.pooling != "none" and config.row_summary.endswith("proj"):
            self.row_keys = RowKeys(
                width=width, heads=heads, bias=config.bias, dropout_prob=config.dropout_prob
            )
        self.reset_parameters()

    def _mix(self, x: Tensor, mask: Tensor | None, values: Tensor | None = None) -> Tensor:
        if self.config.plan == "rowmajor":
            return self._mix_rows(x, mask, values)
        q, k, v = self._project(x)
        v = v if values is None else values
        options = self._options(q, k, mask) | {"block_size": self.block_size}
        if self.config.plan == "average":  # section 3.3: M = 2, the same q, k, v
            return combiner_mixture(q, k, v, plans=("axial_vertical", "axial_horizontal"), **options)
        return combiner_attention(q, k, v, plan=f"axial_{self.config.plan}", **options)

    def _mix_rows(self, x: Tensor, mask: Tensor | None, given: Tensor | None) -> Tensor:
        tokens = x.shape[1]
        missing = -tokens % self.block_size
        if missing:
            if mask is None and not self.causal:
                mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            x = torch.cat((x, x[:, -1:].expand(-1, missing, -1)), 1)
            mask = None if mask is None else F.pad(mask, (0, missing), value=False)
        q, k, v = self._project(x)
        grid = make_grid(
            q,
            k,
            v,
            columns=self.block_size,
            causal=self.causal,
            key_mask=mask,
            pooling=self.pooling,
            span_qk=(q, k),
        )
        asked = grid.asked()
        keys, values = self._summaries(asked, x[:, : asked.rows * self.block_size])
        if given is not None:  # keys are made from the values of x all the same
            grid = grid._replace(v=in_rows(given, self.block_size))
            asked = grid.asked()
            values = row_values(asked) if asked.rows and self.pooling != "none" else asked.v
        out = rowmajor_attention(
            grid,
            keys,
            values,
            valid=self._row_is_there(asked),
            dropout_p=self.config.weights_dropout_prob if self.training else 0.0,
        )
        return in_line(out, tokens)

    def _summaries(self, rows: Grid, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of rows by column, (B, H, n, s, D) each; x: their inputs (B, n s, width)."""
        if not rows.rows or self.pooling == "none":
            return rows.k, rows.v
        values = row_values(rows)
        how = self.config.row_summary
        if how == "none":
            return rows.k, values
        mixed = row_keys_wsum(rows) if how.startswith("wsum") else values
        return mixed if self.row_keys is None else self.row_keys(mixed, x), values

    def _row_is_there(self, rows: Grid) -> Tensor | None:
        """Whether a row's summary may be seen; without summaries, its token in that column."""
        return rows.valid if rows.valid is None or self.pooling == "none" else rows.valid.any(-1)

    def _empty(self, tokens: Tensor, seen: Tensor) -> RowCache | AxialCache:
        rows = tokens.new_zeros(len(seen), self.heads, 0, self.block_size, self.channels)
        if self.config.plan == "rowmajor":
            inputs = tokens.new_zeros(len(seen), 1, 0, self.width)
            return RowCache(inputs, tokens, tokens, tokens, rows, rows, seen)
        return AxialCache(tokens, tokens, tokens, rows, rows, rows, rows, seen)

    def _step(
        self, x: Tensor, state: RowCache | AxialCache, age: int
    ) -> tuple[Tensor, RowCache | AxialCache]:
        q, k, v = self._project(x)
        size = self.block_size
        out, after = (
            state.of_age(age, size).step(x, q, k, v, block_size=size, summarise=self._summaries)
            if isinstance(state, RowCache)
            else state.of_age(age, size).step(
                q,
                k,
                v,
                plan=f"axial_{self.config.plan}",
                block_size=size,
                pooling=self.pooling,
                features=self._features,
            )
        )
        return self._merge(out), after


def block_size_for(given: int | None, max_tokens: int | None) -> int:
    """Tokens per block; without a size, the largest power of two up to sqrt(max_tokens).

    Up to, not nearest: most sequences are shorter than the longest.
    """
    if given is not None:
        return given
    return BLOCK_SIZE if max_tokens is None else 2 ** int(math.log2(max(max_tokens, 1)) / 2)
