"""Stochastic depth."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Skip a residual branch for whole examples while training (Huang et al. 2016, https://arxiv.org/abs/1603.09382).

    What is kept is scaled up by 1/(1 - prob), so that nothing changes on average.
    """

    def __init__(self, prob: float) -> None:
        super().__init__()
        self.prob = prob

    def forward(self, branch: Tensor) -> Tensor:
        """branch: (B, ...) -> (B, ...)."""
        if not self.training or self.prob == 0.0:
            return branch
        kept = branch.new_empty(branch.shape[0], *[1] * (branch.dim() - 1)).bernoulli_(1 - self.prob)
        return branch * (kept / (1 - self.prob))

    def extra_repr(self) -> str:
        return f"prob={self.prob:g}"
