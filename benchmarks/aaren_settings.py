"""Aaren beside the causal transformer in the paper's four settings: the table of plugins/zoo_aaren/README.md.

    python benchmarks/aaren_settings.py [--only ucr] [--seeds 0 1 2] [--results PATH]

Each row is a recipe, trained with `layers: [aaren]` and with `[softmax]`, nothing else changed. A run that is
done is a line of PATH and is not repeated, so that it can be stopped at any time and go on later. The sets
of the UCR archive and household_power are fetched.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turns import show

import zoo

SOFTMAX = "model.params.layers=[softmax]"
#: A scale of nearly 0 hides the scores: every layer is a running mean.
MEAN = "model.params.mixer_params={aaren: {scale: 1.0e-9}}"
UCR = ("ItalyPowerDemand", "Chinatown", "JapaneseVowels", "ECG200", "BasicMotions", "Plane")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table."""

    recipe: str
    overrides: tuple[str, ...] = ()
    metric: str = "accuracy"
    more_is_better: bool = True
    control: bool = False

    @property
    def name(self) -> str:
        return " ".join((self.recipe, *self.overrides))

    def columns(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each model of the row, with its overrides."""
        yield "Aaren", self.overrides
        yield "transformer", (*self.overrides, SOFTMAX)
        if self.control:
            yield "running mean", (*self.overrides, MEAN)


SETTINGS = (
    *(Setting(recipe="aaren/ucr", overrides=(f"data.params.problem={problem}",)) for problem in UCR),
    *(
        Setting(
            recipe="aaren/forecasting",
            overrides=(f"data.params.horizon={horizon}",),
            metric="mse",
            more_is_better=False,
        )
        for horizon in (96, 192)
    ),
    *(
        Setting(
            recipe="aaren/forecasting",
            overrides=("data.name=household_power", f"data.params.horizon={horizon}"),
            metric="mse",
            more_is_better=False,
        )
        for horizon in (96, 192)
    ),
    Setting(recipe="aaren/sequential_digits", control=True),
    Setting(recipe="aaren/hawkes", metric="nll", more_is_better=False),
    Setting(recipe="aaren/nyc_flights", metric="nll", more_is_better=False),
    Setting(recipe="aaren/cartpole", metric="return"),
    Setting(recipe="aaren/pendulum", metric="return"),
)


def results(path: Path) -> dict[str, dict[str, Any]]:
    """The runs so far, by recipe, overrides and seed."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["run"]: row for row in map(json.loads, lines)}


def measure(settings: Sequence[Setting], seeds: Sequence[int], path: Path) -> None:
    """Train what is not in `path` yet, and write it there, a line per run."""
    done = results(path)
    for setting in settings:
        for _, overrides in setting.columns():
            for seed in seeds:
                run = " ".join((setting.recipe, *overrides, f"seed={seed}"))
                if run in done:
                    continue
                print(run, flush=True)
                result = zoo.train(setting.recipe, [*overrides, f"seed={seed}"], quiet=True)
                if result.status != "finished":
                    return
                metric = f"test/{setting.metric}"
                others = result.baselines.items()
                row = {
                    "run": run,
                    "score": result.metrics[metric],
                    "parameters": result.parameters,
                    "baselines": {name: score[metric] for name, score in others if metric in score},
                }
                with path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(row) + "\n")


def line(setting: Setting, seeds: Sequence[int], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row of the table; a cell stays empty where a run is missing."""
    cells, scores, baseline = [], {}, ""
    for model, overrides in setting.columns():
        runs = [found.get(" ".join((setting.recipe, *overrides, f"seed={seed}"))) for seed in seeds]
        whole = [run for run in runs if run is not None]
        if len(whole) < len(seeds):
            cells.append("")
            continue
        scores[model] = mean, deviation = _mean_and_deviation([run["score"] for run in whole])
        cells.append(f"{mean:.3f} ({deviation:.3f}), {whole[0]['parameters']:,}")
        if known := whole[0]["baselines"]:
            best = (max if setting.more_is_better else min)(known, key=known.__getitem__)
            baseline = f"{best} {known[best]:.3f}"
    verdict = ""
    if {"Aaren", "transformer"} <= scores.keys():
        (ours, one), (theirs, other) = scores["Aaren"], scores["transformer"]
        ahead = ours - theirs if setting.more_is_better else theirs - ours
        verdict = "yes" if ahead >= -max(one, other) else "no"
    control = cells.pop() if setting.control else ""
    return [f"`{setting.name}`", setting.metric, *cells, control, baseline, verdict]


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="settings whose name holds this text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("runs/aaren_settings.jsonl"))
    parser.add_argument("--show", action="store_true", help="train nothing, print what there is")
    options = parser.parse_args()
    settings = [setting for setting in SETTINGS if options.only in setting.name]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    if not options.show:
        measure(settings, options.seeds, options.results)
    found = results(options.results)
    header = ["recipe", "test", "Aaren, parameters", "transformer, parameters", "running mean"]
    header += ["best baseline", "within one deviation, or better"]
    title = f"Mean and deviation over {len(options.seeds)} seeds:"
    show(title, [header, *(line(setting, options.seeds, found) for setting in settings)])


if __name__ == "__main__":
    main()
