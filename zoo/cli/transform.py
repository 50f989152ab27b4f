"""`zoo transform`: a transform applied to a trained model."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.output import add_verb, print_result


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "transform",
        transform,
        "Apply a transform to the best model of a run: a new run folder.",
        "zoo transform latest sigmareparam gamma_init=1.0",
    )
    parser.add_argument(
        "run_folder", metavar="RUN", help="a run folder, 'latest', or a recipe: its latest run"
    )
    parser.add_argument("name", metavar="NAME", help="the transform; 'zoo list transforms' shows all")
    parser.add_argument(
        "params",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="its parameters; data.params.path=moved.csv where the training data lies elsewhere now",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def transform(options: argparse.Namespace) -> int:
    from zoo.catalogue import catalogue
    from zoo.runs import find_run

    run = find_run(options.run_folder)
    catalogue().get("transform", options.name)  # a mistyped name shows before torch is imported
    overrides = [text for text in options.params if text.startswith("data.")]
    params = [text for text in options.params if text not in overrides]
    from zoo.training import transform_run

    done = transform_run(run, options.name, params, overrides=overrides)

    def text() -> None:
        print(f"Outputs on random input moved by {done.change:.1g} of the largest. Run: {done.run.path}")

    data = {"run": str(done.run.path), "change": done.change, "notes": list(done.notes)}
    return print_result(data, text, as_json=options.json, notes=done.notes)
