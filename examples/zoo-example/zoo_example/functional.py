"""The recurrence, tensors in and tensors out. B batch, N tokens, D channels."""

from __future__ import annotations

import torch
from torch import Tensor


def scan(values: Tensor, decay: Tensor, state: Tensor | None = None) -> Tensor:
    """h_t = decay_t h_(t-1) + values_t for all t, without a loop over tokens.

    In round k each token adds what the one 2^k before it has gathered: log2(N) rounds (Hillis and Steele
    1986). Decays are multiplied, never divided, so that none is too small.

    Args:
        values: (B, N, D).
        decay: within [0, 1], (B or 1, N, D).
        state: h_0, (B, D); zeros without it.

    Returns:
        h, (B, N, D).
    """
    if state is not None:
        first = values[:, :1] + decay[:, :1] * state.unsqueeze(1)
        values = torch.cat((first, values[:, 1:]), 1)
    shift = 1
    while shift < values.shape[1]:
        gathered = values[:, shift:] + decay[:, shift:] * values[:, :-shift]
        values = torch.cat((values[:, :shift], gathered), 1)
        decay = torch.cat((decay[:, :shift], decay[:, shift:] * decay[:, :-shift]), 1)
        shift *= 2
    return values
