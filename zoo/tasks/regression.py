"""`core/regression`: one or several real values per example, of which some may be missing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.kinds import Values
from zoo.tasks.base import Batch, Task, batches
from zoo.tasks.config import RegressionConfig
from zoo.tasks.losses import count_measured, loss_of_measured
from zoo.tasks.metrics import R2, Mean, MetricCollection, collection


class Regression(Task[RegressionConfig, Values]):
    """Squared, absolute or Huber loss; MSE, MAE and R2.

    Outputs and targets are (B, K), in the units that the dataset gives: a dataset standardises its
    targets and decodes predictions back. A target that is NaN was not measured: it neither trains nor
    counts. `mse` and `mae` are means over all that was measured, `r2` is the mean of the K values' own;
    with K > 1, `mae_<name>` and `r2_<name>` tell them apart.
    """

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean over measured values, 0 without any. outputs: (B, K)."""
        return loss_of_measured(outputs, batch["target"], loss=self.config.loss)

    def count(self, batch: Batch) -> int:
        """One answer per measured value."""
        return count_measured(batch["target"])

    def metrics(self) -> MetricCollection:
        """`loss`, `mse`, `mae`, `r2`, and per value where there are several."""
        per_value: dict[str, torch.nn.Module] = {f"mae_{name}": Mean() for name in self._names()}
        per_value |= {f"r2_{name}": R2() for name in self._names()}
        return collection(loss=Mean(), mse=Mean(), mae=Mean(), r2=R2(self.targets.count), **per_value)

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, K)."""
        outputs, target = outputs.detach().float(), batch["target"].float()
        measured = ~target.isnan()  # (B, K)
        error = outputs - target  # (B, K)
        metrics["loss"].update(loss.detach(), weight=self.count(batch))
        metrics["mse"].update(error[measured].square())
        metrics["mae"].update(error[measured].abs())
        metrics["r2"].update(outputs, target)
        for index, name in enumerate(self._names()):
            metrics[f"mae_{name}"].update(error[:, index][measured[:, index]].abs())
            metrics[f"r2_{name}"].update(outputs[:, index : index + 1], target[:, index : index + 1])

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """`{name: value}` per example. outputs: (B, K)."""
        names = self.targets.names or tuple(f"value_{i}" for i in range(self.targets.count))
        return [dict(zip(names, row, strict=True)) for row in outputs.float().tolist()]

    def naive(self, train: Any) -> Tensor:
        """The mean of what was measured in the train split, (1, K); 0 where nothing was."""
        values = torch.cat([batch["target"] for batch in batches(train)])  # (examples, K)
        return values.double().nanmean(dim=0, keepdim=True).nan_to_num(0.0).float()

    def _names(self) -> tuple[str, ...]:
        """The suffixes of the metrics per value; none for a single value."""
        if self.targets.count == 1:
            return ()
        return self.targets.names or tuple(str(i) for i in range(self.targets.count))
