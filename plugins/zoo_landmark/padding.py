"""Padding anywhere: kept tokens move to the front, where blocks begin, and back. B batch, N tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.layers import front_order, kept_in_front, put_back


class Packed:
    """The places of kept tokens. mask: bool (B, N), True = keep.

    Raises:
        ValueError: the mask is not bool, or of another shape than (B, N) of the tokens.
    """

    def __init__(self, mask: Tensor, x: Tensor) -> None:
        if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
            got = f"{mask.dtype} {tuple(mask.shape)}"
            raise ValueError(f"mask must be bool {tuple(x.shape[:2])}, True = keep; got {got}")
        self.mask, self.order = mask, front_order(mask)

    def pack(self, x: Tensor) -> Tensor:
        """(B, N, D) with kept tokens in front, zeros behind them."""
        return kept_in_front(x, self.mask, self.order)

    def unpack(self, y: Tensor) -> Tensor:
        """Back to where they were, zeros elsewhere."""
        return put_back(y, self.mask, self.order)

    def unpack_pairs(self, y: Tensor) -> Tensor:
        """The same for both sides of (B, H, N, N)."""
        for _ in range(2):
            y = put_back(y, self.mask, self.order, dim=2).transpose(2, 3)
        return y
