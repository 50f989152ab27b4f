"""The Combiner mixers: full attention at less than quadratic cost, both ways or causal and streaming.

B batch, N tokens, H heads, D channels per head, n rows of s columns.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_combiner.config import AxialConfig, CombinerConfig, FixedConfig, LogsparseConfig
from zoo_combiner.functional import combiner_attention, combiner_mixture
from zoo_combiner.grid import Grid, in_line, in_rows, make_grid
from zoo_combiner.rowmajor import row_keys_wsum, row_values, rowmajor_attention
from zoo_combiner.stream import AxialCache, FixedCombinerCache, LogsparseCache, RowCache

#: Tokens per block where nothing says how many tokens there will be (the authors' JAX configuration).
BLOCK_SIZE = 32


class Combiner(nn.Module):
    """What the forms share: projections, padding, streams. Parameters are those of self-attention."""

    def __init__(
        self,
        config: CombinerConfig,
        *,
        width: int,
        heads: int,
        causal: bool,
        max_tokens: int | None = None,
    ) -> None:
        """`max_tokens` is no limit; it sets the size of blocks that are not given.

        Raises:
            ValueError: `heads` does not divide `width`.
        """
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}, with at least one head")
        self.config = config
        self.width = width
        self.heads = heads
        self.channels = width // heads
        self.causal = causal
        self.query = nn.Linear(width, width, bias=config.bias)
        self.key = nn.Linear(width, width, bias=config.bias)
        self.value = nn.Linear(width, width, bias=config.bias)
        self.out = nn.Linear(width, width, bias=config.bias)
        self.span_query: nn.Linear | None = None
        self.span_key: nn.Linear | None = None
        if config.pooling == "deepset":
            self.span_query = nn.Linear(self.channels, self.channels, bias=False)
            self.span_key = nn.Linear(self.channels, self.channels, bias=False)
        self.pooling = "max" if config.pooling == "deepset" else config.pooling
        self.dropout = nn.Dropout(config.dropout_prob)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier, as the authors' code has it."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, width), mask: bool (B, N), True = keep -> (B, N, width); zeros where nothing is kept.

        Kept tokens are moved together first, so that blocks hold kept tokens only, wherever the padding is.
        """
        self._check(x)
        if mask is None:
            return self._merge(self._mix(x, None))
        if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
            raise ValueError(
                f"mask must be bool {tuple(x.shape[:2])}, True = keep; got {mask.dtype} {tuple(mask.shape)}"
            )
        count = mask.sum(1, keepdim=True)  # (B, 1)
        place = torch.arange(x.shape[1], device=x.device)
        # Behind the last kept token, that token again: whatever padding holds, it is not looked at.
        kept_first = torch.argsort((~mask).long(), dim=1, stable=True)
        index = kept_first.gather(1, place.minimum((count - 1).clamp_min(0)))
        packed = x.take_along_dim(index.unsqueeze(-1), 1)
        y = self._merge(self._mix(packed, place < count))
        back = (mask.cumsum(1) - 1).clamp_min(0)
        return y.take_along_dim(back.unsqueeze(-1), 1).masked_fill(~mask.unsqueeze(-1), 0.0)

    def _mix(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, N, width), mask: bool (B, N), padding on the right -> (B, H, N, D)."""
        raise NotImplementedError

    def _options(self, q: Tensor, k: Tensor, mask: Tensor | None) -> dict[str, Any]:
        """What all forms pass on to the functions."""
        return {
            "causal": self.causal,
            "key_mask": mask,
            "pooling": self.pooling,
            "span_qk": self._features(q, k),
            "dropout_p": self.config.weights_dropout_prob if self.training else 0.0,
        }

    def _features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """What summaries are pooled from."""
        if self.span_query is None or self.span_key is None:
            return q, k
        return F.relu(self.span_query(q)), F.relu(self.span_key(k))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, width) -> queries, keys, values (B, H, N, D)."""
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, self.channels)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        return q, k, v

    def _merge(self, mixed: Tensor) -> Tensor:
        """(B, H, N, D) -> (B, N, width)."""
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))

    def _check(self, x: Tensor) -> None:
        if x.dim() != 3 or x.shape[-1] != self.width:
            raise ValueError(f"x must be (B, N, {self.width}), got {tuple(x.shape)}")

    # -- streams -----------------------------------------------------------------------------

    def initial_state(self, batch_size: int) -> Any:
        """The state before the first token.

        Raises:
            ValueError: the layer is not causal.
        """
        if not self.causal:
            raise ValueError("a Combiner streams only when built with causal=True: else it sees later tokens")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        return self._empty(self.query.weight.new_zeros(batch_size, self.heads, 0, self.channels))

    def _empty(self, tokens: Tensor) -> Any:
        """The first state; tokens: (B, H, 0, D)."""
        raise NotImplementedError

    def _check_state(self, x: Tensor, state: Any, kind: type) -> None:
        self._check(x)
        if not isinstance(state, kind):
            raise ValueError(
                f"state must be a {kind.__name__} from initial_state() or step() of such a layer, "
                f"got a {type(state).__name__}"
            )
        keys = state.keys  # type: ignore[attr-defined]
        expected = (x.shape[0], self.heads, self.channels)
        given = (keys.shape[0], keys.shape[1], keys.shape[3])
        if given != expected:
            raise ValueError(
                f"state must be of (batch, heads, channels) {expected} for x {tuple(x.shape)}, got {given}; "
                f"start with initial_state({x.shape[0]})"
            )
        if keys.dtype != self.query.weight.dtype:
            raise ValueError(
                f"state must be of the layer's {self.query.weight.dtype}, got {keys.dtype}; "
                f"start with initial_state({x.shape[0]})"
            )

    def extra_repr(self) -> str:
        size = getattr(self, "block_size", None)
        return f"heads={self.heads}, causal={self.causal}" + (f", block_size={size}" if size else "")


