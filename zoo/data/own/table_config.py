"""Parameters of `core/table`, and what they mean for the contract (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from zoo.config import param
from zoo.data.own.config import DrawnConfig, PathConfig
from zoo.data.own.facts import SLOW_BYTES, cached_facts, existing, say
from zoo.kinds import TargetKind, Vector, kind_from_dict


@dataclass(frozen=True, kw_only=True)
class TableConfig(DrawnConfig, PathConfig):
    """Your own table: a CSV or Parquet file with a header."""

    path: str = param(help="the file: CSV with a header, or Parquet", path=True)
    target: str | tuple[str, ...] = param(help="the column to predict, or several")
    columns: dict[str, Literal["number", "category", "ignore"]] = param(
        factory=dict, help="what columns are, where their looks deceive, e.g. {zip: category, id: ignore}"
    )
    split: str | None = param(None, "the column that says train, val or test; null: parts are drawn")
    group: str | None = param(None, "the column of groups that must not be torn apart when parts are drawn")
    unseen: Literal["error", "drop"] = param(
        "error", "what to do with rows of a class that train does not have"
    )
    categories: int = param(50, "values of a category that get a column; rarer ones share none", at_least=1)
    delimiter: str | None = param(None, "what splits the cells of a CSV; null: found out from the header")
    encoding: str = param("utf-8", "of the text of a CSV, e.g. latin-1")

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if not self.targets:
            yield "target", "must name a column"
        if len(set(self.targets)) < len(self.targets):
            yield "target", f"names a column twice: {', '.join(self.targets)}"
        if self.split is not None and self.group is not None:
            yield "group", "and split exclude each other: a split column says already where each row belongs"
        for name in ("split", "group"):
            if getattr(self, name) in self.targets:
                yield name, f"is the target {getattr(self, name)!r} too"
        if self.delimiter is not None and len(self.delimiter) != 1:
            yield "delimiter", f"must be one character, got {self.delimiter!r}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else self.target

    def kinds(self) -> tuple[Vector, TargetKind]:
        """Inputs and targets, as the file has them."""
        found = self._facts()
        return Vector(features=found["features"]), kind_from_dict(found["targets"])

    def notes(self) -> Iterable[str]:
        """What the columns were taken for, and how the rows are split."""
        return tuple(self._facts()["notes"])

    def _facts(self) -> dict[str, Any]:
        path = existing(self.path, folder=False)

        def compute() -> tuple[dict[str, Any], list[Path]]:
            from zoo.data.own.table_file import read_table
            from zoo.data.own.table_study import plain, study

            if path.stat().st_size > SLOW_BYTES:
                say(f"looking at {path.name} ({path.stat().st_size / 2**20:,.0f} MiB), once")
            table = read_table(path, delimiter=self.delimiter, encoding=self.encoding)
            return plain(study(table, self)), [path]

        return cached_facts("table", {**asdict(self), "path": str(path)}, compute)
