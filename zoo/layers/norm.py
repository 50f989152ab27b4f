"""Normalisation by name."""

from __future__ import annotations

from torch import nn

EPS = 1e-5


def make_norm(name: str, *, width: int) -> nn.Module:
    """`layer` (mean and variance, with bias) or `rms` (root mean square only), over the last dimension.

    Raises:
        ValueError: there is no such norm.
    """
    if name == "layer":
        return nn.LayerNorm(width, eps=EPS)
    if name == "rms":
        return nn.RMSNorm(width, eps=EPS)
    raise ValueError(f"there is no norm {name!r}; there is: layer, rms")
