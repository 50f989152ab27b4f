"""A trained run, with its best model and its data, for the commands of plugins.

Torch is imported when the model, the data or a score is asked for: a command that only looks at what an
earlier one wrote need not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.runs import Run

if TYPE_CHECKING:
    from zoo.data import Splits
    from zoo.layers import Model
    from zoo.recipe import LoadedRecipe


class Saved:
    """Satisfies `zoo.commands.SavedRun`. What needs the recipe raises `ZooError` where that no longer fits
    what is installed.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._splits: Splits | None = None

    @property
    def folder(self) -> Path:
        return self._run.path

    @property
    def info(self) -> Mapping[str, Any]:
        return self._run.info

    def model(self) -> Model:
        from zoo.training.evaluation import best_model

        return best_model(self._run, self._loaded)

    def splits(self) -> Splits:
        if self._splits is None:
            from zoo.training.setup import load_splits

            self._splits = load_splits(self._loaded)
        return self._splits

    def score(self, model: Model, split: Literal["train", "val", "test"] = "test") -> dict[str, float]:
        from zoo.training.evaluation import score
        from zoo.training.setup import build_task

        return score(model, build_task(self._loaded), self.splits(), split, loaded=self._loaded)

    @cached_property
    def _loaded(self) -> LoadedRecipe:
        from zoo.training.evaluation import recipe_of

        return recipe_of(self._run)
