"""Passkeys beyond the length of training: landmark attention and a transformer of equal size.

    python benchmarks/passkey.py [--seeds 0 1 2] [--results PATH] [--figure PATH] [--show]

Trains the recipe `landmark/passkey` and the same with `core/transformer`, then scores the weights on longer
texts as `zoo eval` does. The landmark model is scored three times: as it is, without fetching (it sees its
window only), and with everything in one pass at true positions, as in training. What is done is a line of
PATH and is not repeated, so that it can be stopped at any time and go on later.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from turns import show

import zoo
from zoo.training import evaluate

RECIPE = "landmark/passkey"
TRANSFORMER = "model={name: core/transformer, width: 64, params: {depth: 2, heads: 2, positions: rope}}"
#: The length of training first; how many texts, and how many at a time.
LENGTHS = {120: (256, 64), 240: (256, 64), 960: (256, 16), 3840: (64, 4)}
#: How a trained model is scored: its name in the table, and what is changed for it.
WAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "landmark": {
        "landmark/lm, fetching 2 blocks": (),
        "without fetching": ("model.params.attention.top_k=0",),
        "all at true positions": ("model.params.attention.top_k=null",),
    },
    "transformer": {"core/transformer": ()},
}


def measure(seeds: list[int], path: Path) -> None:
    """Train and score what is not in `path` yet."""
    done = {(row["way"], row["seed"]) for row in rows(path)}
    for seed in seeds:
        for model, ways in WAYS.items():
            if all((way, seed) in done for way in ways):
                continue
            changes = [TRANSFORMER] if model == "transformer" else []
            result = zoo.train(RECIPE, [*changes, f"seed={seed}"], quiet=True)
            if result.run is None or result.status != "finished":
                return
            for way, overrides in ways.items():
                scores = {length: score(result.run, length, overrides) for length in LENGTHS}
                row = {"way": way, "seed": seed, "parameters": result.parameters, "accuracy": scores}
                print(row, flush=True)
                with path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(row) + "\n")


def score(run: Any, length: int, overrides: tuple[str, ...]) -> float:
    """The share of passkeys that are found in texts of this length."""
    texts, batch = LENGTHS[length]
    params = {"length": length, "eval_examples": texts, "examples": 1}  # none to train on
    data = (f"data.params.{name}={value}" for name, value in params.items())
    changes = (*data, f"data.eval_batch_size={batch}", *overrides)
    return evaluate(run, overrides=changes, quiet=True).metrics["test/accuracy"]


def rows(path: Path) -> list[dict[str, Any]]:
    """What is done."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def by_way(path: Path) -> dict[str, list[dict[str, Any]]]:
    """What is done, in the order of the table."""
    found = rows(path)
    every = {way: [row for row in found if row["way"] == way] for ways in WAYS.values() for way in ways}
    return {way: some for way, some in every.items() if some}


def table(path: Path) -> list[list[str]]:
    """Mean accuracy over the seeds, in brackets each."""
    lines = [["symbols", *map(str, LENGTHS)]]
    for way, found in by_way(path).items():
        cells = []
        for length in map(str, LENGTHS):
            scores = [row["accuracy"][length] for row in found]
            cells.append(f"{statistics.mean(scores):.3f} ({', '.join(f'{score:.2f}' for score in scores)})")
        lines.append([f"{way}, {found[0]['parameters']:,} parameters", *cells])
    return lines


def draw(path: Path, picture: Path) -> None:
    """Accuracy by length, a line for each way, its mean over the seeds, and a dot for each of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    times = [length // min(LENGTHS) for length in LENGTHS]
    for number, (way, found) in enumerate(by_way(path).items()):
        scores = [[row["accuracy"][str(length)] for row in found] for length in LENGTHS]
        axis.plot(times, [statistics.mean(some) for some in scores], color=f"C{number}", label=way)
        for at, some in zip(times, scores, strict=True):
            axis.plot([at] * len(some), some, ".", color=f"C{number}")
    axis.axhline(0.1, color="grey", linestyle=":", label="chance")
    axis.set(xlabel="length, times that of training", ylabel="passkeys found", ylim=(0, 1.03), xscale="log")
    axis.set_xticks(times, [f"{at}x" for at in times])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    figure.savefig(picture, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("runs/passkey.jsonl"))
    parser.add_argument("--figure", type=Path, help="draw accuracy by length")
    parser.add_argument("--show", action="store_true", help="train nothing, print what there is")
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    if not options.show:
        measure(options.seeds, options.results)
    show(f"Passkeys found, mean over {len(options.seeds)} seeds:", table(options.results))
    if options.figure:
        draw(options.results, options.figure)


if __name__ == "__main__":
    main()
