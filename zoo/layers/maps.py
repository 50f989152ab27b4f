"""Heads that answer each pixel of an image. B batch, N tokens, D width, C channels, K outputs.

One decoder, whatever the backbone: its tokens, its feature map or its vector as places on a grid, each of
which becomes a square of pixels; then resizing to the image, a convolution, and a linear map of each pixel.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kinds import Maps
from zoo.layers.heads_config import MapsHeadConfig
from zoo.layers.init import HEAD_STD


class ImageMapsHead(nn.Module):
    """Maps from a feature map: (B, D, h, w) -> (B, K, H, W). Pooled features, (B, D), are one place."""

    per_token = False

    def __init__(self, config: MapsHeadConfig, *, targets: Maps, width: int) -> None:
        super().__init__()
        self.size = (targets.height, targets.width)
        self.unfold = nn.ConvTranspose2d(width, config.hidden, config.unfold, stride=config.unfold)
        self.smooth = nn.Conv2d(config.hidden, config.hidden, 3, padding=1)
        self.dropout = nn.Dropout(config.dropout_prob)
        self.answer = nn.Conv2d(config.hidden, targets.outputs, 1)
        nn.init.normal_(self.answer.weight, std=HEAD_STD)
        nn.init.zeros_(self.answer.bias)  # type: ignore[arg-type]

    def place(self, features: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Features on a grid, (B, D, h, w), and the size in pixels of what the grid covers."""
        if features.dim() not in (2, 4):
            raise ValueError(f"expected features (B, D) or (B, D, h, w), got shape {tuple(features.shape)}")
        return features[:, :, None, None] if features.dim() == 2 else features, self.size

    def forward(self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        """features: what the backbone gave -> (B, K, H, W). An image has no mask.

        pre_logits: stop before the linear map: (B, C, H, W).
        """
        grid, covered = self.place(features)
        x = self.unfold(grid)  # (B, C, h * unfold, w * unfold)
        if x.shape[2:] != covered:
            x = F.interpolate(x, covered, mode="bilinear", align_corners=False)
        x = x[:, :, : self.size[0], : self.size[1]]  # patches may reach beyond the image
        x = F.gelu(x + self.smooth(F.gelu(x)))
        return x if pre_logits else self.answer(self.dropout(x))


class VectorMapsHead(ImageMapsHead):
    """Maps from a vector: (B, D) -> (B, K, H, W)."""


class TokenMapsHead(ImageMapsHead):
    """Maps from tokens that lie on a grid: (B, N, D) -> (B, K, H, W)."""

    def connect(self, stem: nn.Module | None) -> None:
        """Learn where the stem's tokens lie: its `grid`, rows and columns, and `side`, pixels of a token.

        Raises:
            ValueError: the stem does not say so.
        """
        grid, side = getattr(stem, "grid", None), getattr(stem, "side", None)
        if grid is None or side is None:
            raise ValueError(
                f"the tokens of stem {type(stem).__name__} lie on no grid: it has no grid and side"
            )
        self.grid: tuple[int, int] = grid
        self.covered = (grid[0] * side, grid[1] * side)

    def place(self, features: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens row by row: (B, N, D) -> (B, D, rows, columns)."""
        return features.transpose(1, 2).unflatten(2, self.grid), self.covered
