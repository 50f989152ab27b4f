"""`core/event_forecasting`: when does the next event come, and with which mark?

B batch, N events, M marks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zoo.kinds import NextEvent
from zoo.tasks.base import Batch, Task, batches
from zoo.tasks.event_mixture import NARROWEST, EventMixture
from zoo.tasks.metrics import Mean, MetricCollection, RootMean, collection

#: In typical gaps: a shorter gap counts as the first; an expected gap is at most the second.
SHORTEST, LONGEST = 1e-6, 1e6


class EventForecasting(Task[None, NextEvent]):
    """Negative log likelihood of the next event: of its time, and of its mark at that time.

    Outputs are mixtures (B, N, components, 3 + M), see `zoo.tasks.event_mixture`; targets float (B, N, 2),
    gap and mark, NaN where nothing is asked. `nll` is in nats per event, a density per unit of the data's
    time: in units c times as long it would be log c less. It is the sum of `nll_time`, -log p(gap), and
    `nll_mark`, -log p(mark | gap). `rmse_time` is the error of the expected gap; `accuracy` that of the
    likeliest mark while the time is not known. Sequences end with an event: there is no last, censored gap.
    """

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean negative log likelihood in nats over the asked events, 0 without any. (B, N, components, K)"""
        time, mark = self._nats(outputs, batch)
        return (time + mark).sum() / _asked(batch).sum().clamp_min(1)

    def count(self, batch: Batch) -> int:
        """The number of asked events."""
        return int(_asked(batch).sum())

    def metrics(self) -> MetricCollection:
        """`loss`, `nll`, `nll_time`, `nll_mark`, `rmse_time`, `accuracy`."""
        means = {name: Mean() for name in ("loss", "nll", "nll_time", "nll_mark", "accuracy")}
        return collection(**means, rmse_time=RootMean())

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, N, components, K)."""
        asked, count = _asked(batch), self.count(batch)
        if count == 0:
            return
        time, mark = (nats[asked] for nats in self._nats(outputs.detach(), batch))
        metrics["loss"].update(loss.detach(), weight=count)
        for name, nats in (("nll", time + mark), ("nll_time", time), ("nll_mark", mark)):
            metrics[name].update(nats)
        mixture = EventMixture.of(outputs.detach())
        target = batch["target"].float()[asked]
        metrics["rmse_time"].update((self._expected(mixture)[asked] - target[:, 0]).square())
        metrics["accuracy"].update((mixture.log_mark().argmax(-1)[asked] == target[:, 1]).float())

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """`{"after": expected gap, "mark": name or number, "probability": p}`, of what follows the last."""
        outputs = outputs.cpu()
        keep = torch.ones(outputs.shape[:2], dtype=torch.bool) if mask is None else mask.cpu()
        last = torch.where(keep, torch.arange(keep.shape[1]), 0).amax(1)  # (B,)
        mixture = EventMixture.of(outputs[torch.arange(len(last)), last])
        chances, marks = mixture.log_mark().exp().max(-1)
        names = self.targets.names
        found = zip(self._expected(mixture).tolist(), marks.tolist(), chances.tolist(), strict=True)
        return [{"after": gap, "mark": names[m] if names else m, "probability": p} for gap, m, p in found]

    def naive(self, train: Any) -> Tensor:
        """A log-normal renewal process and the frequencies of marks, each counted once more. (1, 1, 1, K)."""
        marks = torch.ones(self.targets.marks, dtype=torch.float64)
        logs = []
        for batch in batches(train):
            gap, mark = batch["target"][_asked(batch)].double().unbind(-1)
            marks += torch.bincount(mark.long(), minlength=self.targets.marks)
            logs.append(self._bounded(gap).log())
        log_gap = torch.cat(logs)
        mixture = EventMixture(
            weight=torch.zeros(1, dtype=torch.float64),
            mean=log_gap.mean()[None],
            deviation=log_gap.std(correction=0).clamp_min(2 * NARROWEST)[None],
            marks=(marks / marks.sum()).log()[None],
        )
        return mixture.outputs().float()[None, None]

    def answers(self, naive: Tensor, batch: Batch) -> Tensor:
        """The naive answer at every event: (B, N, 1, K)."""
        return naive.expand(*batch["target"].shape[:2], -1, -1)

    def _nats(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the time and of the mark, (B, N) each; 0 where nothing is asked."""
        asked = _asked(batch)
        # Of fixed shape, so that nothing waits for a GPU; what is not asked is replaced before any logarithm.
        gap, mark = batch["target"].where(asked.unsqueeze(-1), batch["target"].new_ones(())).unbind(-1)
        mark = mark.where(asked, 0.0).long()
        log_gap, log_mark = EventMixture.of(outputs).log_gap_and_mark(self._bounded(gap), mark)
        return -log_gap.where(asked, 0.0), -log_mark.where(asked, 0.0)

    def _bounded(self, gap: Tensor) -> Tensor:
        return gap.clamp_min(SHORTEST * self.targets.scale)

    def _expected(self, mixture: EventMixture) -> Tensor:
        return mixture.log_expected_gap().clamp_max(math.log(LONGEST * self.targets.scale)).exp()


def _asked(batch: Batch) -> Tensor:
    """Where an answer is asked for: bool (B, N)."""
    return ~batch["target"][..., 0].isnan()
