"""What becomes of a token's surprise by the end of each later token: data alone, all chunks at once.

C tokens of a chunk; "..." any leading dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_titans import checks


class GateProducts(NamedTuple):
    """With W, S the weights and momentum before the chunk, and u_i the gradient of token i at the anchor:

        W_t = keep_t W + carry_t S - sum_{i<=t} share_ti u_i
        S_t = momentum_t S - sum_{i<=t} surprise_ti u_i

    keep, carry, momentum: (..., C). share, surprise: (..., C, C), lower triangular.
    In the letters of the paper's eq. 13 and 14, unrolled: keep_t = prod_{m<=t} (1 - alpha_m), momentum_t =
    prod_{m<=t} eta_m, A_tj = prod_{j<m<=t} (1 - alpha_m), surprise_ti = theta_i prod_{i<m<=t} eta_m,
    share = A surprise, carry = A momentum.
    """

    keep: Tensor
    carry: Tensor
    momentum: Tensor
    share: Tensor
    surprise: Tensor


def gate_products(alpha: Tensor, eta: Tensor, theta: Tensor, valid: Tensor | None = None) -> GateProducts:
    """Products of the gates over every stretch of a chunk.

    alpha: how much is forgotten, eta: how much momentum stays, theta: the step; (..., C) each.
    valid: bool (..., C); where False a token is the identity: it changes neither weights nor momentum.

    Exact where a gate is 0 or 1: nothing is divided and no logarithm taken.

    Raises:
        ValueError: shapes or types that do not fit together, no tokens.
    """
    checks.gates_fit(alpha, eta, theta, valid)
    kept = 1 - alpha
    if valid is not None:
        kept = kept.masked_fill(~valid, 1.0)
        eta, theta = eta.masked_fill(~valid, 1.0), theta.masked_fill(~valid, 0.0)
    decay = _products(kept)  # A
    momentum_decay = _products(eta)
    keep = decay[..., 0] * kept[..., :1]
    momentum = momentum_decay[..., 0] * eta[..., :1]
    if valid is not None:  # momentum moves the weights at every token, but not at these
        decay = decay.masked_fill(~valid.unsqueeze(-2), 0.0)
    surprise = momentum_decay * theta.unsqueeze(-2)
    carry = (decay @ momentum.unsqueeze(-1)).squeeze(-1)
    share = _without_subnormals(decay @ surprise)
    return GateProducts(keep, carry, momentum, share, surprise)


def _products(factors: Tensor) -> Tensor:
    """(..., C) -> (..., C, C): the product of the factors j+1 to t at (t, j), 1 where t = j, 0 above.

    This is the inverse of the matrix with ones on the diagonal and -factor_t left of it: solving with it
    multiplies factor by factor, and so does its gradient, zeros included.
    """
    if torch.compiler.is_exporting():
        return _without_subnormals(_products_doubling(factors))
    one = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    steps = one - torch.diag_embed(factors[..., 1:], offset=-1)
    products = torch.linalg.solve_triangular(steps, one.expand_as(steps), upper=False, unitriangular=True)
    return _without_subnormals(products)


def _products_doubling(factors: Tensor) -> Tensor:
    """As `_products`, without a solver, which ONNX has not: runs of 1, 2, 4, ... factors, multiplied."""
    tokens = factors.shape[-1]
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=factors.device).tril(-1)
    products = torch.where(later, factors.unsqueeze(-1), 1.0)  # (t, j): the factor t, from j + 1 on
    run = 1
    while run < tokens:
        products = products * F.pad(products[..., :-run, :], (0, 0, run, 0), value=1.0)
        run *= 2
    return products.tril()


def _without_subnormals(products: Tensor) -> Tensor:
    """Zero in place of numbers so small that products with them are subnormal.

    Nothing is lost below the root of the smallest number, but matrix products on CPU become ten times slower.
    """
    least = torch.finfo(products.dtype).tiny ** 0.5
    return products.masked_fill((products > 0) & (products < least), 0.0)
