"""KANs, MLPs of as many parameters and tuned trees on alloys, by random and by grouped splits.

    python benchmarks/kan_alloys.py [--only hea_phase] [--splits random] [--seeds 0 1] [--results P] [--show]

Each network is a recipe, `kan/...` and `core/...`, the latter at the width that has as many parameters. A
seed is that of the split too. Trees are chosen by validation among forests, extremely randomised and boosted
ones; each target has its own. A result is a line of P and is not measured again. `hea_phase` is fetched.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from turns import show

import zoo
from zoo.matching import match, size_of

METRICS = {"hea_strength": ("mse", "r2"), "hea_phase": ("accuracy", "f1_macro")}
SPLITS = ("grouped", "random")
KAN, MLP, TREES = "KAN", "MLP of equal parameters", "tuned trees"
FOREST: dict[str, Any] = {"n_estimators": 100, "random_state": 0}


class Parts(NamedTuple):
    """Features (B, F) and targets (B, K) or (B,) of a split."""

    x: np.ndarray
    y: np.ndarray


def settings(data: str, split: str, seed: int) -> list[str]:
    return [f"seed={seed}", f"data.params.split={split}", f"data.params.seed={seed}"]


def train(recipe: str, overrides: Sequence[str]) -> dict[str, Any]:
    result = zoo.train(recipe, overrides, quiet=True)
    if result.status != "finished":
        raise SystemExit(f"{recipe} {' '.join(overrides)}: {result.status}")
    metrics = {name.removeprefix("test/"): value for name, value in result.metrics.items()}
    return {"parameters": result.parameters, **metrics}


def network(data: str, split: str, seed: int) -> dict[str, Any]:
    return train(f"kan/{data}", settings(data, split, seed))


def mlp(data: str, split: str, seed: int) -> dict[str, Any]:
    """The core's recipe at the width that has as many parameters as the KAN."""
    found = match(f"core/{data}", target=size_of(zoo.load_recipe(f"kan/{data}"), "params"))
    return train(f"core/{data}", [*found.overrides, *settings(data, split, seed)])


def candidates(classes: bool) -> Iterator[Callable[[], Any]]:
    from sklearn import ensemble

    forest = ensemble.RandomForestClassifier if classes else ensemble.RandomForestRegressor
    extra = ensemble.ExtraTreesClassifier if classes else ensemble.ExtraTreesRegressor
    for share in (0.2, 0.5) if classes else (0.2, 0.5, 1.0):
        for kind in (forest, extra):
            yield lambda kind=kind, share=share: kind(max_features=share, **FOREST)
    if not classes:
        for leaves in (8, 31):
            yield lambda leaves=leaves: ensemble.HistGradientBoostingRegressor(
                max_leaf_nodes=leaves, max_iter=300, learning_rate=0.05, random_state=0
            )


def trees(data: str, split: str, seed: int) -> dict[str, Any]:
    """The best on validation, for each target, scored on test."""
    from sklearn import metrics

    splits = zoo.create_dataset(data, split=split, seed=seed)
    train_, val, test = (Parts(p.inputs.numpy(), p.targets.numpy()) for p in vars_of(splits))
    if data == "hea_phase":
        models = [make().fit(*train_) for make in candidates(True)]
        best = max(models, key=lambda model: model.score(*val))
        answers = best.predict(test.x)
        f1 = metrics.f1_score(test.y, answers, average="macro")
        return {"accuracy": float((answers == test.y).mean()), "f1_macro": float(f1)}
    errors, r2 = [], []
    for k in range(train_.y.shape[1]):
        known = [~np.isnan(part.y[:, k]) for part in (train_, val, test)]
        models = [make().fit(train_.x[known[0]], train_.y[known[0], k]) for make in candidates(False)]
        best = max(models, key=lambda model: model.score(val.x[known[1]], val.y[known[1], k]))
        answers, truth = best.predict(test.x[known[2]]), test.y[known[2], k]
        errors.append((answers - truth) ** 2)
        r2.append(metrics.r2_score(truth, answers))
    return {"mse": float(np.concatenate(errors).mean()), "r2": float(np.mean(r2))}


def vars_of(splits: Any) -> tuple[Any, Any, Any]:
    return splits.train, splits.val, splits.test


MODELS: dict[str, Callable[[str, str, int], dict[str, Any]]] = {KAN: network, MLP: mlp, TREES: trees}


def measure(data: str, splits: Sequence[str], seeds: Sequence[int], path: Path) -> None:
    """What is not in `path` yet, a line for each."""
    done = results(path)
    for split in splits:
        for seed in seeds:
            for model, run in MODELS.items():
                key = " | ".join((data, split, model, str(seed)))
                if key not in done:
                    print(key, flush=True)
                    with path.open("a", encoding="utf-8") as out:
                        out.write(json.dumps({"run": key, **run(data, split, seed)}) + "\n")


def results(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["run"]: row for row in map(json.loads, lines)}


def rows(data: str, seeds: Sequence[int], found: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    """Mean and deviation over the seeds that are there."""
    for split in SPLITS:
        for model in MODELS:
            runs = [found.get(" | ".join((data, split, model, str(seed)))) for seed in seeds]
            whole = [run for run in runs if run is not None]
            cells = []
            for metric in METRICS[data]:
                values = [run[metric] for run in whole]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f"{statistics.mean(values):.3f} ({spread:.3f})" if values else "")
            size = f"{whole[0]['parameters']:,}" if whole and "parameters" in whole[0] else ""
            yield [split, model, size, *cells, str(len(whole))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(METRICS), default=list(METRICS))
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--results", type=Path, default=Path("runs/kan_alloys.jsonl"))
    parser.add_argument("--show", action="store_true", help="measure nothing, print what there is")
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for data in options.only:
        if not options.show:
            measure(data, options.splits, options.seeds, options.results)
        header = ["split", "model", "parameters", *METRICS[data], "seeds"]
        show(data, [header, *rows(data, options.seeds, results(options.results))])


if __name__ == "__main__":
    main()
