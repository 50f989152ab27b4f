"""What becomes of a token's surprise by the end of each later token: data alone, all chunks at once.

C tokens of a chunk; "..." any leading dimensions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


class Gates(NamedTuple):
    """Of each token, (..., C), as in `gate_products`."""

    alpha: Tensor
    eta: Tensor
    theta: Tensor
    valid: Tensor | None


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
    alpha: Tensor,
    eta: Tensor,
    theta: Tensor,
    valid: Tensor | None,
    *,
    before: bool,
    reading: bool,
    plain: bool = False,
) -> ChunkGates:
    """The same in the shapes that a chunk computes with.

    before: token t reads what token t - 1 left. reading: else there are no tokens that read.
    plain: differentiable in any way torch knows, and slower.
    """
    kept, eta, theta = _identities(alpha, eta, theta, valid)
    if plain or torch.compiler.is_compiling():
        keep, carry, momentum, share, inertia = _unrolled(kept, eta, theta, valid)
        last = inertia[..., -1, :]
    else:
        keep, carry, momentum, share, last = _Unrolled.apply(kept, eta, theta, valid)
    kept_of = (keep[..., -1], carry[..., -1], torch.zeros_like(keep[..., -1]), momentum[..., -1])
    mix = torch.stack(kept_of, -1).unflatten(-1, (2, 2))
    write = torch.stack((share[..., -1, :], last * theta), -1)
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
    fading, inertia = _products_doubling(kept), _products_doubling(eta)
    moved = _normal(fading @ _arriving(inertia, valid))
    first = eta[..., :1]
    keep = fading[..., 0] * kept[..., :1]
    return keep, moved[..., 0] * first, inertia[..., 0] * first, moved * theta.unsqueeze(-2), inertia


class _Unrolled(torch.autograd.Function):
    """The same with a backward of its own, of the products of eta the last row alone, (..., C)."""

    @staticmethod
    def forward(
        ctx: Any, kept: Tensor, eta: Tensor, theta: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, ...]:
        fading, inertia = _products(torch.stack((kept, eta))).unbind(0)
        moved = fading @ _arriving(inertia, valid)
        _without_subnormals(moved, out=moved)
        first = eta[..., :1]
        keep = fading[..., 0] * kept[..., :1]
        ctx.save_for_backward(eta, theta, valid, fading, inertia, moved, keep)
        last = inertia[..., -1, :].clone()
        return keep, moved[..., 0] * first, inertia[..., 0] * first, moved * theta.unsqueeze(-2), last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g_keep, g_carry, g_momentum, g_share, g_last = grads
        eta, theta, valid, fading, inertia, moved, keep = ctx.saved_tensors
        first = eta[..., :1]
        g_theta = (g_share * moved).sum(-2)
        g_moved = g_share * theta.unsqueeze(-2)
        g_moved[..., 0].addcmul_(g_carry, first)
        # A factor s of fading stands between what comes after it, (t, s), and what was moved up to s - 1.
        g_arriving, g_keep = fading.mT @ g_moved, (fading.mT @ g_keep.unsqueeze(-1)).squeeze(-1)
        later = (g_arriving[..., 1:, :] * moved[..., :-1, :]).sum(-1) + g_keep[..., 1:] * keep[..., :-1]
        g_kept = torch.cat((g_keep[..., :1], later), -1)
        g_inertia = _arriving(g_arriving, valid)
        g_inertia[..., -1, :] += g_last
        g_inertia[..., 0].addcmul_(g_momentum, first)
        later = ((inertia.mT @ g_inertia)[..., 1:, :] * inertia[..., :-1, :]).sum(-1)
        g_first = (g_carry * moved[..., 0] + g_momentum * inertia[..., 0]).sum(-1, keepdim=True)
        return g_kept, torch.cat((g_first, later), -1), g_theta, None


def _arriving(inertia: Tensor, valid: Tensor | None) -> Tensor:
    """Momentum moves the weights at every token that is valid."""
    return inertia if valid is None else inertia.masked_fill(~valid.unsqueeze(-1), 0.0)


def _products(factors: Tensor) -> Tensor:
    """(..., C) -> (..., C, C): the factors j+1 to t multiplied at (t, j), 1 where t = j, 0 above.

    Nothing is divided and no logarithm taken, so that it is exact where a factor is zero.
    """
    tokens = factors.shape[-1]
    products = factors.new_zeros(*factors.shape, tokens)
    products.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    for t in range(1, tokens):
        torch.mul(products[..., t - 1, :t], factors[..., t, None], out=products[..., t, :t])
    return _without_subnormals(products, out=products)


def _products_doubling(factors: Tensor) -> Tensor:
    """The same in ways that torch can differentiate in any way, and trace: runs of 1, 2, 4, ... factors."""
    tokens = factors.shape[-1]
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=factors.device).tril(-1)
    products = torch.where(later, factors.unsqueeze(-1), 1.0)  # (t, j): the factor t, from j + 1 on
    run = 1
    while run < tokens:
        products = products * F.pad(products[..., :-run, :], (0, 0, run, 0), value=1.0)
        run *= 2
    return _normal(products.tril())


def _normal(products: Tensor) -> Tensor:
    """Without subnormal numbers; the gradient passes, also where a product is zero."""
    if torch.compiler.is_exporting():
        return products
    known = products.detach()
    return products + (_without_subnormals(known) - known)


def _without_subnormals(products: Tensor, out: Tensor | None = None) -> Tensor:
    """Zero in place of numbers so small that products with them are subnormal.

    Nothing is lost below the root of the smallest number, but matrix products on CPU become ten times slower.
    """
    least = torch.finfo(products.dtype).tiny ** 0.5
    if out is not None:
        return torch.ops.aten.hardshrink.out(products, least, out=out)
    return F.hardshrink(products, least)
