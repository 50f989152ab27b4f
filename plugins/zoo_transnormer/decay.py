"""How fast each head forgets: slope s, lambda = e^(-s) per token. H heads, L layers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Schedule = Literal["alibi", "minimax", "paper", "none"]
SCHEDULES: tuple[Schedule, ...] = ("alibi", "minimax", "paper", "none")


def decay_slopes(
    num_heads: int, layer_idx: int = 0, num_layers: int = 1, schedule: Schedule = "alibi"
) -> Tensor:
    """Slopes of the heads of one layer, (H,) float32, not negative, by one of four schedules.

    The schedules differ a lot, and weights trained with one are wrong with another:

    alibi: the published code's. ALiBi(h) (1 - l / (L - 1) + 1e-5), in the last layer next to nothing. Where
        H is no power of 2, ALiBi takes the slopes of the power below, then every other one of twice that.
    minimax: 2^(-8 h / H) (1 - l / (L - 1 + 1e-5) + 1e-5) for any H, h = 1, ..., H (MiniMax-Text-01).
    paper: (8 h / H) (1 - l / L), h = 0, ..., H - 1 (TNL, eq. 10; the base of h is not stated there).
    none: 0, no decay.

    Args:
        layer_idx: l, from 0.
        num_layers: L. For a single layer the factor is 1 (the published code divides by zero).

    Raises:
        ValueError: no heads, no such layer, no such schedule.
    """
    return torch.tensor(slope_values(num_heads, layer_idx, num_layers, schedule))


def slope_values(num_heads: int, layer_idx: int, num_layers: int, schedule: Schedule) -> list[float]:
    """As `decay_slopes`, as numbers."""
    if num_heads < 1:
        raise ValueError(f"num_heads must be at least 1, got {num_heads}")
    if not 0 <= layer_idx < num_layers:
        raise ValueError(f"layer_idx must lie in [0, num_layers={num_layers}), got {layer_idx}")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    if schedule == "none":
        return [0.0] * num_heads
    if schedule == "paper":
        return [8 * head / num_heads * (1 - layer_idx / num_layers) for head in range(num_heads)]
    if schedule == "alibi":
        rates, below = _alibi(num_heads), float(num_layers - 1)
    else:
        rates, below = (
            [2 ** (-8 * head / num_heads) for head in range(1, num_heads + 1)],
            num_layers - 1 + 1e-5,
        )
    factor = 1.0 if num_layers == 1 else 1 - layer_idx / below + 1e-5
    return [rate * factor for rate in rates]


def _alibi(heads: int) -> list[float]:
    """Slopes of Press et al. 2022, https://arxiv.org/abs/2108.12409 (their code where H is no power of 2)."""
    power = 2 ** (heads.bit_length() - 1)
    slopes = [2 ** (-8 * head / power) for head in range(1, power + 1)]
    if power < heads:
        slopes += [2 ** (-8 * head / (2 * power)) for head in range(1, 2 * power + 1, 2)][: heads - power]
    return slopes
