"""KANs as a model on vectors, as a feed-forward, and with nothing else between data and answer.

B batch, D width, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from zoo.plugin import Classes, Multi, Values, Vector
from zoo_kan.config import KanConfig, KanFeedForwardConfig, KanHeadConfig, RawConfig, width_problem
from zoo_kan.layers import KANLinear


def _norm(name: str, width: int) -> nn.Module:
    """Without weights of its own: the edges would scale their inputs once more."""
    return nn.LayerNorm(width, elementwise_affine=False) if name == "layer" else nn.Identity()


class Kan(nn.Module):
    """KAN layers one after the other, with no other nonlinearity, as in the paper."""

    def __init__(
        self, config: KanConfig, *, width: int, max_tokens: int | None = None, causal: bool = False
    ) -> None:
        super().__init__()
        if causal:
            raise ValueError("kan/kan works on vectors, which have no order: causal=True makes no sense")
        self.num_features = config.hidden[-1]
        sizes = (width, *config.hidden)
        self.norms = nn.ModuleList(_norm(config.norm, size) for size in sizes[:-1])
        products = config.products or (0,) * len(config.hidden)
        self.layers = nn.ModuleList(
            KANLinear(inputs, outputs, products=count, **config.options)  # type: ignore[arg-type]
            for (inputs, outputs), count in zip(pairwise(sizes), products, strict=True)
        )
        self.dropouts = nn.ModuleList(
            nn.Dropout(config.dropout_prob if n else 0.0) for n in range(len(sizes) - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, D) -> (B, hidden[-1])."""
        for passed in self._passed(x):
            x = passed
        return x

    def _passed(self, x: Tensor) -> Iterator[Tensor]:
        """What each layer passes on."""
        for norm, dropout, layer in zip(self.norms, self.dropouts, self.layers, strict=True):
            x = layer(dropout(norm(x)))
            yield x

    def forward_intermediates(self, x: Tensor, *, indices: int | Sequence[int] | None = None) -> list[Tensor]:
        """What each layer passes on, (B, O) each. indices: which layers; a number n: the last n; `None`: all.

        Raises:
            ValueError: there is no such layer.
        """
        return pick(list(self._passed(x)), indices)


def pick(passed: list[Tensor], indices: int | Sequence[int] | None) -> list[Tensor]:
    """What the layers of these numbers passed on; a number n: the last n; `None`: all."""
    count = len(passed)
    if isinstance(indices, int):
        indices = range(count - indices, count)
    wanted = range(count) if indices is None else indices
    if any(not -count <= index < count for index in wanted):
        raise ValueError(f"layers are 0 to {count - 1}, or -{count} to -1, got {list(wanted)}")
    return [passed[index] for index in wanted]


class KanFeedForward(nn.Module):
    """Two KAN layers in place of a transformer's feed-forward; the block before it norms its inputs."""

    def __init__(self, config: KanFeedForwardConfig, *, width: int) -> None:
        super().__init__()
        hidden = max(1, round(config.ratio * width))
        self.inner = KANLinear(width, hidden, **config.options)  # type: ignore[arg-type]
        self.outer = KANLinear(hidden, width, **config.options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        return self.outer(self.inner(x))


class Raw(nn.Module):
    """The features of a table as they are, zeros behind them up to the width: no weights before the edges."""

    def __init__(self, config: RawConfig, *, inputs: Vector, width: int) -> None:
        super().__init__()
        if width < inputs.features:
            raise width_problem(width, inputs.features)
        self.features = inputs.features
        self.width = width

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, None]:
        """x: (B, F) -> (B, D)."""
        if x.shape[-1] != self.features:
            raise ValueError(f"expected (B, {self.features}), got {tuple(x.shape)}")
        return nn.functional.pad(x, (0, self.width - self.features)), None


class KanHead(nn.Module):
    """A KAN layer to the answers: with the stem `kan/raw`, the whole model is a KAN."""

    def __init__(self, config: KanHeadConfig, *, targets: Classes | Values | Multi, width: int) -> None:
        super().__init__()
        self.norm = _norm(config.norm, width)
        self.dropout = nn.Dropout(config.dropout_prob)
        self.layer = KANLinear(width, targets.outputs, bias=True, **config.options)  # type: ignore[arg-type]

    def forward(self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        """features: (B, D) -> (B, K)."""
        return features if pre_logits else self.layer(self.dropout(self.norm(features)))


def kan_layers(model: nn.Module) -> dict[str, KANLinear]:
    """The KAN layers of any model by name, in the order in which they were made."""
    return {name: module for name, module in model.named_modules() if isinstance(module, KANLinear)}


@torch.no_grad()
def layer_inputs(model: nn.Module, run: Any) -> dict[str, Tensor]:
    """What each KAN layer is given while `run()` runs the model: name -> (S, I)."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name] = inputs[0].detach().flatten(0, -2)

        return hook

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in kan_layers(model).items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found
