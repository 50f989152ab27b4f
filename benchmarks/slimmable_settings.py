"""One slimmable multi-task network beside networks trained alone: quality by width, search, hypervolume.

    python benchmarks/slimmable_settings.py [--recipe slim/shapes] [--seeds 0 1 2] [--only plain ...]
    python benchmarks/slimmable_settings.py --set trainer.max_epochs=4

Each setting is a run of the recipe (with the overrides of `--set`); what is done is kept in
runs/slimmable_settings, so that it can go on another day. `--split val` prints the figures on validation
data, by which settings are chosen; `--split hidden` those on the images of train whose answers were kept
back. The last lines are the tables of plugins/zoo_slimmable/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OUT = Path("runs/slimmable_settings")
WIDTHS = (0.25, 0.5, 0.75, 1.0)
BUDGETS = (0.3, 0.5, 0.7)
#: Of each recipe: the width of the encoder and the hidden width of its decoders, and how much is distilled.
RECIPES = {
    "slim/shapes": (64, 16, 0.1),
    "slim/digits_mtl": (64, 32, 0.1),
    "slim/digits_few_labels": (64, 32, 0.75),
    "slim/fashion_mnist_mtl": (64, 32, 0.1),
}
#: Where widths take turns: epochs in which a network alone, or one that trains four widths in each step, has
#: as many passes of each width.
EPOCHS = {"slim/shapes": 1}
SANDWICH = "callbacks.slim/sandwich"


def settings_of(recipe: str) -> dict[str, list[str]]:
    """Overrides of the recipe; networks alone are as narrow as the slimmed ones, and run one pass a step."""
    width, hidden, weight = RECIPES[recipe]
    fewer = [f"trainer.max_epochs={EPOCHS[recipe]}"] if recipe in EPOCHS else []
    several = [f"{SANDWICH}.rule=sandwich", *fewer]
    alone = {
        f"alone {share:g}": [
            f"model.width={int(width * share)}",
            f"model.head.params.hidden={int(hidden * share)}",
            f"{SANDWICH}.distill=0.0",
            f"{SANDWICH}.passes=1",
            *several,
        ]
        for share in WIDTHS
    }
    return {
        "plain": [f"{SANDWICH}.distill=0.0"],
        "each": [f"{SANDWICH}.distill=0.0", f"{SANDWICH}.rule=each", *fewer],
        "sandwich": [f"{SANDWICH}.distill=0.0", *several],
        "distilled": [f"{SANDWICH}.distill={weight}", *several],
        "distilled at once": [f"{SANDWICH}.distill={weight}", f"{SANDWICH}.distill_from=0.0", *several],
        "distilled x 10": [f"{SANDWICH}.distill={10 * weight}", *several],
        "prefix": [f"{SANDWICH}.distill={weight}", f"{SANDWICH}.distance=prefix", *several],
        "attention": [f"{SANDWICH}.distill={weight}", f"{SANDWICH}.distance=attention", *several],
        "answers": [f"{SANDWICH}.distill=0.0", f"{SANDWICH}.answers=0.5", *several],
        "uniform": [f"{SANDWICH}.distill=0.0", f"{SANDWICH}.uniform=true", *several],
        **alone,
    }


def measure(recipe: str, setting: str, seed: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Train, and score every width on val and test; of a network alone its own."""
    from zoo_slimmable.commands import table_of

    import zoo
    from zoo.training.saved import Saved

    start = time.process_time()
    given = [*settings_of(recipe)[setting], *overrides, f"seed={seed}", f"output.dir={OUT / 'runs'}"]
    if recipe == "slim/digits_few_labels":
        given.append(f"data.params.seed={seed}")  # of each seed other images are labelled
    result = zoo.train(recipe, given, quiet=True)
    seconds = time.process_time() - start
    if result.run is None or result.status != "finished":
        raise SystemExit(f"{setting}, seed {seed}: the run is {result.status}; start again to train it anew")
    saved, widths = Saved(result.run), (1.0,) if setting.startswith("alone") else WIDTHS
    table_of(saved, widths)
    table = json.loads((result.run.path / "slim_table.json").read_text())
    if recipe == "slim/digits_few_labels":
        table["quality"]["hidden"] = hidden(saved, widths)
    return {"seconds": seconds, "table": table}


def hidden(saved: Any, widths: Sequence[float]) -> list[list[list[float]]]:
    """As the table's quality, on the images of train whose answers were kept back from training."""
    import torch
    from zoo_slimmable.configuration import groups_of
    from zoo_slimmable.table import calibrated

    import zoo
    from zoo.plugin import IGNORE

    model, given, every = saved.model().eval(), saved.splits(), zoo.create_dataset("core/digits_mtl")
    kept = (given.train.targets["digit"] == IGNORE).nonzero()[:, 0]
    known = {name: target[kept] for name, target in every.train.targets.items()}
    slant = every.decode(known["slant"])
    groups = groups_of(model)

    @torch.no_grad()
    def quality(encoder: float, decoder: float) -> list[float]:
        calibrated(model, saved, {g: encoder if g == groups[0] else decoder for g in groups})
        outputs = torch.cat([model(x) for x in given.train.inputs[kept].split(256)])
        answers = model.plan.targets.split(outputs)
        right = [(answers[n].argmax(1) == known[n]).double().mean() for n in ("digit", "loops")]
        unexplained = (given.decode(answers["slant"]) - slant).square().mean() / slant.var(correction=0)
        return [*map(float, right), 1 - float(unexplained)]

    return [[quality(encoder, decoder) for decoder in sorted(widths)] for encoder in sorted(widths)]


