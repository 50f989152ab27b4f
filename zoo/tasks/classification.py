"""`core/classification`: one class per example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.kinds import IGNORE, Classes
from zoo.tasks.base import Batch, Task, batches
from zoo.tasks.config import ClassificationConfig
from zoo.tasks.losses import count_known, loss_of_known
from zoo.tasks.metrics import Mean, MetricCollection, MulticlassAccuracy, MulticlassF1Score, collection


class Classification(Task[ClassificationConfig, Classes]):
    """Cross entropy; accuracy and the F1 score averaged over classes.

    Outputs are logits (B, K), targets int64 (B,). A target that is `IGNORE` is not known: it neither trains
    nor counts. Label smoothing is part of `loss`, nowhere else.
    """

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy in nats over what is known, 0 without any. outputs: (B, K)."""
        return loss_of_known(outputs, batch["target"], label_smoothing=self.config.label_smoothing)

    def count(self, batch: Batch) -> int:
        """One answer per known class."""
        return count_known(batch["target"])

    def metrics(self) -> MetricCollection:
        """`loss`, `accuracy`, `f1_macro`."""
        classes = self.targets.count
        return collection(
            loss=Mean(),
            accuracy=MulticlassAccuracy(classes, average="micro", validate_args=False),
            f1_macro=MulticlassF1Score(classes, average="macro", validate_args=False),
        )

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, K)."""
        known = batch["target"] != IGNORE
        if not known.any():
            return
        answers, targets = outputs.argmax(dim=-1)[known], batch["target"][known]
        metrics["loss"].update(loss.detach(), weight=len(targets))
        metrics["accuracy"].update(answers, targets)
        metrics["f1_macro"].update(answers, targets)

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """`{"class": name or number, "probability": p}` per example. outputs: (B, K)."""
        best, index = outputs.float().softmax(dim=-1).max(dim=-1)
        names = self.targets.names
        return [
            {"class": names[i] if names else i, "probability": p}
            for i, p in zip(index.tolist(), best.tolist(), strict=True)
        ]

    def naive(self, train: Any) -> Tensor:
        """The majority class: log frequencies of the train split, each class counted once more. (1, K)."""
        counts = torch.ones(self.targets.count, dtype=torch.float64)
        for batch in batches(train):
            known = batch["target"][batch["target"] != IGNORE]
            counts += torch.bincount(known, minlength=self.targets.count)
        return (counts / counts.sum()).log().float()[None]
