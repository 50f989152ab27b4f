"""`landmark/lm`: the paper's model. Landmarks are tokens of the stream; nobody else sees them.

B batch, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers import Transformer, by_age
from zoo.layers.init import EMBEDDING_STD
from zoo_landmark.config import LmConfig
from zoo_landmark.grid import insert_rows, places
from zoo_landmark.padding import Packed


class LandmarkLm(nn.Module):
    """A transformer on the tokens with a landmark behind every block of them, an embedding like any other.

    Landmarks come in here and go out here, so that any stem, head and data will do: the targets need not step
    over them (`shift_labels`), for where they stood there is no output.
    """

    def __init__(
        self,
        config: LmConfig,
        *,
        width: int,
        max_tokens: int | None = None,
        causal: bool = True,
        catalogue: Any = None,
    ) -> None:
        """Raises:
        ConfigError: a width that does not fit. ValueError: `causal` is false.
        """
        super().__init__()
        config.check_width(width)
        self.num_features = width
        self.every = config.attention.block
        self.landmark = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.landmark, std=EMBEDDING_STD)
        self.stack = Transformer(
            config.stack(), width=width, max_tokens=max_tokens, causal=causal, catalogue=catalogue
        )

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), mask: bool (B, N), True = keep -> (B, N, D)."""
        if mask is not None:
            packed = Packed(mask, x)
            return packed.unpack(self(packed.pack(x)))
        return self._leave(self.stack(self._enter(x, 0)), x.shape[1], 0)

    def forward_intermediates(
        self, x: Tensor, *, mask: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> list[Tensor]:
        """What each layer passes on, without landmarks, as `zoo.layers.Transformer` gives it."""
        if mask is not None:
            packed = Packed(mask, x)
            return [packed.unpack(y) for y in self.forward_intermediates(packed.pack(x), indices=indices)]
        passed = self.stack.forward_intermediates(self._enter(x, 0), indices=indices)
        return [self._leave(y, x.shape[1], 0) for y in passed]

    def initial_state(self, batch_size: int) -> Any:
        """The state before the first token."""
        return self.stack.initial_state(batch_size)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x: the next tokens (B, C, D) -> (B, C, D) and the new state; equals `forward` on all tokens.

        Raises:
            ValueError: the state is of another model or number of streams.
        """
        self.stack.check_state(state, len(x))
        return by_age(self._step, x, state, state.position)

    def _step(self, x: Tensor, state: Any, age: int) -> tuple[Tensor, Any]:
        phase = age % (self.every + 1)
        y, state = self.stack.step(self._enter(x, phase), state)
        return self._leave(y, x.shape[1], phase), state

    def _enter(self, x: Tensor, phase: int) -> Tensor:
        """Tokens with landmarks between them."""
        count = (phase + x.shape[1]) // self.every
        return insert_rows(x, self.landmark.to(x.dtype).expand(x.shape[0], count, -1), self.every, phase)

    def _leave(self, y: Tensor, tokens: int, phase: int) -> Tensor:
        """What stands at the tokens."""
        return y.index_select(1, places(tokens, self.every, phase, device=y.device))
