"""sigmaReparam and attention entropy as pure functions: tensors in, tensors out (Zhai et al. 2023).

m rows (outputs), n columns (inputs) of a weight as a matrix, ... any batch of matrices, T keys, H heads.
Spectral arithmetic is float32 (float64 for float64 weights), also under autocast.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.precision import full_precision

#: Singular values below this count as this, so that a zero matrix gives zeros and never NaN.
EPS = 1e-12


def power_iterate(weight: Tensor, u: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
    """n steps of the power iteration, v = W u / |W u| and u = W^T v / |W^T v|; no gradient.

    Args:
        weight: (..., m, n). u: (..., n), need not be a unit vector.

    Returns:
        u (..., n) and v (..., m), unit vectors (zeros where W u is zero), in float32 or float64.

    Raises:
        ValueError: n is less than 1, or the shapes do not fit.
    """
    if n < 1:
        raise ValueError(f"power_iterate: n must be at least 1, got {n}")
    _fits("power_iterate", weight, u=u)
    with torch.no_grad(), full_precision(weight.device):
        weight, u = _wide(weight), _wide(u).to(_wide(weight).dtype)
        for _ in range(n):
            v = F.normalize(_matvec(weight, u), dim=-1, eps=EPS)
            u = F.normalize(_matvec(weight.mT, v), dim=-1, eps=EPS)
        return u, v


def spectral_sigma(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The estimate of the largest singular value, v^T W u; its gradient for W is v u^T.

    Args:
        weight: (..., m, n). u: (..., n), v: (..., m), unit vectors, taken as constants.

    Returns:
        (...), float32 or float64: at most the largest singular value, and equal to it once u and v converged.

    Raises:
        ValueError: the shapes do not fit.
    """
    _fits("spectral_sigma", weight, u=u, v=v)
    with full_precision(weight.device):
        weight = _wide(weight)
        u, v = u.detach().to(weight.dtype), v.detach().to(weight.dtype)
        return (v * _matvec(weight, u)).sum(-1)


