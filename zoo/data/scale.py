"""Standardisation fitted on a train split: to mean 0 and deviation 1, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Standardise:
    """x -> (x - mean) / deviation, in float32; `mean` and `deviation` broadcast against x.

    A feature that never varies stays at 0.
    """

    def __init__(self, *, mean: Tensor, deviation: Tensor) -> None:
        self.mean = mean
        self.deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))

    @classmethod
    def fit(cls, x: Tensor) -> Standardise:
        """Of each column of x (rows, columns); what is NaN does not count."""
        if not x.isnan().any():
            return cls(mean=x.mean(dim=0), deviation=x.std(dim=0, correction=0))
        mean = x.nanmean(dim=0)
        return cls(mean=mean, deviation=(x - mean).square().nanmean(dim=0).sqrt())

    def __call__(self, raw: Any) -> Tensor:
        """Numbers of any shape that fits -> float32 of the same shape."""
        x = torch.as_tensor(raw, dtype=self.mean.dtype)
        return ((x - self.mean) / self.deviation).float()

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `(x - mean) / deviation`, numbers or lists that broadcast against x."""
        return {"kind": "standardise", "mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def inverse(self, x: Tensor) -> Tensor:
        """Back to natural units."""
        return (x.to(self.mean.dtype) * self.deviation + self.mean).float()
