"""Parameters of `core/forecast_table`, and what they mean for the contract (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.config import Config, param
from zoo.data.own.facts import cached_facts, existing
from zoo.kinds import Forecast, Series


@dataclass(frozen=True, kw_only=True)
class ForecastTableConfig(Config):
    """Your own time series to forecast: a table whose rows are steps and whose columns are channels."""

    path: str = param(help="the file: CSV with a header, or Parquet; the earliest row first", path=True)
    target: str | tuple[str, ...] | None = param(
        None, "the column to forecast, or several; the others are given only; null: all columns of numbers"
    )
    columns: tuple[str, ...] | None = param(None, "the columns to use; null: all columns of numbers")
    time: str | None = param(None, "the column of the time, which must rise; it is checked, then left out")
    length: int = param(96, "steps that are given", at_least=1)
    horizon: int = param(24, "steps to forecast", at_least=1)
    stride: int = param(1, "steps from the start of one train window to the next", at_least=1)
    relative: bool = param(
        True,
        "give and ask all steps relative to the last given one, so that a level which train has not seen can "
        "be followed; errors are the same numbers either way",
    )
    val: float = param(
        0.1, "share of the steps that is for validation, after those of train", above=0, below=1
    )
    test: float = param(0.2, "share of the steps that is for test: the last ones", above=0, below=1)
    delimiter: str | None = param(None, "what splits the cells of a CSV; null: found out from the header")
    encoding: str = param("utf-8", "of the text of a CSV, e.g. latin-1")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.val + self.test >= 1:
            yield (
                "val",
                f"and test together are {self.val + self.test:g} of the steps: nothing is left to train",
            )
        if self.target == ():
            yield "target", "must name a column; null forecasts all"
        if self.columns is not None:
            for name in self.targets:
                if name not in self.columns:
                    yield "columns", f"must hold the target {name!r} too"

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to forecast, where they are named."""
        return (self.target,) if isinstance(self.target, str) else self.target or ()

    def kinds(self) -> tuple[Series, Forecast]:
        """Inputs and targets, as the file has them."""
        found = self._facts()
        names, targets = found["channels"], tuple(found["targets"])
        inputs = Series(channels=len(names), length=self.length)
        return inputs, Forecast(channels=len(targets), horizon=self.horizon, names=targets)

    def notes(self) -> Iterable[str]:
        """How many steps there are, of which channels, and how they are split."""
        return tuple(self._facts()["notes"])

    def _facts(self) -> dict[str, Any]:
        path = existing(self.path, folder=False)

        def compute() -> tuple[dict[str, Any], list[Path]]:
            from zoo.data.own.forecast_study import plain, study

            return plain(study(path, self)), [path]

        return cached_facts("forecast", {**asdict(self), "path": str(path)}, compute)
