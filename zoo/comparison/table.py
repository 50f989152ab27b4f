"""The rows of a comparison, and the forms in which it is read: text, Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.catalogue import Catalogue
from zoo.comparison.collect import Collection, Group
from zoo.comparison.statistics import Difference, differences, mean_and_deviation
from zoo.contract import Plan
from zoo.errors import ZooError
from zoo.quantities import amount, number
from zoo.training.cost import Cost, cost_of


@dataclass(frozen=True, kw_only=True)
class Row:
    """One group in numbers. against: the first group, seed by seed; `None` for the first itself.

    cost: `None` where its model cannot be built here. seconds: of a training step, the median over the runs.
    peak: bytes, the most of any run.
    """

    group: Group
    values: tuple[float, ...]
    mean: float
    deviation: float | None
    parameters: int
    cost: Cost | None
    seconds: float | None
    peak: int | None
    against: Difference | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A collection of runs as rows, the reference first."""

    collection: Collection
    rows: tuple[Row, ...]

    def cells(self) -> list[list[str]]:
        """A heading, then a row per group, as text; columns without any entry are left out."""
        heading = ["setting", "seeds", self.collection.metric, "against the first", *COSTS]
        table = [[row.group.label, str(len(row.values)), spread(row), _against(row)] for row in self.rows]
        for cells, row in zip(table, self.rows, strict=True):
            cells += [show(row) for show in COSTS.values()]
        kept = [i for i in range(len(heading)) if any(cells[i] for cells in table)]
        return [[cells[i] for i in kept] for cells in [heading, *table]]

    def markdown(self) -> str:
        """A table in Markdown, with what was left out below it."""
        heading, *body = self.cells()
        lines = [heading, ["---"] * len(heading), *body]
        text = "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
        return "\n\n".join([f"{self.collection.data}, {self.collection.metric}", text, *self.notes()]) + "\n"

    def csv(self) -> str:
        """Numbers in full, a line per group."""
        rows = [_flat(entry) for entry in self.to_dict()["groups"]]
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "data": self.collection.data,
            "metric": self.collection.metric,
            "mode": self.collection.mode,
            "notes": self.notes(),
            "groups": [_to_dict(row) for row in self.rows],
        }

    def notes(self) -> list[str]:
        """What a reader should know beside the numbers."""
        notes = list(self.collection.notes)
        metric, first = self.collection.metric, self.rows[0].group.first
        for name, scores in list(first.info.get("baselines", {}).items()):
            if scores.get(metric) is not None:
                notes.append(f"baseline {name}: {number(scores[metric])}")
        counts = {len(row.values) for row in self.rows}
        if len(self.rows) > 1 and min(counts) < 2:
            notes.append("with one seed nothing can be said about noise; sweep over seed=0..2 or more")
        return notes


def compare(collection: Collection, catalogue: Catalogue) -> Comparison:
    """Mean and deviation over seeds, costs, and every group against the first one."""
    groups = collection.groups
    by_seed = [group.values(collection.metric) for group in groups]
    against = [None, *differences(by_seed[0], by_seed[1:])]
    rows = []
    for group, values, difference in zip(groups, by_seed, against, strict=True):
        mean, deviation = mean_and_deviation(list(values.values()))
        took = [run.info.get("cost", {}) for run in group.runs.values()]
        seconds = [each["seconds_per_step"] for each in took if each.get("seconds_per_step") is not None]
        peaks = [each["peak_bytes"] for each in took if each.get("peak_bytes") is not None]
        rows.append(
            Row(
                group=group,
                values=tuple(values.values()),
                mean=mean,
                deviation=deviation,
                parameters=group.first.info["parameters"],
                cost=_cost(group, catalogue),
                seconds=statistics.median(seconds) if seconds else None,
                peak=max(peaks, default=None),
                against=difference,
                verdict="" if group is groups[0] else _verdict(difference, collection.mode),
            )
        )
    return Comparison(collection=collection, rows=tuple(rows))


def spread(row: Row) -> str:
    """`0.981 ± 0.004`."""
    return number(row.mean) + (f" ± {number(row.deviation)}" if row.deviation is not None else "")


#: Heading -> how a row shows it.
COSTS: dict[str, Callable[[Row], str]] = {
    "parameters": lambda row: amount(row.parameters),
    "FLOPs per example": lambda row: amount(row.cost.flops if row.cost else None),
    "step": lambda row: "" if row.seconds is None else f"{1000 * row.seconds:.3g} ms",
    "peak memory": lambda row: amount(row.peak, "B"),
    "stream's state": lambda row: amount(row.cost.state_bytes if row.cost else None, "B"),
}


def _cost(group: Group, catalogue: Catalogue) -> Cost | None:
    try:
        return cost_of(Plan.from_dict(catalogue, group.first.info["plan"]), catalogue)
    except (ZooError, KeyError, TypeError):  # a component that is not installed here, or no longer like that
        return None


def _verdict(difference: Difference | None, mode: str | None) -> str:
    if difference is None:
        return "no seed in common"
    if difference.p is None:
        return "one seed: cannot tell"
    if not difference.beyond_noise:
        return "within noise"
    if mode is None:
        return "differs"
    return "better" if (difference.mean > 0) == (mode == "max") else "worse"


def _against(row: Row) -> str:
    if row.against is None:
        return row.verdict
    sign = "+" if row.against.mean >= 0 else "-"
    p = "" if row.against.p is None else f", p {row.against.p:.2g}"
    return f"{sign}{number(abs(row.against.mean))}: {row.verdict}{p}"


def _to_dict(row: Row) -> dict[str, Any]:
    return {
        "setting": row.group.label,
        "seeds": list(row.group.runs),
        "values": list(row.values),
        "mean": row.mean,
        "deviation": row.deviation,
        "difference": row.against.mean if row.against else None,
        "p": row.against.p if row.against else None,
        "verdict": row.verdict or "reference",
        "parameters": row.parameters,
        "flops_per_example": row.cost.flops if row.cost else None,
        "state_bytes": row.cost.state_bytes if row.cost else None,
        "seconds_per_step": row.seconds,
        "peak_bytes": row.peak,
        "runs": [str(run.path) for run in row.group.runs.values()],
    }


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    def text(value: Any) -> Any:
        return (
            " ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
        )

    return {key: text(value) for key, value in entry.items()}
