"""Models trained on short texts and scored on longer ones, side by side: what the scripts of it share.

Everything is a run of a recipe and evaluations of it, as `zoo train` and `zoo eval` make them. What is done
is a line of a file and is not repeated, so that a script can be stopped at any time and go on later.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turns import show

import zoo
from zoo.training import evaluate

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What is trained, and how it is scored.

    models: what is changed in the recipe, by model.
    ways: how a trained model is scored, its name in the table and what is changed for it, by model.
    lengths: the length of training first; how many texts, and how many at a time.
    length_param: the dataset's parameter that the length is. chance: what guessing reaches.
    """

    recipe: str
    models: Mapping[str, Overrides]
    ways: Mapping[str, Mapping[str, Overrides]]
    lengths: Mapping[int, tuple[int, int]]
    length_param: str
    metric: str
    what: str
    chance: float


def measure(comparison: Comparison, models: Sequence[str], seeds: Sequence[int], path: Path) -> None:
    """Train and score what is not in `path` yet."""
    done = {(row["way"], row["seed"]) for row in rows(path)}
    for seed in seeds:
        for model in models:
            ways = comparison.ways[model]
            if all((way, seed) in done for way in ways):
                continue
            changes = [*comparison.models[model], f"seed={seed}"]
            result = zoo.train(comparison.recipe, changes, quiet=True)
            if result.run is None or result.status != "finished":
                return
            for way, overrides in ways.items():
                scores = {n: score(comparison, result.run, n, overrides) for n in comparison.lengths}
                row = {"way": way, "seed": seed, "parameters": result.parameters, "scores": scores}
                print(row, flush=True)
                with path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(row) + "\n")


def score(comparison: Comparison, run: Any, length: int, overrides: Overrides) -> float:
    """The share that is right of texts of this length."""
    texts, batch = comparison.lengths[length]
    params = {comparison.length_param: length, "eval_examples": texts, "examples": 1}  # none to train on
    data = (f"data.params.{name}={value}" for name, value in params.items())
    changes = (*data, f"data.eval_batch_size={batch}", *overrides)
    return evaluate(run, overrides=changes, quiet=True).metrics[comparison.metric]


def rows(path: Path) -> list[dict[str, Any]]:
    """What is done."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def by_way(comparison: Comparison, path: Path) -> dict[str, list[dict[str, Any]]]:
    """What is done, in the order of the table."""
    found = rows(path)
    names = [way for ways in comparison.ways.values() for way in ways]
    every = {way: [row for row in found if row["way"] == way] for way in names}
    return {way: some for way, some in every.items() if some}


def table(comparison: Comparison, path: Path) -> list[list[str]]:
    """Mean score over the seeds, in brackets each."""
    lines = [["symbols", *map(str, comparison.lengths)]]
    for way, found in by_way(comparison, path).items():
        cells = []
        for length in map(str, comparison.lengths):
            scores = [row["scores"][length] for row in found]
            cells.append(f"{statistics.mean(scores):.3f} ({', '.join(f'{score:.2f}' for score in scores)})")
        lines.append([f"{way}, {found[0]['parameters']:,} parameters", *cells])
    return lines


def draw(comparison: Comparison, path: Path, picture: Path) -> None:
    """Scores by length, a line for each way, its mean over the seeds, and a dot for each of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    lengths = comparison.lengths
    times = [length // min(lengths) for length in lengths]
    for number, (way, found) in enumerate(by_way(comparison, path).items()):
        scores = [[row["scores"][str(length)] for row in found] for length in lengths]
        axis.plot(times, [statistics.mean(some) for some in scores], color=f"C{number}", label=way)
        for at, some in zip(times, scores, strict=True):
            axis.plot([at] * len(some), some, ".", color=f"C{number}")
    axis.axhline(comparison.chance, color="grey", linestyle=":", label="chance")
    axis.set(
        xlabel="length, times that of training", ylabel=comparison.what, ylim=(-0.03, 1.03), xscale="log"
    )
    axis.set_xticks(times, [f"{at}x" for at in times])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    figure.savefig(picture, dpi=120)


def main(comparison: Comparison, description: str | None, results: Path) -> None:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=[*comparison.models], default=[*comparison.models])
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--figure", type=Path, help="draw scores by length")
    parser.add_argument("--show", action="store_true", help="train nothing, print what there is")
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    if not options.show:
        measure(comparison, options.only, options.seeds, options.results)
    seeds = f"mean over {len(options.seeds)} seeds"
    show(f"{comparison.what.capitalize()}, {seeds}:", table(comparison, options.results))
    if options.figure:
        draw(comparison, options.results, options.figure)
