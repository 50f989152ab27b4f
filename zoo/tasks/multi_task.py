"""`core/multi_task`: several questions about one example, each a class or values."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from zoo.config import ConfigError, Problem
from zoo.kinds import Classes, Questions, Values, check_weights
from zoo.tasks.base import Batch, Task
from zoo.tasks.classification import Classification
from zoo.tasks.config import ClassificationConfig, MultiTaskConfig, RegressionConfig
from zoo.tasks.metrics import MetricCollection, WeightedSum, collection
from zoo.tasks.regression import Regression


class MultiTask(Task[MultiTaskConfig, Questions]):
    """The weighted sum of the questions' losses; each question keeps the metrics of its own task.

    Outputs are (B, K), the answers side by side; targets are a dict of tensors by question. The metric
    `accuracy` of the question `digit` is `digit/accuracy`.

    Raises:
        ConfigError: a weight names no question.
    """

    def __init__(self, config: MultiTaskConfig, *, targets: Questions) -> None:
        super().__init__(config, targets=targets)
        problems = [Problem(path, what) for path, what in check_weights(config.weights, targets.parts)]
        if problems:
            raise ConfigError(problems, owner=type(self).__name__)
        self.weights = {
            name: config.weights.get(name, targets.weights.get(name, 1.0)) for name in targets.parts
        }
        self.tasks = {name: self.task_of(part) for name, part in targets.parts.items()}

    def task_of(self, part: Classes | Values) -> Task[Any, Any]:
        """What answers one of the questions."""
        if isinstance(part, Classes):
            classes = ClassificationConfig(label_smoothing=self.config.label_smoothing)
            return Classification(classes, targets=part)
        return Regression(RegressionConfig(loss=self.config.value_loss), targets=part)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The sum of weight x loss over the questions. outputs: (B, K)."""
        losses = self._losses(outputs, batch)
        return cast(Tensor, sum(self.weights[name] * loss for name, loss in losses.items()))

    def count(self, batch: Batch) -> int:
        """The number of examples; what counts for each question is its own."""
        return len(next(iter(batch["target"].values())))

    def metrics(self) -> MetricCollection:
        """`loss`, and `<question>/<metric>` for every metric of every question."""
        parts = {
            f"{name}/{metric}": value
            for name, task in self.tasks.items()
            for metric, value in task.metrics().items()
        }
        return collection(loss=WeightedSum(tuple(self.weights.values())), **parts)

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, K)."""
        answers, losses, counts = self.targets.split(outputs), self._losses(outputs, batch), []
        for name, task in self.tasks.items():
            part = {"target": batch["target"][name]}
            prefix = f"{name}/"
            own = {m.removeprefix(prefix): metrics[m] for m in map(str, metrics) if m.startswith(prefix)}
            task.update(cast(MetricCollection, own), answers[name], part, losses[name])
            counts.append(task.count(part))
        metrics["loss"].update(torch.stack(list(losses.values())).detach(), counts)

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """`{question: its answer}` per example. outputs: (B, K)."""
        answers = self.targets.split(outputs)
        columns = {name: task.predict(answers[name]) for name, task in self.tasks.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def naive(self, train: Any) -> Tensor:
        """The naive answers to all questions side by side, (1, K)."""
        return torch.cat([task.naive(Question(train, name)) for name, task in self.tasks.items()], dim=1)

    def answers(self, naive: Tensor, batch: Batch) -> Tensor:
        """The naive answer for each example, (B, K)."""
        return naive.expand(self.count(batch), -1)

    def _losses(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        answers = self.targets.split(outputs)
        return {
            name: task.loss(answers[name], {"target": batch["target"][name]})
            for name, task in self.tasks.items()
        }


class Question:
    """A split of which only one question is asked."""

    def __init__(self, split: Any, name: str) -> None:
        self.split = split
        self.name = name

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Batch:
        return self._only(self.split[index])

    def __getitems__(self, indices: list[int]) -> Any:
        if not hasattr(self.split, "__getitems__"):
            return [self[index] for index in indices]
        return self._only(self.split.__getitems__(indices))

    def _only(self, example: Batch) -> Batch:
        return {**example, "target": example["target"][self.name]}
