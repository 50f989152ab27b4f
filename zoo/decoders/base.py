"""What a decoder is, and how one symbol is drawn. B sequences, V symbols."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Decoder(Protocol):
    """Chooses symbols one by one. Built as `Decoder(config)`.

    All chance comes in as `chance`, so that a row of a batch is decoded as it would be alone.
    """

    def initial_state(self, batch_size: int) -> Any:
        """What it remembers before the first symbol: tensors (B, ...), or `None` for nothing."""

    def step(self, logits: Tensor, state: Any, chance: Tensor) -> tuple[Tensor, Any]:
        """logits: (B, V), chance: (B,), uniform in [0, 1) -> the symbols, int64 (B,), and the new state."""


def ranked(logits: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Probabilities (B, V) from the likeliest down, in float64, and the symbols they belong to."""
    ordered, symbols = (logits.double() / temperature).sort(dim=-1, descending=True, stable=True)
    return ordered.softmax(-1), symbols


def pick(weights: Tensor, symbols: Tensor, chance: Tensor) -> Tensor:
    """Draw one symbol a row: weights (B, V), which need not sum to 1, of symbols (B, V) -> (B,)."""
    sums = weights.cumsum(-1)
    place = (sums <= chance.to(sums).unsqueeze(-1) * sums[:, -1:]).sum(-1)
    last = (weights > 0).long().cumsum(-1).argmax(-1)  # the last of any weight, whatever rounding does
    return symbols.gather(-1, torch.minimum(place, last).unsqueeze(-1)).squeeze(-1)
