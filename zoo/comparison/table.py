"""The rows of a comparison, and the forms in which it is read: text, Markdown, CSV, JSON (and back)."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.catalogue import Catalogue
from zoo.comparison.collect import Collection, Group
from zoo.comparison.curves import Curves, curves_of
from zoo.comparison.statistics import Difference, differences, mean_and_deviation
from zoo.contract import Plan
from zoo.errors import ZooError
from zoo.quantities import amount, number

if TYPE_CHECKING:
    from zoo.training.cost import Cost


@dataclass(frozen=True, kw_only=True)
class Row:
    """One group in numbers, all that is shown of it.

    values: the metric, as many as seeds. flops_per_example, state_bytes: of its model, `None` where it cannot
    be built here. seconds_per_step: the median over the runs. peak_bytes: the most of any run.
    difference, p: against the first row, seed by seed. model: its plan in a line. runs: names of the folders.
    curves: what was recorded over the steps, of all seeds.
    """

    setting: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    deviation: float | None
    difference: float | None
    p: float | None
    verdict: str
    parameters: int
    flops_per_example: int | None
    state_bytes: int | None
    seconds_per_step: float | None
    peak_bytes: int | None
    model: str
    date: str
    machine: str
    runs: tuple[str, ...]
    curves: Curves


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows, the reference first. notes: what a reader should know beside the numbers."""

    data: str
    metric: str
    mode: str | None
    notes: tuple[str, ...]
    groups: tuple[Row, ...]

    def cells(self) -> list[list[str]]:
        """A heading, then a row per group, as text; columns without any entry are left out."""
        heading = ["setting", "seeds", self.metric, "against the first", *COSTS]
        table = [[row.setting, str(len(row.values)), spread(row), _against(row)] for row in self.groups]
        for cells, row in zip(table, self.groups, strict=True):
            cells += [show(row) for show in COSTS.values()]
        kept = [i for i in range(len(heading)) if any(cells[i] for cells in table)]
        return [[cells[i] for i in kept] for cells in [heading, *table]]

    def markdown(self) -> str:
        """A table in Markdown, with what was left out below it."""
        heading, *body = self.cells()
        lines = [heading, ["---"] * len(heading), *body]
        text = "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
        return "\n\n".join([f"{self.data}, {self.metric}", text, *self.notes]) + "\n"

    def csv(self) -> str:
        """Numbers in full, a line per group."""
        rows = [_flat(row) for row in self.to_dict()["groups"]]
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """What `to_dict` gave, also by way of JSON.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        rows = [
            {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
            | {"curves": {n: {int(s): list(v) for s, v in c.items()} for n, c in row["curves"].items()}}
            for row in data["groups"]
        ]
        return cls(**{**data, "notes": tuple(data["notes"]), "groups": tuple(Row(**row) for row in rows)})


def read_comparisons(path: Path) -> list[Comparison]:
    """Comparisons from a file that `zoo compare --json` wrote.

    Raises:
        ZooError: it cannot be read, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return [Comparison.from_dict(each) for each in (data if isinstance(data, list) else [data])]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ZooError(f"{str(path)!r} holds no comparison of 'zoo compare --json': {error!r}") from None


def compare(collection: Collection, catalogue: Catalogue) -> Comparison:
    """Mean and deviation over seeds, costs, and every group against the first one."""
    groups = collection.groups
    by_seed = [group.values(collection.metric) for group in groups]
    against = [None, *differences(by_seed[0], by_seed[1:])]
    verdicts = ["reference", *(_verdict(each, collection.mode) for each in against[1:])]
    rows = tuple(
        _row(group, values, difference, verdict, catalogue)
        for group, values, difference, verdict in zip(groups, by_seed, against, verdicts, strict=True)
    )
    return Comparison(
        data=collection.data,
        metric=collection.metric,
        mode=collection.mode,
        notes=tuple(_notes(collection, rows)),
        groups=rows,
    )


def _row(
    group: Group,
    values: Mapping[int, float],
    difference: Difference | None,
    verdict: str,
    catalogue: Catalogue,
) -> Row:
    mean, deviation = mean_and_deviation(list(values.values()))
    took = [run.info.get("cost", {}) for run in group.runs.values()]
    seconds = [each["seconds_per_step"] for each in took if each.get("seconds_per_step") is not None]
    peaks = [each["peak_bytes"] for each in took if each.get("peak_bytes") is not None]
    cost, info = _cost(group, catalogue), group.first.info
    machine = info.get("platform", {})
    where = machine.get("gpu") or str(machine.get("system", "")).partition("-")[0]
    threads = machine.get("threads", "?")
    return Row(
        setting=group.label,
        seeds=tuple(values),
        values=tuple(values.values()),
        mean=mean,
        deviation=deviation,
        difference=difference.mean if difference else None,
        p=difference.p if difference else None,
        verdict=verdict,
        parameters=info["parameters"],
        flops_per_example=cost.flops if cost else None,
        state_bytes=cost.state_bytes if cost else None,
        seconds_per_step=statistics.median(seconds) if seconds else None,
        peak_bytes=max(peaks, default=None),
        model=str(info.get("describe", "")),
        date=str(info.get("created", ""))[:10],
        machine=f"{where}, {threads} thread{'s' * (threads != 1)}",
        runs=tuple(run.path.name for run in group.runs.values()),
        curves=curves_of(group),
    )


def _notes(collection: Collection, rows: Sequence[Row]) -> list[str]:
    notes = list(collection.notes)
    metric, first = collection.metric, collection.groups[0].first
    for name, scores in first.info.get("baselines", {}).items():
        if scores.get(metric) is not None:
            notes.append(f"baseline {name}: {number(scores[metric])}")
    counts = {len(row.values) for row in rows}
    if len(rows) > 1 and min(counts) < 2:
        notes.append("with one seed nothing can be said about noise; sweep over seed=0..2 or more")
    return notes


def spread(row: Row) -> str:
    """`0.981 ± 0.004`."""
    return number(row.mean) + (f" ± {number(row.deviation)}" if row.deviation is not None else "")


#: Heading -> how a row shows it.
COSTS: dict[str, Callable[[Row], str]] = {
    "parameters": lambda row: amount(row.parameters),
    "FLOPs per example": lambda row: amount(row.flops_per_example),
    "step": lambda row: "" if row.seconds_per_step is None else f"{1000 * row.seconds_per_step:.3g} ms",
    "peak memory": lambda row: amount(row.peak_bytes, "B"),
    "stream's state": lambda row: amount(row.state_bytes, "B"),
}


def _cost(group: Group, catalogue: Catalogue) -> Cost | None:
    from zoo.training.cost import cost_of

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
    if row.difference is None:
        return "" if row.verdict == "reference" else row.verdict
    sign = "+" if row.difference >= 0 else "-"
    p = "" if row.p is None else f", p {row.p:.2g}"
    return f"{sign}{number(abs(row.difference))}: {row.verdict}{p}"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table: lists as words, without the curves."""
    return {
        key: " ".join(map(str, value)) if isinstance(value, tuple) else value
        for key, value in row.items()
        if key != "curves"
    }
