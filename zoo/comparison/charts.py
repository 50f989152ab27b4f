"""The pictures of a comparison: curves over the steps, and what was reached against what it costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from zoo.comparison.figures import as_svg, colour, make_figure
from zoo.comparison.table import Comparison, Row
from zoo.quantities import amount

#: What a metric can be drawn against.
COSTS: dict[str, Callable[[Row], float | None]] = {
    "parameters": lambda row: row.parameters,
    "FLOPs per example": lambda row: row.flops_per_example,
    "seconds per step": lambda row: row.seconds_per_step,
}


def curves(comparison: Comparison, name: str) -> str:
    """A metric over the steps: mean over seeds, and from the least to the most of them."""
    figure, axes = make_figure()
    for index, row in enumerate(comparison.groups):
        points = row.curves.get(name)
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
    values = [COSTS[cost](row) for row in comparison.groups]
    known = [value for value in values if value]
    if not known:
        return ""
    figure, axes = make_figure()
    for index, (row, value) in enumerate(zip(comparison.groups, values, strict=True)):
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
    axes.set_ylabel(comparison.metric)
    return as_svg(figure)


def recorded(comparison: Comparison) -> list[str]:
    """What can be drawn over the steps."""
    return list(dict.fromkeys(name for row in comparison.groups for name in row.curves))
