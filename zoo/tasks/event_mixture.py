"""Densities of the next event as a mixture of (log-normal gap x categorical mark). K components, M marks.

Outputs are (..., K, 3 + M): of each component the logit of its weight, mean and raw deviation of the log gap,
and the logits of its marks. With log t ~ N(mu_k, s_k) in component k,

    p(t, m) = sum_k w_k LogNormal(t; mu_k, s_k) p_k(m)

Shchur, Bilos and Guennemann 2020 (arXiv:1909.12127), section 3.1, eq. 2 with p_k = p for all k.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: The least deviation of a log gap: a density stays finite however often a gap repeats.
NARROWEST = 1e-2


class EventMixture(NamedTuple):
    """log w, mu, s, (..., K) each, and the log probabilities of marks by component, (..., K, M)."""

    weight: Tensor
    mean: Tensor
    deviation: Tensor
    marks: Tensor

    @classmethod
    def of(cls, outputs: Tensor) -> EventMixture:
        """Read a head's outputs (..., K, 3 + M)."""
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        return cls(
            weight=outputs[..., 0].log_softmax(-1),
            mean=outputs[..., 1],
            deviation=F.softplus(outputs[..., 2]) + NARROWEST,
            marks=outputs[..., 3:].log_softmax(-1),
        )

    def outputs(self) -> Tensor:
        """The outputs that `of` reads as this mixture; deviations must exceed NARROWEST."""
        raw = (self.deviation - NARROWEST).expm1().log()  # the inverse of softplus
        return torch.cat([torch.stack([self.weight, self.mean, raw], dim=-1), self.marks], dim=-1)

    def log_joint(self, gap: Tensor) -> Tensor:
        """log w_k LogNormal(gap; mu_k, s_k) of each component: gaps (...) -> (..., K)."""
        log_gap = gap.unsqueeze(-1).log()
        standard = (log_gap - self.mean) / self.deviation
        return self.weight - log_gap - self.deviation.log() - 0.5 * (standard**2 + math.log(2 * math.pi))

    def log_gap_and_mark(self, gap: Tensor, mark: Tensor) -> tuple[Tensor, Tensor]:
        """log p(gap) and log p(mark | gap): gaps above 0 and marks int64, both (...) -> (...), (...)."""
        joint = self.log_joint(gap)  # (..., K)
        log_gap = joint.logsumexp(-1)
        index = mark[..., None, None].expand(*joint.shape, 1)
        of_mark = self.marks.expand(*joint.shape, -1).gather(-1, index).squeeze(-1)  # (..., K)
        return log_gap, (joint + of_mark).logsumexp(-1) - log_gap

    def log_expected_gap(self) -> Tensor:
        """log E[gap], (...)."""
        return (self.weight + self.mean + self.deviation**2 / 2).logsumexp(-1)

    def log_mark(self) -> Tensor:
        """Log probabilities of the next mark while its time is not known, (..., M)."""
        return (self.weight.unsqueeze(-1) + self.marks).logsumexp(-2)
