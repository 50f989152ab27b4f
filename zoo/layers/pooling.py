"""Many tokens to one vector. B batch, N tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.layers.init import HEAD_STD


class Pool(nn.Module):
    """How kept tokens become one vector; zeros where none is kept.

    name: `mean`, `max`, `last` (the last kept token) or `attention` (a learned query weighs the tokens).
    """

    def __init__(self, name: str, *, width: int) -> None:
        super().__init__()
        if name not in ("mean", "max", "last", "attention"):
            raise ValueError(f"there is no pool {name!r}; there is: mean, max, last, attention")
        self.name = name
        if name == "attention":
            self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=HEAD_STD))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), mask: bool (B, N), True = keep -> (B, D)."""
        keep = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        if self.name == "mean":
            weights = keep / keep.sum(1, keepdim=True).clamp_min(1)
        elif self.name == "last":
            weights = keep & (keep.long().cumsum(1) == keep.sum(1, keepdim=True))
        elif self.name == "attention":
            scores = x @ self.query * x.shape[-1] ** -0.5  # (B, N)
            weights = _masked_softmax(scores, keep)
        else:
            peak = x.masked_fill(~keep.unsqueeze(-1), -torch.inf).amax(1)
            return peak.masked_fill(~keep.any(1, keepdim=True), 0.0)
        return (weights.to(x.dtype).unsqueeze(1) @ x).squeeze(1)

    def extra_repr(self) -> str:
        return self.name


def _masked_softmax(scores: Tensor, keep: Tensor) -> Tensor:
    """Softmax over the kept places of the last dimension, 0 elsewhere (and where nothing is kept)."""
    lowest = torch.finfo(scores.dtype).min  # not -inf: a row of -inf would be NaN
    return scores.masked_fill(~keep, lowest).softmax(-1) * keep
