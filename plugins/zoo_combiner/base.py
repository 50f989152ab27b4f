"""What the Combiner mixers share: projections, padding, the checks of streams.

B batch, N tokens, H heads, D channels per head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers import by_age, check_state, front_order, put_back, weights_by_values
from zoo_combiner.config import CombinerConfig


class Combiner(nn.Module):
    """What the forms share: projections, padding, streams. Parameters are those of self-attention."""

    #: What a stream remembers.
    _cache: type[Any]

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
        if x.shape[1] == 0:
            return x
        if mask is None:
            return self._merge(self._mix(x, None))
        if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
            raise ValueError(
                f"mask must be bool {tuple(x.shape[:2])}, True = keep; got {mask.dtype} {tuple(mask.shape)}"
            )
        y = self._merge(self._mix(*self._packed(x, mask)))
        back = (mask.cumsum(1) - 1).clamp_min(0)
        return y.gather(1, back.unsqueeze(-1).expand_as(y)).masked_fill(~mask.unsqueeze(-1), 0.0)

    def attention_probs(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """The implied attention matrix, for tools that look; x as in `forward`.

        Returns:
            (B, H, N, N), rows that sum to one (sparse attention, pooling "none": over what it sees); zeros
            where `mask` is False.
        """
        self._check(x)
        packed, kept = (x, None) if mask is None else self._packed(x, mask)
        values = self._project(packed)[2]
        probs = weights_by_values(lambda each: self._mix(packed, kept, each), values)
        if mask is not None:
            order = front_order(mask)
            for _ in range(2):  # queries, then tokens
                probs = put_back(probs, mask, order, dim=2).transpose(2, 3)
        return probs

    def _packed(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Kept tokens in front, and bool (B, N), which these are."""
        count = mask.sum(1, keepdim=True)  # (B, 1)
        place = torch.arange(x.shape[1], device=x.device)
        # Behind the last kept token, that token again: whatever padding holds, it is not looked at.
        index = front_order(mask).gather(1, place.minimum((count - 1).clamp_min(0)))
        return x.gather(1, index.unsqueeze(-1).expand_as(x)), place < count

    def _mix(self, x: Tensor, mask: Tensor | None, values: Tensor | None = None) -> Tensor:
        """x: (B, N, width), mask: bool (B, N), padding on the right -> (B, H, N, D).

        values: (B, H, N, D), what is mixed in place of those of x; weights stay what they are.
        """
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
        weight = self.query.weight
        tokens = weight.new_zeros(batch_size, self.heads, 0, self.channels)
        return self._empty(tokens, torch.zeros(batch_size, dtype=torch.int64, device=weight.device))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x: the next C >= 1 tokens (B, C, width) -> (B, C, width) and the new state; equals `forward`.

        Streams of different ages may stand side by side; each age is computed by itself.

        Raises:
            ValueError: x has another shape, or the state is of another layer, batch size or type.
        """
        self._check(x)
        one = (len(x), self.heads, None, self.channels)
        shapes = {"queries": one, "keys": one, "values": one, "seen": (len(x),)}
        check_state(state, self._cache, shapes, dtype=self.query.weight.dtype)
        return by_age(self._step, x, state, state.seen)

    def _empty(self, tokens: Tensor, seen: Tensor) -> Any:
        """The first state; tokens: (B, H, 0, D), seen: int64 (B,), zeros."""
        raise NotImplementedError

    def _step(self, x: Tensor, state: Any, age: int) -> tuple[Tensor, Any]:
        """`step` for streams that have all seen `age` tokens."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        size = getattr(self, "block_size", None)
        return f"heads={self.heads}, causal={self.causal}" + (f", block_size={size}" if size else "")
