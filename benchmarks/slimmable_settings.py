"""One slimmable multi-task network beside networks trained alone: accuracy by width, search, hypervolume.

    python benchmarks/slimmable_settings.py [--seeds 0 1 2] [--only plain distilled uniform alone]

Each setting is a run of the recipe slim/digits_mtl; what is done is kept in runs/slimmable_settings, so
that it can go on another day. The last lines are the tables of plugins/zoo_slimmable/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OUT = Path("runs/slimmable_settings")
WIDTHS = (0.25, 0.5, 0.75, 1.0)
RECIPE = "slim/digits_mtl"
#: Overrides of the recipe; networks alone are built as narrow as the slimmed ones, without the callback.
SETTINGS: dict[str, list[str]] = {
    "plain": [],
    "distilled": ["callbacks.slim/sandwich.distill=1.0"],
    "uniform": ["callbacks.slim/sandwich.uniform=true"],
}
ALONE = {
    f"alone {width:g}": [
        f"model.width={int(64 * width)}",
        f"model.head.params.hidden={int(32 * width)}",
        "callbacks.slim/sandwich.passes=1",
    ]
    for width in WIDTHS
}


def measure(overrides: list[str], seed: int) -> dict[str, Any]:
    """Train, and score every width on val and test."""
    from zoo_slimmable.commands import table_of

    import zoo
    from zoo.training.saved import Saved

    start = time.process_time()
    given = [*overrides, f"seed={seed}", f"output.dir={OUT / 'runs'}"]
    result = zoo.train(RECIPE, given, quiet=True)
    seconds = time.process_time() - start
    found: dict[str, Any] = {"seconds": seconds, "metrics": dict(result.metrics)}
    if not any("passes=1" in text for text in overrides):
        table_of(Saved(result.run), WIDTHS)
        found["table"] = json.loads((result.run.path / "slim_table.json").read_text())
    return found


def quality(found: Mapping[str, Any], width: float) -> float:
    """The mean over the questions on test: accuracies, and the explained share of the slant's variance."""
    if "table" in found:
        at = found["table"]["encoder"].index(width)
        return statistics.fmean(found["table"]["quality"]["test"][at][at])
    metrics = found["metrics"]
    return statistics.fmean(
        [metrics["test/digit/accuracy"], metrics["test/loops/accuracy"], metrics["test/slant/r2"]]
    )


def report(done: Mapping[str, Mapping[str, Any]]) -> None:
    """The tables."""
    from zoo_slimmable.metrics import compare, controllability
    from zoo_slimmable.search import ScoreTable

    print("\nmean of the three questions on test (mean over seeds, lowest to highest)")
    for setting in SETTINGS:
        seeds = [found for name, found in done.items() if name.rpartition(" ")[0] == setting]
        if seeds:
            rows = [[quality(found, width) for found in seeds] for width in WIDTHS]
            print(f"{setting:10} ({len(seeds)})", *(spread(row) for row in rows))
            whole = [statistics.fmean(_encoder_rows(found, 0)) for found in seeds]
            print(f"{'':10} encoder at 0.25, all decoders: {spread(whole)}")
    rows = [
        [quality(f, w) for name, f in done.items() if name.rpartition(" ")[0] == f"alone {w:g}"]
        for w in WIDTHS
    ]
    if all(rows):
        print(f"{'alone':10} ({len(rows[0])})", *(spread(row) for row in rows))
    for name, found in done.items():
        if not name.startswith("plain"):
            continue
        sizes = {key: tuple(found["table"][key]) for key in ("tasks", "encoder", "decoder")}
        table = ScoreTable(**{**found["table"], **sizes})
        for share in (0.3, 0.5, 0.7):
            budget = share * table.full_macs
            control = controllability(table, budget)
            beside = ", ".join(
                f"{n} {'-' if v is None else f'{v:.3g}'}" for n, v in compare(table, budget).items()
            )
            print(
                f"{name}, budget {share}x, above {tuple(round(v, 4) for v in control.reference)}: {beside}; "
                f"response { ({t: round(v, 2) for t, v in control.response.items()}) }; "
                f"used {control.used[1]:.3f} to {control.used[0]:.3f}"
            )


def spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ({min(values):.4f}-{max(values):.4f})"


def _encoder_rows(found: Mapping[str, Any], encoder: int) -> list[float]:
    return [statistics.fmean(row) for row in found["table"]["quality"]["test"][encoder]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[*SETTINGS, "alone"])
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "slimmable.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    settings = {**SETTINGS, **ALONE}
    for seed in options.seeds:
        for name, overrides in settings.items():
            if name.partition(" ")[0] in options.only and f"{name} {seed}" not in done:
                done[f"{name} {seed}"] = measure(overrides, seed)
                path.write_text(json.dumps(done))
                print(f"{name} {seed}: {done[f'{name} {seed}']['seconds']:.0f} CPU s", file=sys.stderr)
    report(done)


if __name__ == "__main__":
    main()