def sigma_reparam_weight(weight: Tensor, gamma: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The reparametrised weight, gamma / sigma(W) W (section 3.2 of the paper), of the weight's dtype.

    Its gradients, with G that of the result: <G, W> / sigma for gamma, and
    gamma / sigma (G - <G, W> / sigma v u^T) for W, which is orthogonal to W: the result does not depend on
    the scale of W.

    Args:
        weight: (..., m, n). gamma: (...), the norm it shall have. u: (..., n), v: (..., m).

    Raises:
        ValueError: the shapes do not fit.
    """
    _fits("sigma_reparam_weight", weight, gamma=gamma, u=u, v=v)
    return _Reparametrized.apply(weight, gamma, u, v)[0]


class _Reparametrized(torch.autograd.Function):
    """The closed form in place of autograd's, which passes over each matrix about twice as often."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, gamma: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(weight.device):
            sigma = spectral_sigma(weight, u, v)
            scale = gamma.to(sigma.dtype) / sigma.clamp_min(EPS)
            return (_wide(weight) * scale[..., None, None]).to(weight.dtype), sigma

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weight, gamma, u, v, sigma = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative must know that sigma depends on W
            sigma = spectral_sigma(weight, u, v)
        with full_precision(weight.device):
            wide, grad = _wide(weight), grads[0].to(sigma.dtype)
            size = sigma.clamp_min(EPS)
            along = _inner(grad, wide) / size  # <G, W> / sigma
            scale = gamma.to(sigma.dtype) / size
            # Below EPS sigma is constant.
            turn = torch.where(sigma >= EPS, -scale * along, 0.0).unsqueeze(-1) * v  # (..., m)
            grad_weight = (grad * scale[..., None, None]).addcmul_(
                turn.unsqueeze(-1), u.to(turn.dtype).unsqueeze(-2)
            )
        return grad_weight.to(weight.dtype), along.to(gamma.dtype), None, None


def attention_entropy(
    probs: Tensor | None = None,
    *,
    logits: Tensor | None = None,
    mask: Tensor | None = None,
    reduce: Literal["head", "mean"] | None = "head",
    normalized: bool = False,
) -> Tensor:
    """How spread out attention is: Ent(A_i) = - sum_j A_ij log A_ij in nats, 0 .. log T (section 3.3).

    Args:
        probs: (B, H, N, T), rows that sum to one; or
        logits: (B, H, N, T), from which the entropy is lse - sum_j A_ij a_ij, without ever taking a logarithm
            of a probability that rounded to zero. -inf marks a key that is not seen.
        mask: bool (B, N), True = keep: which queries count; padded ones say nothing.
        reduce: "head": the mean over batch and queries, (H,). "mean": over heads too, a scalar. `None`: every
            row, (B, H, N), NaN for those that do not count.
        normalized: divide by log(keys that the query sees), so that a causal row and a full one compare: 1 is
            uniform. A row that sees fewer than two keys has no such number and does not count.

    Raises:
        ValueError: both or none of probs and logits, another shape, type or `reduce`, negative probabilities,
            or a mask of another shape.
    """
    given = probs if logits is None else logits
    if given is None or (probs is not None and logits is not None):
        raise ValueError("attention_entropy: give either probs or logits=")
    if given.dim() != 4 or not given.is_floating_point():
        raise ValueError(
            f"attention_entropy: expected (B, H, N, T) of floating point, got {given.dtype} of shape "
            f"{tuple(given.shape)}"
        )
    if reduce not in ("head", "mean", None):
        raise ValueError(f"attention_entropy: reduce must be 'head', 'mean' or None, got {reduce!r}")
    if logits is not None:
        logits = _wide(logits)
        seen = logits != -math.inf
        lse = torch.logsumexp(logits, -1)
        share = torch.exp(logits - lse.unsqueeze(-1).nan_to_num(neginf=0.0))
        entropy = lse - (share * logits.masked_fill(~seen, 0.0)).sum(-1)
    else:
        assert probs is not None
        if bool((probs < 0).any()):
            raise ValueError("attention_entropy: probabilities below 0; give logits as logits=")
        probs = _wide(probs)
        seen = probs > 0
        entropy = -torch.xlogy(probs, probs).sum(-1)
    keys = seen.sum(-1)
    counts = keys > (1 if normalized else 0)
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape != (entropy.shape[0], entropy.shape[-1]):
            raise ValueError(
                f"attention_entropy: expected a mask of bool {(entropy.shape[0], entropy.shape[-1])}, True = "
                f"keep, got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        counts = counts & mask.unsqueeze(1)
    if normalized:
        entropy = entropy / keys.clamp_min(2).log()
    # Rounding may put a row that looks at one key only a hair below zero.
    entropy = entropy.clamp_min(0.0)
    if reduce is None:
        return entropy.masked_fill(~counts, math.nan)
    over = (0, 2) if reduce == "head" else (0, 1, 2)
    return entropy.masked_fill(~counts, 0.0).sum(over) / counts.sum(over)


def entropy_lower_bound(sigma_total: Tensor | float, keys: int) -> Tensor:
    """The least entropy that a row of softmax attention over T keys can have (theorem 3.1), in nats.

    log(1 + (T-1) b) + s sqrt(T (T-1)) b / (1 + (T-1) b) with b = exp(-s sqrt(T / (T-1))), for
    s = |W_K W_Q^T|_2 |X X^T|_2: any bound on the 2-norm of a row of logits. With scaled attention, divide s
    by sqrt(d). It is attained: by one logit s sqrt((T-1)/T) and the others -s / sqrt(T (T-1)).

    Args:
        sigma_total: s, at least 0, of any shape. keys: T, at least 2.

    Raises:
        ValueError: a negative s, or fewer than two keys (one key has no other to look at: entropy 0).
    """
    s = torch.as_tensor(sigma_total, dtype=torch.float64)
    if keys < 2:
        raise ValueError(f"entropy_lower_bound: expected at least 2 keys, got {keys}")
    if bool((s < 0).any()):
        raise ValueError(f"entropy_lower_bound: sigma_total is a norm, at least 0; got {s.min().item():g}")
    others = (keys - 1) * torch.exp(-s * math.sqrt(keys / (keys - 1)))  # (T-1) b
    gap = s * math.sqrt(keys / (keys - 1))
    return torch.log1p(others) + gap * others / (1 + others)


def _fits(function: str, weight: Tensor, **given: Tensor) -> None:
    """weight: (..., m, n); gamma (...), u (..., n) and v (..., m), those that are given."""
    if weight.dim() < 2:
        raise ValueError(f"{function}: expected a weight (..., m, n), got {tuple(weight.shape)}")
    *batch, rows, columns = weight.shape
    expected = {"gamma": (*batch,), "u": (*batch, columns), "v": (*batch, rows)}
    for name, tensor in given.items():
        if tensor.shape != expected[name]:
            raise ValueError(
                f"{function}: expected {name} of shape {expected[name]} for a weight of "
                f"{tuple(weight.shape)}, got {tuple(tensor.shape)}"
            )


def _matvec(weight: Tensor, x: Tensor) -> Tensor:
    """(..., m, n), (..., n) -> (..., m)."""
    if weight.shape[:-2].numel() == 1:  # one matrix: much faster than a batch of one
        return (weight.reshape(weight.shape[-2:]) @ x.reshape(-1)).view(weight.shape[:-1])
    return (weight @ x.unsqueeze(-1)).squeeze(-1)


def _inner(one: Tensor, other: Tensor) -> Tensor:
    """(..., m, n) twice -> (...), the sums of their products."""
    if one.shape[:-2].numel() == 1:  # as above
        return torch.dot(one.reshape(-1), other.reshape(-1)).view(one.shape[:-2])
    return (one * other).sum((-2, -1))


def _wide(x: Tensor) -> Tensor:
    """In float32 where it is narrower."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
