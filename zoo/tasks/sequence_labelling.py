"""`core/sequence_labelling`: a label for each token; models may see both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.kinds import IGNORE, Labels
from zoo.tasks.base import Batch, Task, batches
from zoo.tasks.config import SequenceLabellingConfig
from zoo.tasks.losses import count_known, loss_of_tokens
from zoo.tasks.metrics import Mean, MetricCollection, MulticlassAccuracy, MulticlassF1Score, collection


class SequenceLabelling(Task[SequenceLabellingConfig, Labels]):
    """Cross entropy; accuracy and macro F1 over tokens, and exact match over sequences.

    Outputs are logits (B, N, K), targets int64 (B, N); tokens whose target is `IGNORE` are not scored.
    Label smoothing is part of `loss`, nowhere else.
    """

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy in nats over the asked tokens, 0 without any. outputs: (B, N, K)."""
        return loss_of_tokens(outputs, batch["target"], label_smoothing=self.config.label_smoothing)

    def count(self, batch: Batch) -> int:
        """The number of asked tokens."""
        return count_known(batch["target"])

    def metrics(self) -> MetricCollection:
        """`loss`, `accuracy`, `f1_macro`, `exact_match`."""
        labels = self.targets.count
        return collection(
            loss=Mean(),
            accuracy=MulticlassAccuracy(labels, average="micro", validate_args=False),
            f1_macro=MulticlassF1Score(labels, average="macro", validate_args=False),
            exact_match=Mean(),
        )

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, N, K)."""
        asked = batch["target"] != IGNORE  # (B, N)
        if not asked.any():
            return
        answers = outputs.argmax(dim=-1)  # (B, N)
        metrics["loss"].update(loss.detach(), weight=self.count(batch))
        metrics["accuracy"].update(answers[asked], batch["target"][asked])
        metrics["f1_macro"].update(answers[asked], batch["target"][asked])
        right = (answers == batch["target"]) | ~asked
        metrics["exact_match"].update(right.all(dim=1)[asked.any(dim=1)].float())

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """The label (its name, where there are names) of each kept token. outputs: (B, N, K)."""
        answers = outputs.argmax(dim=-1)  # (B, N)
        keep = torch.ones_like(answers, dtype=torch.bool) if mask is None else mask
        names: Sequence[Any] = self.targets.names or range(self.targets.count)
        return [[names[i] for i in row[kept].tolist()] for row, kept in zip(answers, keep, strict=True)]

    def naive(self, train: Any) -> Tensor:
        """Log frequencies of the labels of the train split, each counted once more. (1, 1, K)."""
        counts = torch.ones(self.targets.count, dtype=torch.float64)
        for batch in batches(train):
            asked = batch["target"][batch["target"] != IGNORE]
            counts += torch.bincount(asked, minlength=self.targets.count)
        return (counts / counts.sum()).log().float()[None, None]
