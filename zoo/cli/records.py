"""`zoo record`: put down what a recipe reached, beside it (torch-free)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoo.cli.output import add_verb, print_json, print_table


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "record",
        record,
        "Put down beside a recipe what its finished runs reached; without one, list what is recorded.",
        "zoo record aaren/digits",
    )
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help="plugin/recipe, or the path of a YAML file"
    )
    parser.add_argument(
        "--runs", metavar="DIR", help="folder of the runs; by default where the recipe puts them"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def record(options: argparse.Namespace) -> int:
    return _write(options.recipes, options.runs, options.json) if options.recipes else _list(options.json)


def _write(recipes: list[str], runs: str | None, as_json: bool) -> int:
    from dataclasses import asdict

    from zoo.recipe import find_recipe, load_recipe
    from zoo.records import make_record, path_of, read_record, write_record
    from zoo.runs import list_runs

    written = []
    contradicted = 0
    for name in recipes:
        loaded, path = load_recipe(name), path_of(find_recipe(name))
        found = make_record(loaded, list_runs(runs or loaded.recipe.output.dir), known=read_record(path))
        write_record(found, path)
        written.append({**asdict(found), "path": str(path)})
        if as_json:
            continue
        values = ", ".join(f"{value:.4g}" for value in found.values().values())
        print(f"{name}: {found.metric} {values}, seeds {', '.join(map(str, found.seeds))}: {path}")
        expect = loaded.recipe.expect
        for sentence in found.contradictions(expect) if expect else ():
            contradicted += 1
            print(f"  the recipe {sentence}")
    if as_json:
        print_json(written)
    return 1 if contradicted else 0


def _list(as_json: bool) -> int:
    from zoo.recipe import list_recipes, load_recipe
    from zoo.records import path_of, read_record

    rows: list[dict[str, Any]] = []
    for file in list_recipes():
        found = read_record(path_of(Path(file.path)))
        state = found.state(load_recipe(file.name)) if found else "not recorded"
        rows.append(
            {
                "recipe": file.name,
                "state": state,
                "metric": found.metric if found else "",
                "values": found.values() if found else {},
                "date": max(seed.date for seed in found.seeds.values()) if found else "",
            }
        )
    if as_json:
        print_json(rows)
        return 0
    shown = {"changed": "recorded before it changed", "current": "recorded"}
    print_table(
        ["recipe", "state", "metric", "date", "by seed"],
        [
            [
                row["recipe"],
                shown.get(row["state"], row["state"]),
                row["metric"],
                row["date"],
                ", ".join(f"{value:.4g}" for value in row["values"].values()),
            ]
            for row in rows
        ],
    )
    return 0
