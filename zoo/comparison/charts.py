"""The pictures of a comparison: curves over the steps, and what was reached against what it costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from zoo.comparison.collect import Group
from zoo.comparison.figures import as_svg, colour, make_figure
from zoo.comparison.table import Comparison, Row
from zoo.quantities import amount
from zoo.training.loggers import read_rows

#: What a metric can be drawn against.
COSTS: dict[str, Callable[[Row], float | None]] = {
    "parameters": lambda row: row.parameters,
    "FLOPs per example": lambda row: row.cost.flops if row.cost else None,
    "seconds per step": lambda row: row.seconds,
}


def curves(comparison: Comparison, name: str) -> str:
    """A metric over the steps: mean over seeds, and from the least to the most of them; "" without rows."""
    lines = [(row.group.label, _curve(row.group, name)) for row in comparison.rows]
    if not any(points for _, points in lines):
        return ""
    figure, axes = make_figure()
    for index, (_, points) in enumerate(lines):
        if not points:
            continue
        steps = list(points)
        means = [statistics.fmean(points[step]) for step in steps]
        axes.plot(steps, means, color=colour(index), marker="." if len(steps) < 30 else None, linewidth=1.6)
        low, high = [min(points[step]) for step in steps], [max(points[step]) for step in steps]
        axes.fill_between(steps, low, high, color=colour(index), alpha=0.18, linewidth=0)
    axes.set_xlabel("step")
    axes.set_ylabel(name)
    return as_svg(figure)


def scatter(comparison: Comparison, cost: str) -> str:
    """The metric against one of COSTS; "" where no row knows it."""
    values = [COSTS[cost](row) for row in comparison.rows]
    known = [value for value in values if value]
    if not known:
        return ""
    figure, axes = make_figure()
    for index, (row, value) in enumerate(zip(comparison.rows, values, strict=True)):
        if value:
            axes.errorbar(
                value, row.mean, yerr=row.deviation, color=colour(index), marker="o", capsize=3, linestyle=""
            )
    low, high = min(known), max(known)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.3, high * 1.3)  # so much at least that equal costs look equal
    axes.minorticks_off()
    places = [low, high] if high > 1.3 * low else [low]
    axes.set_xticks(places, [amount(place) for place in places])
    axes.set_xlabel(cost)
    axes.set_ylabel(comparison.collection.metric)
    return as_svg(figure)


def recorded(comparison: Comparison) -> list[str]:
    """What can be drawn over the steps: the losses, the watched metric, and what callbacks recorded."""
    first = comparison.rows[0].group.first
    names = ["train/loss", "val/loss", str(first.info["monitor"])]
    for row in comparison.rows:
        rows = read_rows(row.group.first.metrics)
        names += [name for name in (rows[0] if rows else {}) if "entropy" in name]
    return list(dict.fromkeys(names))


def _curve(group: Group, name: str) -> dict[int, list[float]]:
    """The values at each step that every seed has."""
    by_seed: list[dict[int, float]] = []
    for run in group.runs.values():
        rows = read_rows(run.metrics)
        by_seed.append({int(row["step"]): float(row[name]) for row in rows if row.get(name)})
    steps = sorted(set.intersection(*(set(values) for values in by_seed))) if by_seed else []
    return {step: [values[step] for values in by_seed] for step in steps}
