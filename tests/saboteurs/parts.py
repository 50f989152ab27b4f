"""Honest and dishonest models, feed-forwards, stems and heads. B batch, N tokens, D width, K outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.saboteurs.config import MeanConfig, StackConfig
from tests.saboteurs.mixers import Mean
from zoo.layers.stems import Convolutions
from zoo.plugin import Image


class Stack(nn.Module):
    """Residual layers of `Mean`. Honest."""

    def __init__(self, config: StackConfig, *, width: int, max_tokens: int | None, causal: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Mean(MeanConfig(), width=width, heads=1, causal=causal) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = x + layer(x, mask=mask)
        return self.norm(x)


class KeepsExtras(Stack):
    """Its state dict holds something that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"depth": len(self.layers)}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


class CountsRows(Stack):
    """The same, but a graph of it knows one batch size only."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return super().forward(x, mask=mask) + x.new_zeros(len(x), 1, 1)


class BeyondOnnx(Stack):
    """The same, by way of the logarithm of the gamma function."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return super().forward(x, mask=mask) + 0 * torch.lgamma(2 + x.tanh())


class Sight(nn.Module):
    """One convolution over an image. Honest."""

    def __init__(self, config: Any, *, width: int, causal: bool, inputs: Image) -> None:
        super().__init__()
        if causal:
            raise ValueError("it sees whole images: causal=True cannot be")
        self.look = nn.Conv2d(inputs.channels, width, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.look(x).tanh()


class LooksAtTheMiddle(Sight):
    """The same, without the border."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., 4:-4, 4:-4])


class Gate(nn.Module):
    """x * sigmoid(linear(x)). Honest."""

    def __init__(self, config: Any, *, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.out(x).sigmoid()


class LooksAside(Gate):
    """Adds a little of the position before."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + 0.1 * y.roll(1, dims=-2)


class Mark(nn.Module):
    """One vector per symbol. Honest."""

    per_token = True

    def __init__(self, config: Any, *, inputs: Any, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(inputs.vocab, width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return self.table(x), mask


class MarkAhead(Mark):
    """Adds a little of the next symbol's vector."""

    per_token = False

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        y = self.table(x)
        told = y if mask is None else y * mask.unsqueeze(-1)
        return torch.cat((y[:, :-1] + 0.1 * told[:, 1:], y[:, -1:]), 1), mask


class MarkBehind(Mark):
    """Adds a little of the symbol before, and still says that it works token by token."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        y = self.table(x)
        told = y if mask is None else y * mask.unsqueeze(-1)
        return torch.cat((y[:, :1], y[:, 1:] + 0.1 * told[:, :-1]), 1), mask


class Strides(Convolutions):
    """The core's, as a component of this plugin. Honest."""


class StridesAhead(Strides):
    """Adds a little of the next token."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        y, mask = super().forward(x, mask=mask)
        told = y if mask is None else y * mask.unsqueeze(-1)
        return torch.cat((y[:, :-1] + 0.1 * told[:, 1:], y[:, -1:]), 1), mask


class Tally(nn.Module):
    """The mean of the kept tokens, then a linear map. Honest."""

    def __init__(self, config: Any, *, targets: Any, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, targets.count)

    def forward(self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        keep = torch.ones(features.shape[:2], dtype=torch.bool) if mask is None else mask
        kept = keep.unsqueeze(-1).to(features.dtype)
        pooled = (features * kept).sum(1) / kept.sum(1).clamp_min(1)
        return pooled if pre_logits else self.linear(pooled)


class ForgetsPreLogits(Tally):
    """Answers even where only the features are asked for."""

    def forward(self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        return super().forward(features, mask=mask)
