"""`core/mlp_net`: a residual multi-layer perceptron, the baseline for vectors. B batch, D width.

After the residual network of Gorishniy et al. 2021 ("Revisiting Deep Learning Models for Tabular Data",
https://arxiv.org/abs/2106.11959, section 3.2). Deviation: layer or RMS norm for batch norm, so that an
example's answer does not depend on its batch, and GELU for ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from zoo.layers.config import MlpConfig, MlpNetConfig
from zoo.layers.feed_forward import Mlp
from zoo.layers.init import scale_residual
from zoo.layers.norm import make_norm
from zoo.layers.transformer import pick_layers


class MlpNet(nn.Module):
    """x + mlp(norm(x)), `depth` times, then a norm."""

    def __init__(
        self, config: MlpNetConfig, *, width: int, max_tokens: int | None = None, causal: bool = False
    ) -> None:
        super().__init__()
        if causal:
            raise ValueError("core/mlp_net works on vectors, which have no order: causal=True makes no sense")
        self.num_features = width
        inner = MlpConfig(ratio=config.ratio, dropout_prob=config.dropout_prob)
        self.blocks = nn.ModuleList()
        for _ in range(config.depth):
            mlp = Mlp(inner, width=width)
            scale_residual(mlp, branches=config.depth)
            self.blocks.append(nn.Sequential(make_norm(config.norm, width=width), mlp))
        self.norm = make_norm(config.norm, width=width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, D) -> (B, D)."""
        for block in self.blocks:
            x = x + block(x)
        return self.norm(x)

    def forward_intermediates(self, x: Tensor, *, indices: int | Sequence[int] | None = None) -> list[Tensor]:
        """What each block passes on, before the final norm: (B, D) each; `indices` as in the transformer."""
        passed = []
        for block in self.blocks:
            x = x + block(x)
            passed.append(x)
        return [passed[index] for index in pick_layers(indices, count=len(self.blocks))]
