"""Channel mixing, token by token: `core/mlp` and `core/swiglu`. D width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.config import MlpConfig, SwiGluConfig
from zoo.layers.init import init_linear


class Mlp(nn.Module):
    """Two linear maps with a GELU between them, `ratio` times as wide inside."""

    def __init__(self, config: MlpConfig, *, width: int) -> None:
        super().__init__()
        hidden = max(1, round(config.ratio * width))
        self.inner = init_linear(nn.Linear(width, hidden))
        self.dropout = nn.Dropout(config.dropout_prob)
        self.out = init_linear(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        return self.out(self.dropout(F.gelu(self.inner(x))))


class SwiGlu(nn.Module):
    """A gated feed-forward without biases, W_out(silu(W_gate x) * W_in x) (Shazeer 2020, eq. (6)).

    https://arxiv.org/abs/2002.05202. With the default `ratio` 8/3 it has as many weights as `core/mlp` at 4,
    up to the rounding of the hidden width to a multiple of 8.
    """

    def __init__(self, config: SwiGluConfig, *, width: int) -> None:
        super().__init__()
        hidden = max(8, round(config.ratio * width / 8) * 8)
        self.gate_and_value = init_linear(nn.Linear(width, 2 * hidden, bias=False))
        self.dropout = nn.Dropout(config.dropout_prob)
        self.out = init_linear(nn.Linear(hidden, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(self.dropout(F.silu(gate) * value))  # eq. (6)