class CombinerFixed(Combiner):
    """Own block token by token, the other blocks through one summary each: O(N sqrt(N))."""

    def __init__(
        self, config: FixedConfig, *, width: int, heads: int, causal: bool, max_tokens: int | None = None
    ) -> None:
        super().__init__(config, width=width, heads=heads, causal=causal, max_tokens=max_tokens)
        self.block_size = block_size_for(config.block_size, max_tokens)

    def _mix(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self._project(x)
        options = self._options(q, k, mask)
        return combiner_attention(q, k, v, plan="fixed", block_size=self.block_size, **options)

    def _empty(self, tokens: Tensor) -> FixedCombinerCache:
        return FixedCombinerCache(*[tokens] * 5)

    def step(self, x: Tensor, state: FixedCombinerCache) -> tuple[Tensor, FixedCombinerCache]:
        """x: the next C >= 1 tokens (B, C, width) -> (B, C, width) and the new state; equals `forward`."""
        self._check_state(x, state, FixedCombinerCache)
        q, k, v = self._project(x)
        out, state = state.step(
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

    def __init__(
        self, config: LogsparseConfig, *, width: int, heads: int, causal: bool, max_tokens: int | None = None
    ) -> None:
        super().__init__(config, width=width, heads=heads, causal=causal, max_tokens=max_tokens)

    def _mix(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self._project(x)
        return combiner_attention(q, k, v, plan="logsparse", **self._options(q, k, mask))

    def _empty(self, tokens: Tensor) -> LogsparseCache:
        return LogsparseCache(*[tokens] * 5)

    def step(self, x: Tensor, state: LogsparseCache) -> tuple[Tensor, LogsparseCache]:
        """x: the next C >= 1 tokens (B, C, width) -> (B, C, width) and the new state; equals `forward`."""
        self._check_state(x, state, LogsparseCache)
        q, k, v = self._project(x)
        out, state = state.step(q, k, v, pooling=self.pooling, features=self._features)
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
        self.rows_in: nn.Linear | None = None
        self.rows_norm: nn.LayerNorm | None = None
        self.rows_out: nn.Linear | None = None
        if config.plan == "rowmajor" and config.pooling != "none" and config.row_summary.endswith("proj"):
            self.rows_in = nn.Linear(width, width, bias=config.bias)
            self.rows_norm = nn.LayerNorm(width)
            self.rows_out = nn.Linear(width, width, bias=config.bias)
        self.reset_parameters()

    def _mix(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.config.plan == "rowmajor":
            return self._mix_rows(x, mask)
        q, k, v = self._project(x)
        options = self._options(q, k, mask) | {"block_size": self.block_size}
        if self.config.plan == "average":  # section 3.3: M = 2, the same q, k, v
            return combiner_mixture(q, k, v, plans=("axial_vertical", "axial_horizontal"), **options)
        return combiner_attention(q, k, v, plan=f"axial_{self.config.plan}", **options)

    def _mix_rows(self, x: Tensor, mask: Tensor | None) -> Tensor:
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
        if self.rows_in is None or self.rows_norm is None or self.rows_out is None:
            return mixed, values
        said = self.rows_in(mixed.flatten(2, 3).transpose(1, 2).flatten(2))  # (B, n s, width)
        keys = self.rows_out(self.rows_norm(self.dropout(said) + x))
        keys = keys.unflatten(-1, (self.heads, self.channels)).transpose(1, 2)
        return in_rows(keys, self.block_size), values

    def _row_is_there(self, rows: Grid) -> Tensor | None:
        """Whether a row's summary may be seen; without summaries, its token in that column."""
        return rows.valid if rows.valid is None or self.pooling == "none" else rows.valid.any(-1)

    def _empty(self, tokens: Tensor) -> RowCache | AxialCache | tuple[AxialCache, AxialCache]:
        if self.config.plan == "average":
            return AxialCache(tokens, tokens, tokens, None), AxialCache(tokens, tokens, tokens, None)
        if self.config.plan != "rowmajor":
            return AxialCache(tokens, tokens, tokens, None)
        rows = tokens.new_zeros(tokens.shape[0], self.heads, 0, self.block_size, self.channels)
        inputs = tokens.new_zeros(tokens.shape[0], 0, self.width)
        return RowCache(inputs, tokens, tokens, tokens, rows, rows)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x: the next C >= 1 tokens (B, C, width) -> (B, C, width) and the new state; equals `forward`."""
        if self.config.plan == "rowmajor":
            self._check_state(x, state, RowCache)
            q, k, v = self._project(x)
            out, state = state.step(x, q, k, v, block_size=self.block_size, summarise=self._summaries)
            return self._merge(out), state
        plans = ("vertical", "horizontal") if self.config.plan == "average" else (self.config.plan,)
        states = state if self.config.plan == "average" else (state,)
        outputs, after = [], []
        for plan, one in zip(plans, states, strict=True):
            self._check_state(x, one, AxialCache)
            q, k, v = self._project(x)
            out, one = one.step(
                q,
                k,
                v,
                plan=f"axial_{plan}",
                block_size=self.block_size,
                pooling=self.pooling,
                features=self._features,
            )
            outputs.append(out)
            after.append(one)
        y = self._merge(torch.stack(outputs).mean(0))
        return y, tuple(after) if self.config.plan == "average" else after[0]


def block_size_for(given: int | None, max_tokens: int | None) -> int:
    """Tokens per block; without a size, the largest power of two up to sqrt(max_tokens).

    Up to, not nearest: most sequences are shorter than the longest.
    """
    if given is not None:
        return given
    return BLOCK_SIZE if max_tokens is None else 2 ** int(math.log2(max(max_tokens, 1)) / 2)
