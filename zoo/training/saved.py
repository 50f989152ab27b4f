"""A trained run, with its best model and its data, for the commands of plugins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.data.split import Splits
from zoo.layers.model import Model
from zoo.runs import Run
from zoo.training.evaluation import SplitName, best_model, recipe_of, score
from zoo.training.setup import build_task, load_splits


class Saved:
    """Satisfies `zoo.commands.SavedRun`.

    Raises:
        ZooError: the run's recipe no longer fits what is installed.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._loaded = recipe_of(run)
        self._splits: Splits | None = None

    @property
    def folder(self) -> Path:
        return self._run.path

    @property
    def info(self) -> Mapping[str, Any]:
        return self._run.info

    def model(self) -> Model:
        return best_model(self._run, self._loaded)

    def splits(self) -> Splits:
        if self._splits is None:
            self._splits = load_splits(self._loaded)
        return self._splits

    def score(self, model: Model, split: SplitName = "test") -> dict[str, float]:
        return score(model, build_task(self._loaded), self.splits(), split, loaded=self._loaded)
