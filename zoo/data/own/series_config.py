"""Parameters of `core/series_files`, and what they mean for the contract (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.config import param
from zoo.data.own.config import DrawnConfig, PathConfig
from zoo.data.own.facts import cached_facts
from zoo.kinds import Classes, Series


@dataclass(frozen=True, kw_only=True)
class SeriesFilesConfig(DrawnConfig, PathConfig):
    """Your own time series to classify: `.ts` files, or a CSV."""

    path: str = param(
        help="a .ts file, UCR's .tsv, or a CSV; or a folder with NAME_TRAIN.ts and NAME_TEST.ts", path=True
    )
    test_path: str | None = param(None, "the file of the test split; null: it is drawn", path=True)
    label: str = param("label", "of a CSV: the column of the class")
    id: str | None = param(
        None, "of a CSV: the column that tells series apart, whose rows are steps; null: a row is a series"
    )

    def kinds(self) -> tuple[Series, Classes]:
        """Inputs and targets, as the files have them."""
        found = self._facts()
        series = Series(channels=found["channels"], length=found["length"], ragged=found["ragged"])
        return series, Classes(count=len(found["classes"]), names=tuple(found["classes"]))

    def notes(self) -> Iterable[str]:
        """How many series there are, and of which classes."""
        return tuple(self._facts()["notes"])

    def _facts(self) -> dict[str, Any]:
        from zoo.data.own.series_files import files_of, plain, study

        files = files_of(self)

        def compute() -> tuple[dict[str, Any], list[Path]]:
            return plain(study(files, self)), list(files)

        return cached_facts("series", {**asdict(self), "files": [str(file) for file in files]}, compute)
