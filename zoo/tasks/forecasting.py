"""`core/forecasting`: the steps that follow a series."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from zoo.kinds import Forecast
from zoo.tasks.base import Batch, Task
from zoo.tasks.config import ForecastingConfig
from zoo.tasks.losses import count_measured, loss_of_measured
from zoo.tasks.metrics import Mean, MetricCollection, collection

#: Into how many parts of the horizon errors are split.
GROUPS = 4


class Forecasting(Task[ForecastingConfig, Forecast]):
    """Squared, absolute or Huber loss; MSE and MAE, overall and for parts of the horizon.

    Outputs and targets are (B, horizon, C), on the scale that the dataset gives: standardised on train. A
    target that is NaN neither trains nor counts. `mse_h7_12` is the MSE of the steps 7 to 12.
    """

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean over steps and channels. outputs: (B, horizon, C)."""
        return loss_of_measured(outputs, batch["target"], loss=self.config.loss)

    def count(self, batch: Batch) -> int:
        """One answer per step and channel."""
        return count_measured(batch["target"])

    def metrics(self) -> MetricCollection:
        """`loss`, `mse`, `mae`, and `mse_h<first>_<last>` for at most four parts of the horizon."""
        parts: dict[str, torch.nn.Module] = {name: Mean() for name in self.parts()}
        return collection(loss=Mean(), mse=Mean(), mae=Mean(), **parts)

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, horizon, C)."""
        target = batch["target"].float()
        error = outputs.detach().float() - target  # (B, horizon, C)
        measured = ~target.isnan()
        metrics["loss"].update(loss.detach(), weight=self.count(batch))
        metrics["mse"].update(error[measured].square())
        metrics["mae"].update(error[measured].abs())
        for name, steps in self.parts().items():
            metrics[name].update(error[:, steps][measured[:, steps]].square())

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """`{channel: [value of each step]}` per example. outputs: (B, horizon, C)."""
        names = self.targets.names or tuple(f"channel_{i}" for i in range(self.targets.channels))
        return [dict(zip(names, series.T.tolist(), strict=True)) for series in outputs.float()]

    def naive(self, train: Any) -> Tensor:
        """Nothing is fitted: the last value of each channel goes on. (1, 1, 1)."""
        return torch.zeros(1, 1, 1)

    def answers(self, naive: Tensor, batch: Batch) -> Tensor:
        """The last value of the input's first C channels, at each step: (B, horizon, C)."""
        return last_values(batch, channels=self.targets.channels).expand(-1, self.targets.horizon, -1)

    def parts(self) -> dict[str, slice]:
        """The steps of each part of the horizon, by the name of its metric; none for a single step."""
        horizon = self.targets.horizon
        groups = min(GROUPS, horizon)
        edges = [round(i * horizon / groups) for i in range(groups + 1)]
        spans = [slice(a, b) for a, b in itertools.pairwise(edges)] if horizon > 1 else []
        return {
            f"mse_h{s.stop}" if s.stop - s.start == 1 else f"mse_h{s.start + 1}_{s.stop}": s for s in spans
        }


def last_values(batch: Batch, *, channels: int) -> Tensor:
    """The last real step of the first channels of a series: (B, 1, channels)."""
    x: Tensor = batch["input"]  # (B, N, at least `channels`)
    if "length" not in batch:
        return x[:, -1:, :channels]
    return x[torch.arange(len(x), device=x.device), batch["length"] - 1, None, :channels]