def quality(found: Mapping[str, Any], width: float, split: str) -> list[float]:
    """What each task achieves with encoder and decoders at one width."""
    table = found["table"]
    at = table["encoder"].index(width)
    return list(table["quality"][split][at][at])


def report(recipe: str, done: Mapping[str, Mapping[str, Any]], split: str) -> None:
    """The tables."""
    by_setting: dict[str, list[Mapping[str, Any]]] = {}
    for name, found in done.items():
        by_setting.setdefault(name.rpartition(" ")[0], []).append(found)
    tasks = next(iter(done.values()))["table"]["tasks"]
    print(
        f"\n{recipe}, {split}: mean of {', '.join(tasks)} (over seeds, lowest to highest), at widths {WIDTHS}"
    )
    alone = [by_setting.get(f"alone {width:g}", []) for width in WIDTHS]
    for setting, seeds in by_setting.items():
        if not setting.startswith("alone"):
            rows = [[statistics.fmean(quality(found, width, split)) for found in seeds] for width in WIDTHS]
            least = [statistics.fmean(_encoder_rows(found, 0, split)) for found in seeds]
            print(f"{setting:12} ({len(seeds)})", *map(spread, rows), f"encoder 0.25: {spread(least)}")
    if all(alone):
        rows = [[statistics.fmean(quality(f, 1.0, split)) for f in seeds] for seeds in alone]
        print(f"{'alone':12} ({len(alone[0])})", *map(spread, rows))
        for setting in ("plain", "each", "distilled"):
            for at, task in enumerate(tasks if setting in by_setting else ()):
                gaps = [
                    statistics.fmean(quality(f, width, split)[at] for f in by_setting[setting])
                    - statistics.fmean(quality(f, 1.0, split)[at] for f in seeds)
                    for width, seeds in zip(WIDTHS, alone, strict=True)
                ]
                print(f"{setting} minus alone, {task}, points:", *(f"{100 * gap:+.2f}" for gap in gaps))
    for setting in ("plain", "distilled"):
        report_search(setting, by_setting.get(setting, []))


def report_search(setting: str, seeds: list[Mapping[str, Any]]) -> None:
    """Hypervolume on test of what is searched on val, beside uniform widths and each encoder held fixed."""
    from zoo_slimmable.metrics import compare, controllability
    from zoo_slimmable.search import ScoreTable

    for share in BUDGETS if seeds else ():
        found: dict[str, list[float]] = {}
        for seed in seeds:
            sizes = {key: tuple(seed["table"][key]) for key in ("tasks", "encoder", "decoder")}
            table = ScoreTable(**{**seed["table"], **sizes})
            control = controllability(table, share * table.full_macs)
            beside = compare(table, share * table.full_macs)
            for name, value in beside.items():
                if value is not None:
                    found.setdefault(name, []).append(value)
            print(
                f"{setting}, {share}x, above ({', '.join(f'{v:.4f}' for v in control.reference)}): "
                + ", ".join(f"{n} {'-' if v is None else f'{v:.3g}'}" for n, v in beside.items())
                + f"; response {', '.join(f'{t} {v:.2f}' for t, v in control.response.items())}"
                + f"; used {control.used[1]:.3f} to {control.used[0]:.3f}"
            )
        print(
            f"{setting}, {share}x, mean:",
            ", ".join(f"{n} {statistics.fmean(v):.3g}" for n, v in found.items()),
        )


def spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ({min(values):.4f}-{max(values):.4f})"


def _encoder_rows(found: Mapping[str, Any], encoder: int, split: str) -> list[float]:
    return [statistics.fmean(row) for row in found["table"]["quality"][split][encoder]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=list(RECIPES), default="slim/shapes")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=["plain", "distilled", "uniform", "alone"])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of every run")
    parser.add_argument("--split", choices=["val", "test", "hidden"], default="test")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / ("_".join([options.recipe, *options.set]).replace("/", "_") + ".json")
    for seed in options.seeds:
        for setting in settings_of(options.recipe):
            wanted = setting in options.only or ("alone" in options.only and setting.startswith("alone"))
            if wanted and f"{setting} {seed}" not in read(path):
                found = measure(options.recipe, setting, seed, options.set)
                path.write_text(json.dumps({**read(path), f"{setting} {seed}": found}))
                print(f"{setting} {seed}: {found['seconds']:.0f} CPU s", file=sys.stderr)
    report(options.recipe, read(path), options.split)


def read(path: Path) -> dict[str, Any]:
    """What is done; read anew each time, so that several may work on it."""
    return json.loads(path.read_text()) if path.is_file() else {}


if __name__ == "__main__":
    main()
