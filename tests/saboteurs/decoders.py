"""Honest and dishonest decoders."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.decoders import pick


class Draw:
    """By chance, more boldly with every symbol. Honest."""

    def __init__(self, config: None) -> None:
        pass

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.ones(batch_size, dtype=torch.float64)

    def step(self, logits: Tensor, state: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        weights = (logits.double() * state.unsqueeze(-1)).softmax(-1)
        symbols = torch.arange(logits.shape[-1]).expand_as(logits)
        return pick(weights, symbols, chance), state + 0.1


class Wishful(Draw):
    """Gives every symbol a chance."""

    def step(self, logits: Tensor, state: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        return super().step(torch.zeros_like(logits), state, chance)


class Gregarious(Draw):
    """Mixes the rows."""

    def step(self, logits: Tensor, state: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        return super().step(logits.where(logits.isinf(), logits.mean(0)), state, chance)


class Forgetful(Draw):
    """Writes into the state."""

    def step(self, logits: Tensor, state: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        chosen, after = super().step(logits, state, chance)
        return chosen, state.copy_(after)
