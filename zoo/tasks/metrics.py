"""The metrics that tasks use, from torchmetrics and a few of our own. All of torchmetrics comes in here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo import torchvision_shim

torchvision_shim.install()

from torchmetrics import Metric, MetricCollection, R2Score  # noqa: E402
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score  # noqa: E402


class Mean(Metric):
    """A weighted mean. A NaN shows; torchmetrics' own drops it, or with "disable" drops the weights (1.9)."""

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("weight", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: float = 1.0) -> None:
        """Add the elements of `value`, each with this weight."""
        self.total += weight * value.sum()
        self.weight += weight * value.numel()

    def compute(self) -> Tensor:
        return self.total / self.weight


class Bits(Mean):
    """A mean of nats, in bits."""

    def compute(self) -> Tensor:
        return super().compute() / math.log(2)


class Perplexity(Mean):
    """exp of a mean of nats."""

    def compute(self) -> Tensor:
        return super().compute().exp()


class R2(R2Score):
    """R2 averaged over outputs; NaN where it is not defined (fewer than two examples)."""

    def compute(self) -> Tensor:
        return super().compute() if self.total >= 2 else torch.tensor(float("nan"), device=self.total.device)


def collection(**metrics: torch.nn.Module) -> MetricCollection:
    """A collection whose members are updated one by one, each with its own arguments."""
    return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]


def values_of(metrics: MetricCollection) -> dict[str, float]:
    """The metrics computed, as floats."""
    return {name: float(value) for name, value in metrics.compute().items()}


__all__ = [
    "R2",
    "Bits",
    "Mean",
    "MetricCollection",
    "MulticlassAccuracy",
    "MulticlassF1Score",
    "Perplexity",
    "collection",
    "values_of",
]
