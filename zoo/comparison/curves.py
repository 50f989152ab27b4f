"""What the runs of a group recorded over the steps."""

from __future__ import annotations

from zoo.comparison.collect import Group

#: Name -> step -> its value with each seed.
Curves = dict[str, dict[int, list[float]]]


def curves_of(group: Group) -> Curves:
    """The losses, the watched metric, and what callbacks recorded; at steps that every seed has."""
    from zoo.training.loggers import read_rows

    rows = [read_rows(run.metrics) for run in group.runs.values()]
    names = ["train/loss", "val/loss", str(group.first.info["monitor"])]
    names += [name for name in (rows[0][0] if rows and rows[0] else {}) if "entropy" in name]
    found = {name: _curve(rows, name) for name in dict.fromkeys(names)}
    return {name: curve for name, curve in found.items() if curve}


def _curve(rows: list[list[dict[str, str]]], name: str) -> dict[int, list[float]]:
    by_seed = [{int(row["step"]): float(row[name]) for row in of_seed if row.get(name)} for of_seed in rows]
    steps = sorted(set.intersection(*(set(values) for values in by_seed))) if by_seed else []
    return {step: [values[step] for values in by_seed] for step in steps}
