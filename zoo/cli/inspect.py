"""`zoo plan`, `zoo matrix`: what would be built, and what can be (torch-free)."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from zoo.catalogue import Catalogue, catalogue
from zoo.cli.output import add_verb, print_json, print_table
from zoo.config import spelt
from zoo.contract import Plan, matrix
from zoo.errors import UnknownName, suggest_id


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs, "plan", plan, "Print what a recipe would build.", "zoo plan aaren/digits model.params.depth=8"
    )
    parser.add_argument("recipe", help="plugin/recipe, or the path of a YAML file")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. model.params.depth=8"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")

    parser = add_verb(
        verbs,
        "matrix",
        matrix_,
        "Print models x datasets at default parameters: ok, or the reason.",
        "zoo matrix --models 'aaren/*'",
    )
    parser.add_argument("--models", default="*", metavar="PATTERN", help="only these models")
    parser.add_argument("--datasets", default="*", metavar="PATTERN", help="only these datasets")
    parser.add_argument("--json", action="store_true", help="print JSON")


def plan(options: argparse.Namespace) -> int:
    from zoo.recipe import load_recipe

    loaded = load_recipe(options.recipe, options.overrides)
    found = loaded.plan
    if options.json:
        print_json(found.to_dict())
        return 0
    print(found.describe())
    print()
    print_table(["step", "component", "parameters"], _steps(found))
    claims = found.claims
    print(
        f"claims: causal {claims.causal}, streams {'yes' if claims.streaming else 'no'}, "
        f"state {claims.state}, cost {claims.cost}"
    )
    task = loaded.recipe.task
    print(f"monitored: {task.monitor or found.monitor} ({task.mode or found.mode})")
    for note in (*found.notes, *loaded.notes):
        print(f"note: {note}")
    return 0


def matrix_(options: argparse.Namespace) -> int:
    found = catalogue()
    models = _matching(found, "model", options.models)
    datasets = _matching(found, "dataset", options.datasets)
    outcomes = matrix(found, models=options.models, datasets=options.datasets)
    cells = {(model, dataset): outcome for model, dataset, outcome in outcomes}
    if options.json:
        print_json(
            [
                {
                    "model": model,
                    "dataset": dataset,
                    "ok": isinstance(outcome, Plan),
                    "plan": outcome.describe() if isinstance(outcome, Plan) else None,
                    "reason": None if isinstance(outcome, Plan) else outcome,
                }
                for (model, dataset), outcome in cells.items()
            ]
        )
        return 0
    reasons: dict[str, int] = {}
    rows = []
    for dataset in datasets:
        row = [dataset]
        for model in models:
            outcome = cells[model, dataset]
            ok = isinstance(outcome, Plan)
            row.append("ok" if ok else f"no [{reasons.setdefault(str(outcome), len(reasons) + 1)}]")
        rows.append(row)
    print_table(["dataset", *models], rows)
    for reason, number in reasons.items():
        print(f"[{number}] {reason}")
    return 0


def _matching(found: Catalogue, kind: str, pattern: str) -> list[str]:
    names = [spec.id for spec in found.matching(kind, pattern)]
    if not names:
        hint = suggest_id(pattern, (spec.id for spec in found.specs(kind)))
        hint = hint or f" 'zoo list {kind}s' shows all."
        raise UnknownName(f"no {kind} matches {pattern!r}.{hint}")
    return names


def _steps(found: Plan) -> list[list[str]]:
    rows = []
    parts = [(step, getattr(found, step)) for step in ("dataset", "stem", "model", "head", "task")]
    parts += [("transform", part) for part in found.transforms]
    for step, part in parts:
        if part is None:
            continue
        params = dataclasses.asdict(part.config) if part.config is not None else {}
        rows.append([step, part.id, ", ".join(f"{key}={spelt(value)}" for key, value in params.items())])
    return rows
