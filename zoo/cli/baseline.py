"""`zoo baseline`: what simple answers get on a dataset."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from zoo.catalogue import catalogue
from zoo.cli.data import dataset_parts
from zoo.cli.output import add_verb, print_json, print_table
from zoo.errors import ZooError

#: Metrics shown as columns; --json gives all.
COLUMNS = 6


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "baseline",
        baseline,
        "Score simple answers on a dataset: the majority or mean, ridge, logistic regression, trees.",
        "zoo baseline core/wine",
    )
    parser.add_argument("dataset", help="a dataset; its parameters follow")
    parser.add_argument("parameters", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. horizon=48")
    parser.add_argument("--json", action="store_true", help="print JSON, with every metric")


def baseline(options: argparse.Namespace) -> int:
    found = catalogue()
    parts = dataset_parts(found, [options.dataset, *options.parameters])
    if len(parts) > 1:
        raise ZooError(f"zoo baseline takes one dataset, got {', '.join(part.id for part in parts)}")
    from zoo.baselines import measure
    from zoo.baselines.measure import sentence

    scores = measure(found, parts[0])
    if options.json:
        print_json([dataclasses.asdict(score) for score in scores])
        return 0
    names = list(dict.fromkeys(name for score in scores for name in score.metrics))[:COLUMNS]
    rows = [
        [
            score.name,
            *(_number(score.metrics.get(name)) for name in names),
            f"{score.seconds:.1f}",
            score.note,
        ]
        for score in scores
    ]
    print_table(["baseline", *names, "seconds", "fitted on"], rows)
    if missing := sentence(scores):
        print(missing)
    return 0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
