"""What the recipes reached, from the records beside them."""

from __future__ import annotations

import statistics
from pathlib import Path

from docs.generator.markdown import table
from docs.generator.recipes import bound
from zoo.quantities import amount, number
from zoo.recipe import LoadedRecipe, list_recipes, load_recipe
from zoo.records import Record, path_of, read_record

COLUMNS = (
    "recipe",
    "metric",
    "expects",
    "mean",
    "by seed",
    "baselines",
    "parameters",
    "training",
    "memory",
    "date",
)
INTRODUCTION = """\
# Results

What each recipe reached when it was last recorded, beside what it expects. Numbers are of the test split; the
checkpoint was chosen on the validation split. `zoo sweep RECIPE seed=0..2` and `zoo record RECIPE` make or
renew a record: see [Records](../comparing.md#records). Training time is that of the steps alone, the mean
over seeds, as it came on machines that had other work too: compare times with care.
"""


def results_page() -> str:
    recorded, changed, missing = [], [], []
    for file in list_recipes():
        loaded, record = load_recipe(file.name), read_record(path_of(Path(file.path)))
        if record is None:
            missing.append([f"`{file.name}`", expected(loaded), loaded.recipe.title])
        else:
            rows = recorded if record.state(loaded) == "current" else changed
            rows.append(row(loaded, record))
    parts = [INTRODUCTION]
    for title, rows in (
        ("Recorded", recorded),
        ("Recorded before the recipe or one of its components changed", changed),
    ):
        if rows:
            parts += [f"## {title}\n", table(COLUMNS, rows)]
    if missing:
        parts += [
            "## Not recorded yet\n",
            table(["recipe", "expects, as it was measured by hand", "what it is"], missing),
        ]
    return "\n".join(parts)


def row(loaded: LoadedRecipe, record: Record) -> list[str]:
    values, seeds = record.values(), list(record.seeds.values())
    mean, deviation = record.mean(), statistics.stdev(values.values()) if len(values) > 1 else None
    times = [seed.seconds for seed in seeds if seed.seconds is not None]
    peaks = [seed.peak_bytes for seed in seeds if seed.peak_bytes is not None]
    machines = ", ".join(sorted({seed.machine for seed in seeds}))
    return [
        f"`{record.recipe}`",
        record.metric.partition("/")[2],
        bound(loaded.recipe.expect) if loaded.recipe.expect else "",
        number(mean) + (f" ± {number(deviation)}" if deviation is not None else ""),
        ", ".join(number(value) for value in values.values()),
        ", ".join(
            f"{name} {number(scores[record.metric])}"
            for name, scores in record.baselines.items()
            if scores.get(record.metric) is not None
        ),
        amount(record.parameters),
        f"{statistics.fmean(times):,.0f} s, {machines}" if times else machines,
        amount(max(peaks), "B") if peaks else "",
        max(seed.date for seed in seeds),
    ]


def expected(loaded: LoadedRecipe) -> str:
    expect = loaded.recipe.expect
    return (
        "" if expect is None else f"{expect.metric.partition('/')[2]} {bound(expect)}, {expect.measured_on}"
    )
