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


class ChunkGates(NamedTuple):
    """What the products of a chunk need of `GateProducts`.

    read: (..., C, 2), what is kept of W and of S where token t reads; share: (..., C, C), of each gradient.
    mix: (..., 2, 2), what W and S after the chunk hold of W and S before; write: (..., C, 2), of gradients.
    """

    read: Tensor
    share: Tensor
    mix: Tensor
    write: Tensor


def gate_products(alpha: Tensor, eta: Tensor, theta: Tensor, valid: Tensor | None = None) -> GateProducts:
    """Products of the gates over every stretch of a chunk.

    alpha: how much is forgotten, eta: how much momentum stays, theta: the step; (..., C) each.
    valid: bool (..., C); where False a token is the identity: it changes neither weights nor momentum.

    Exact where a gate is 0 or 1: nothing is divided and no logarithm taken.

    Raises:
        ValueError: shapes or types that do not fit together, no tokens.
    """
    checks.gates_fit(alpha, eta, theta, valid)
    kept, eta, theta = _identities(alpha, eta, theta, valid)
    keep, carry, momentum, share, inertia = _unrolled(kept, eta, theta, valid)
    return GateProducts(keep, carry, momentum, share, inertia * theta.unsqueeze(-2))


def chunk_gates(
    alpha: Tensor, eta: Tensor, theta: Tensor, valid: Tensor | None, *, before: bool, reading: bool
) -> ChunkGates:
    """The same in the shapes that a chunk computes with.

    before: token t reads what token t - 1 left. reading: else there are no tokens that read.
    """
    kept, eta, theta = _identities(alpha, eta, theta, valid)
    keep, carry, momentum, share, inertia = _unrolled(kept, eta, theta, valid)
    kept_of = (keep[..., -1], carry[..., -1], torch.zeros_like(keep[..., -1]), momentum[..., -1])
    mix = torch.stack(kept_of, -1).unflatten(-1, (2, 2))
    write = torch.stack((share[..., -1, :], inertia[..., -1, :] * theta), -1)
    if before:
        keep, carry = F.pad(keep[..., :-1], (1, 0), value=1.0), F.pad(carry[..., :-1], (1, 0))
        share = F.pad(share[..., :-1, :], (0, 0, 1, 0))
    read = torch.stack((keep, carry), -1)
    if not reading:
        read, share = read[..., :0, :], share[..., :0, :]
    return ChunkGates(read, share, mix, write)


def _identities(
    alpha: Tensor, eta: Tensor, theta: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """1 - alpha, eta and theta, those of tokens that are not valid without effect."""
    if valid is None:
        return 1 - alpha, eta, theta
    hidden = ~valid
    return (
        (1 - alpha).masked_fill(hidden, 1.0),
        eta.masked_fill(hidden, 1.0),
        theta.masked_fill(hidden, 0.0),
    )


def _unrolled(
    kept: Tensor, eta: Tensor, theta: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """keep, carry, momentum and share, as in `GateProducts`, and the products of eta, (..., C, C)."""
    one = torch.eye(kept.shape[-1], dtype=kept.dtype, device=kept.device)
    inertia = _without_subnormals(_carried(eta, one))
    keep = _without_subnormals(_carried(kept, kept[..., :1, None] * one[:, :1]))
    # Momentum moves the weights at every token that is valid.
    arriving = inertia if valid is None else inertia.masked_fill(~valid.unsqueeze(-1), 0.0)
    moved = _without_subnormals(_carried(kept, arriving))
    first = eta[..., :1]
    share = moved * theta.unsqueeze(-2)
    return keep.squeeze(-1), moved[..., 0] * first, inertia[..., 0] * first, share, inertia


def _carried(factors: Tensor, arriving: Tensor) -> Tensor:
    """y_t = factor_t y_{t-1} + arriving_t: (..., C), (..., C, K) -> (..., C, K).

    The solution of a system with ones on the diagonal and -factor_t left of it: solving it multiplies factor
    by factor, and so does its gradient, zeros included.
    """
    if torch.compiler.is_exporting():
        return _products_doubling(factors) @ arriving
    steps = torch.diag_embed(-factors[..., 1:], offset=-1)  # its diagonal counts as ones
    arriving = arriving.expand(*factors.shape, arriving.shape[-1])
    return torch.linalg.solve_triangular(steps, arriving, upper=False, unitriangular=True)


def _products_doubling(factors: Tensor) -> Tensor:
    """(..., C) -> (..., C, C): the factors j+1 to t multiplied at (t, j), 1 where t = j, 0 above.

    The inverse of that system without a solver, which ONNX has not: runs of 1, 2, 4, ... factors.
    """
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
    if torch.compiler.is_exporting():
        return products
    known = products.detach()  # the gradient passes, also where a product is zero
    least = torch.finfo(products.dtype).tiny ** 0.5
    return products + F.threshold(known, least, 0.0).sub_(known)
