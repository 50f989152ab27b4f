"""What every task has: a loss, metrics, plain predictions and a naive answer to beat.

B batch, N tokens, K outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from zoo.data.batch import Batch, collate
from zoo.tasks.metrics import MetricCollection, values_of

C = TypeVar("C")
T = TypeVar("T")


class Task(ABC, Generic[C, T]):
    """Target kind -> loss and metrics.

    Args:
        config: the task's own parameters.
        targets: the target kind that the dataset declares.

    Attributes:
        played: names of the scores that `play` gives, beside the metrics.
    """

    played: tuple[str, ...] = ()

    def __init__(self, config: C, *, targets: T) -> None:
        self.config = config
        self.targets = targets

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The scalar that the optimiser sees: the mean over what is scored."""

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """How many answers are scored: the weight of this batch."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics, named without a split; always with `loss`."""

    @abstractmethod
    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch to `metrics`."""

    @abstractmethod
    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """Plain data, one item per example."""

    def play(self, model: Any, arena: Any) -> dict[str, float]:
        """Scores of a model that acts in `Splits.arena` instead of answering; none where a task only asks."""
        return {}

    @abstractmethod
    def naive(self, train: Any) -> Tensor:
        """The output of a model that ignores its inputs, fitted on `train`: (1, K) or (1, 1, K)."""

    @torch.no_grad()
    def baseline(self, train: Any, test: Any) -> dict[str, float]:
        """The naive answer fitted on `train`, scored on `test`: metric name -> value."""
        metrics, answer = self.metrics(), self.naive(train)
        for batch in batches(test):
            outputs = self.answers(answer, batch)
            self.update(metrics, outputs, batch, self.loss(outputs, batch))
        return values_of(metrics)

    def answers(self, naive: Tensor, batch: Batch) -> Tensor:
        """The naive answer for each example of a batch: outputs, (B, K) or (B, N, K)."""
        return naive.expand(*batch["target"].shape[: naive.dim() - 1], -1)


def batches(split: Any, size: int = 512) -> Iterator[Batch]:
    """A split in order, in batches: fast where it has `__getitems__`."""
    for start in range(0, len(split), size):
        indices = list(range(start, min(start + size, len(split))))
        if hasattr(split, "__getitems__"):
            yield collate(split.__getitems__(indices))
        else:
            yield collate([split[index] for index in indices])
