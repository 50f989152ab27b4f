"""sigmaReparam as the paper's pseudo-code has it: one layer, one step, everything spelt out.

Slow and obvious; the tests hold `zoo_sigmareparam.functional` and the parametrization to it. A layer's state:
W (m, n), gamma, and u (n,), which the training forward moves.
"""

from __future__ import annotations

import torch
from torch import Tensor


def one_iteration(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """v = W u / |W u|, then u = W^T v / |W^T v|, as constants. weight: (m, n), u: (n,) -> u (n,), v (m,)."""
    weight = weight.detach()
    v = weight @ u
    v = v / max(v.norm().item(), 1e-12)
    u = weight.T @ v
    u = u / max(u.norm().item(), 1e-12)
    return u, v


def reparametrised(weight: Tensor, gamma: Tensor, u: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
    """The weight of one forward, and the u that is kept: the new one in training, the old one otherwise."""
    new_u, v = one_iteration(weight, u)
    sigma = v @ weight @ new_u
    return gamma * weight / sigma, new_u if training else u


def entropy(probs: Tensor, mask: Tensor) -> Tensor:
    """Mean over the rows that count of - sum_j p_j log p_j. probs: (B, H, N, T), mask: bool (B, N) -> ()."""
    rows = []
    for b in range(probs.shape[0]):
        for i in range(probs.shape[2]):
            if mask[b, i]:
                for h in range(probs.shape[1]):
                    positive = probs[b, h, i][probs[b, h, i] > 0]
                    rows.append(-(positive * positive.log()).sum())
    return torch.stack(rows).mean()
