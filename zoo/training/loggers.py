"""metrics.csv: a plain table with fixed columns that a resumed run goes on with, without double rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.runs import replacing, writing
from zoo.training.lightning import Logger


class MetricsFile(Logger):
    """Lightning's logger interface to metrics.csv; every row is on disk as soon as it is logged.

    Args:
        path: the file.
        metrics: the columns after step and epoch; what else is logged is left out.
        keep_steps: a resumed run keeps the rows up to this step; `None` starts a new file.
    """

    def __init__(self, path: Path, metrics: Iterable[str], *, keep_steps: int | None = None) -> None:
        super().__init__()
        self._path = path
        self._columns = ["step", "epoch", *metrics]
        kept = (
            [row for row in read_rows(path) if int(row["step"]) <= keep_steps]
            if keep_steps is not None
            else []
        )
        with writing(path.parent), replacing(path) as file:
            table = io.TextIOWrapper(file, encoding="utf-8", newline="")
            writer = csv.DictWriter(table, self._columns, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
            table.detach()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; numbers are written so that they read back the same."""
        row: dict[str, Any] = {"step": step, **{name: f"{value:.9g}" for name, value in metrics.items()}}
        with writing(self._path.parent), self._path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n", extrasaction="ignore").writerow(row)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the recipe lies beside the file."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics file, as written; none where there is no file.

    Raises:
        ZooError: it is not a metrics file.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        # A row cut short by a kill in the middle of a write lacks its last columns: drop it.
        rows = [row for row in csv.DictReader(file) if None not in row.values() and None not in row]
    if rows and not all(row.get("step", "").isdigit() for row in rows):
        raise ZooError(f"{str(path)!r} is not a metrics file: a row has no step")
    return rows
