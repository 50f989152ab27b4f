"""Normalisation by name."""

from __future__ import annotations

from torch import nn

EPS = 1e-5


def make_norm(name: str, *, width: int) -> nn.Module:
    """`layer` (mean and variance, with bias), `rms` (root mean square only) or `srms` (that without weights).

    They run over the last dimension. "srms" has the epsilon of its paper (Qin et al. 2023, "TransNormerLLM",
    https://arxiv.org/abs/2307.14995).

    Raises:
        ValueError: there is no such norm.
    """
    if name == "layer":
        return nn.LayerNorm(width, eps=EPS)
    if name == "rms":
        return nn.RMSNorm(width, eps=EPS)
    if name == "srms":
        return nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
    raise ValueError(f"there is no norm {name!r}; there is: layer, rms, srms")
