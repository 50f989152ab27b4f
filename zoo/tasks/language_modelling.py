"""`core/language_modelling`: the next symbol at each asked position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.kinds import IGNORE, NextId
from zoo.tasks.base import Batch, Task, batches
from zoo.tasks.config import LanguageModellingConfig
from zoo.tasks.losses import count_known, loss_of_tokens
from zoo.tasks.metrics import Bits, Mean, MetricCollection, Perplexity, collection


class LanguageModelling(Task[LanguageModellingConfig, NextId]):
    """Cross entropy of the next symbol; bits per symbol, perplexity, accuracy and exact match.

    Outputs are logits (B, N, K), targets int64 (B, N); positions whose target is `IGNORE` are not scored.
    `exact_match` is the share of sequences whose asked positions are all right: the score of a recall
    task. Label smoothing is part of `loss`, nowhere else.
    """

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy in nats over the asked positions, 0 without any. outputs: (B, N, K)."""
        return loss_of_tokens(outputs, batch["target"], label_smoothing=self.config.label_smoothing)

    def count(self, batch: Batch) -> int:
        """The number of asked positions."""
        return count_known(batch["target"])

    def metrics(self) -> MetricCollection:
        """`loss`, `bits_per_<unit>`, `perplexity`, `accuracy`, `exact_match`."""
        bits = {f"bits_per_{self.targets.unit}": Bits()}
        return collection(loss=Mean(), **bits, perplexity=Perplexity(), accuracy=Mean(), exact_match=Mean())

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, N, K)."""
        count = self.count(batch)
        if count == 0:
            return
        loss = loss.detach()
        metrics["loss"].update(loss, weight=count)
        smoothed = self.config.label_smoothing > 0
        nats = loss_of_tokens(outputs.detach(), batch["target"]) if smoothed else loss
        for name in (f"bits_per_{self.targets.unit}", "perplexity"):
            metrics[name].update(nats, weight=count)
        asked = batch["target"] != IGNORE  # (B, N)
        right = (outputs.argmax(dim=-1) == batch["target"]) & asked  # (B, N)
        metrics["accuracy"].update(right[asked].float())
        complete = right.sum(dim=1) == asked.sum(dim=1)  # (B,)
        metrics["exact_match"].update(complete[asked.any(dim=1)].float())

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """The likeliest next symbol at each kept position, a list per example. outputs: (B, N, K)."""
        answers = outputs.argmax(dim=-1)  # (B, N)
        if mask is None:
            return answers.tolist()
        return [row[keep].tolist() for row, keep in zip(answers, mask, strict=True)]

    def naive(self, train: Any) -> Tensor:
        """Log frequencies of the asked symbols of the train split, each counted once more. (1, 1, K)."""
        counts = torch.ones(self.targets.vocab, dtype=torch.float64)
        for batch in batches(train):
            asked = batch["target"][batch["target"] != IGNORE]
            counts += torch.bincount(asked, minlength=self.targets.vocab)
        return (counts / counts.sum()).log().float()[None, None]
