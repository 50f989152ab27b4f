"""`core/dense_prediction`: questions about each pixel of an image, each a class or values.

B batch, H and W rows and columns, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.kinds import IGNORE, Classes, Maps, Values
from zoo.tasks.base import Batch, Task, batches
from zoo.tasks.classification import Classification
from zoo.tasks.config import ClassificationConfig, RegressionConfig
from zoo.tasks.losses import count_measured, loss_of_measured
from zoo.tasks.metrics import (
    Mean,
    MeanIoU,
    MetricCollection,
    MulticlassAccuracy,
    RootMean,
    collection,
)
from zoo.tasks.multi_task import MultiTask

#: A relative error is measured against at least this much.
LEAST = 1e-6


class DensePrediction(MultiTask):
    """The weighted sum of the questions' losses per pixel; each question keeps the metrics of its own.

    Outputs are (B, K, H, W), the answers side by side; targets are a dict of maps by question. The metric
    `miou` of the question `shape` is `shape/miou`.
    """

    targets: Maps  # type: ignore[assignment]

    def task_of(self, part: Classes | Values) -> Task[Any, Any]:
        """One question about each pixel."""
        if isinstance(part, Classes):
            return Segmentation(
                ClassificationConfig(label_smoothing=self.config.label_smoothing), targets=part
            )
        return PixelRegression(RegressionConfig(loss=self.config.value_loss), targets=part)

    def answers(self, naive: Tensor, batch: Batch) -> Tensor:
        """The naive answer for each pixel of each example, (B, K, H, W)."""
        return naive.expand(self.count(batch), -1, self.targets.height, self.targets.width)


class Segmentation(Classification):
    """A class for each pixel: cross entropy; mean intersection over union, pixel accuracy.

    Outputs are logits (B, K, H, W), targets int64 (B, H, W); pixels whose target is `IGNORE` are not scored.
    `miou` is the mean over the classes that occur, in targets or answers, of what answers and targets share
    divided by what either covers, counted over all pixels of a split.
    """

    def metrics(self) -> MetricCollection:
        """`loss`, `miou`, `accuracy`."""
        return collection(
            loss=Mean(),
            miou=MeanIoU(self.targets.count),
            accuracy=MulticlassAccuracy(self.targets.count, average="micro", validate_args=False),
        )

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, K, H, W)."""
        asked = batch["target"] != IGNORE  # (B, H, W)
        if not asked.any():
            return
        answers, targets = outputs.argmax(dim=1)[asked], batch["target"][asked]  # (pixels,)
        metrics["loss"].update(loss.detach(), weight=len(targets))
        metrics["miou"].update(answers, targets)
        metrics["accuracy"].update(answers, targets)

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """Rows of classes (their names, where there are names) per example. outputs: (B, K, H, W)."""
        names: Sequence[Any] = self.targets.names or range(self.targets.count)
        return [[[names[i] for i in row] for row in rows] for rows in outputs.argmax(dim=1).tolist()]

    def naive(self, train: Any) -> Tensor:
        """Log frequencies of the classes in the train split, each counted once more. (1, K, 1, 1)."""
        return super().naive(train)[:, :, None, None]


class PixelRegression(Task[RegressionConfig, Values]):
    """Values for each pixel: squared, absolute or Huber loss; root mean square, absolute and relative error.

    Outputs and targets are (B, C, H, W); a target that is NaN was not measured: it neither trains nor counts.
    `abs_rel` is the mean of |answer - target| / |target|, made for depths and other sizes above 0.
    """

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean over what was measured, 0 without any. outputs: (B, C, H, W)."""
        return loss_of_measured(outputs, batch["target"], loss=self.config.loss)

    def count(self, batch: Batch) -> int:
        """One answer per measured value."""
        return count_measured(batch["target"])

    def metrics(self) -> MetricCollection:
        """`loss`, `rmse`, `mae`, `abs_rel`."""
        return collection(loss=Mean(), rmse=RootMean(), mae=Mean(), abs_rel=Mean())

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, C, H, W)."""
        measured = ~batch["target"].isnan()
        target = batch["target"].float()[measured]  # (values,)
        error = outputs.detach().float()[measured] - target
        metrics["loss"].update(loss.detach(), weight=len(target))
        metrics["rmse"].update(error.square())
        metrics["mae"].update(error.abs())
        metrics["abs_rel"].update(error.abs() / target.abs().clamp_min(LEAST))

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """Rows of values per example; of several values a dict of such by name. outputs: (B, C, H, W)."""
        maps = outputs.float().tolist()
        if self.targets.count == 1:
            return [channels[0] for channels in maps]
        names = self.targets.names or tuple(f"value_{i}" for i in range(self.targets.count))
        return [dict(zip(names, channels, strict=True)) for channels in maps]

    def naive(self, train: Any) -> Tensor:
        """The mean of what was measured in the train split, (1, C, 1, 1); 0 where nothing was."""
        total, known = torch.zeros(2, self.targets.count, dtype=torch.float64)
        for batch in batches(train):
            total += batch["target"].double().nansum((0, 2, 3))
            known += (~batch["target"].isnan()).sum((0, 2, 3))
        return (total / known.clamp_min(1)).float()[None, :, None, None]
