"""The metrics that tasks use, from torchmetrics and a few of our own. All of torchmetrics comes in here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo import torchvision_shim

torchvision_shim.install()

from torchmetrics import Metric, MetricCollection  # noqa: E402
from torchmetrics.classification import (  # noqa: E402
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)


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


class RootMean(Mean):
    """The root of a mean, of squared errors."""

    def compute(self) -> Tensor:
        return super().compute().sqrt()


class WeightedSum(Metric):
    """The weighted sum of several means, e.g. of the losses of several questions."""

    total: Tensor
    count: Tensor

    def __init__(self, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.weights = weights
        self.add_state("total", torch.zeros(len(weights)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(weights)), dist_reduce_fx="sum")

    def update(self, means: Tensor, counts: list[int]) -> None:
        """Add a batch: a mean of each (K,), and over how many it is."""
        sizes = self.count.new_tensor(counts)
        self.total += means * sizes
        self.count += sizes

    def compute(self) -> Tensor:
        """A sum of nothing, e.g. of values that were never measured, adds 0."""
        means = self.total / self.count.clamp_min(1)
        return (means * means.new_tensor(self.weights)).sum()


class R2(Metric):
    """1 - squared error / squared deviation of each output, averaged over those where it is defined.

    Targets that are NaN do not count. An output is left out where fewer than two of its targets are
    known; NaN where that leaves none. One whose targets do not vary has 1 if it is right, else 0.
    """

    known: Tensor
    sum: Tensor
    squares: Tensor
    error: Tensor

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        for name in ("known", "sum", "squares", "error"):
            self.add_state(name, torch.zeros(outputs), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch; both (B, K)."""
        known = ~targets.isnan()
        targets = targets.where(known, 0.0)
        self.known += known.sum(dim=0)
        self.sum += targets.sum(dim=0)
        self.squares += targets.square().sum(dim=0)
        self.error += (outputs - targets).square().where(known, 0.0).sum(dim=0)

    def compute(self) -> Tensor:
        deviation = self.squares - self.sum.square() / self.known.clamp_min(1)
        varies = deviation > 1e-6 * self.squares  # below that, float32 sees rounding only
        ratio = self.error / deviation.where(varies, 1.0)
        score = torch.where(varies, 1 - ratio, (self.error == 0).to(ratio.dtype))
        return score[self.known >= 2].mean()


class MeanIoU(MulticlassJaccardIndex):
    """Intersection over union of each class, over all that was counted; the mean over classes that occur."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average="macro", validate_args=False)


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
    "MeanIoU",
    "MetricCollection",
    "MulticlassAccuracy",
    "MulticlassF1Score",
    "Perplexity",
    "RootMean",
    "WeightedSum",
    "collection",
    "values_of",
]
