"""How much an edge matters, and the penalty that makes few of them matter.

Shapes: N examples, I inputs, O outputs, K basis functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo_kan.edges import branch

if TYPE_CHECKING:
    from zoo_kan.layers import KANLinear

#: Under the square root of a variance, so that an edge at zero has a gradient.
TINY = 1e-12


def edge_deviations(layer: KANLinear, x: Tensor) -> Tensor:
    """The standard deviation over x (N, I) of every phi_oi: (O, I).

    The paper scores an edge by the mean of |phi|, its code by this; a constant edge only shifts.

    phi_oi = w_oi . psi(x_i) with the K + 1 functions psi, so that its variance is w_oi' M_i w_oi with their
    covariance M_i: no tensor of N O I numbers. The graph reaches weights and x.
    """
    weights = layer.effective_coef()  # (O, I, K)
    x = x.to(weights.dtype)
    functions = layer.basis(x).to(x.dtype)  # (N, I, K)
    base = layer.effective_base()
    if base is not None:
        functions = torch.cat([branch(x, layer.base).unsqueeze(-1), functions], dim=-1)
        weights = torch.cat([base.unsqueeze(-1), weights], dim=-1)
    centred = (functions - functions.mean(0)).transpose(0, 1)  # (I, N, K + 1)
    covariance = centred.mT @ centred / max(1, len(x) - 1)
    by_input = weights.transpose(0, 1)  # (I, O, K + 1)
    variance = ((by_input @ covariance) * by_input).sum(-1).mT
    kept = layer.edge_mask > 0
    return torch.where(kept, (variance.clamp_min(0) + TINY).sqrt(), 0.0)


def edge_sizes(layer: KANLinear) -> Tensor:
    """The mean size of each edge's coefficients, its base weight among them: (O, I). It needs no data."""
    sizes = layer.effective_coef().abs().mean(-1)
    base = layer.effective_base()
    return sizes if base is None else sizes + base.abs()


def penalty(sizes: Tensor, *, l1: float, entropy: float) -> Tensor:
    """l1 |Phi|_1 + entropy S(Phi), the paper's penalty of one layer. sizes: (O, I), not negative.

    S is the entropy of each edge's share in the whole, 0 where nothing is left.
    """
    total = sizes.sum()
    shares = sizes / total.clamp_min(TINY)
    return l1 * total - entropy * torch.special.xlogy(shares, shares.clamp_min(TINY)).sum()
