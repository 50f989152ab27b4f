"""`zoo recipe`, `zoo validate`: find, read, copy and check recipes (torch-free)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoo.cli.output import add_verb, print_json, print_table
from zoo.errors import ZooError


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs, "recipe", recipe, "List, show, copy or render recipes.", "zoo recipe copy aaren/digits my.yaml"
    )
    parser.add_argument("action", choices=["list", "show", "copy", "render"])
    parser.add_argument("name", nargs="?", help="plugin/recipe, or the path of a YAML file")
    parser.add_argument(
        "rest", nargs="*", default=[], metavar="PATH|KEY=VALUE", help="copy: where to; render: overrides"
    )
    parser.add_argument("--json", action="store_true", help="list: print JSON")

    parser = add_verb(
        verbs,
        "validate",
        validate,
        "Check a recipe without training: every mistake at once, each with its place.",
        "zoo validate my_recipe.yaml optim.lr=3e-4",
    )
    parser.add_argument("recipe", help="plugin/recipe, or the path of a YAML file")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="print JSON")


def recipe(options: argparse.Namespace) -> int:
    from zoo.recipe import find_recipe, list_recipes, load_recipe
    from zoo.recipe.find import sweep_files

    if options.action == "list":
        found = list_recipes(options.name or "*")
        if options.json:
            print_json([{"name": r.name, "title": r.title, "path": str(r.path)} for r in found])
        else:
            print_table(["recipe", "title"], ([r.name, r.title] for r in found))
            print(f"\nsweeps, for 'zoo sweep NAME': {', '.join(sweep_files())}")
        return 0
    if options.name is None:
        raise ZooError(f"zoo recipe {options.action} needs the name of a recipe; 'zoo recipe list' shows all")
    if options.action == "render":
        print(load_recipe(options.name, options.rest).render(), end="")
        return 0
    sweep = sweep_files().get(options.name)
    path = sweep or find_recipe(options.name)
    if options.action == "show":
        print(path.read_text(encoding="utf-8"), end="")
        return 0
    return _copy(path, options.rest, "sweep" if sweep else "train")


def _copy(source: Path, rest: list[str], verb: str) -> int:
    if len(rest) > 1:
        raise ZooError(f"zoo recipe copy takes one path to write to, got {len(rest)}: {' '.join(rest)}")
    target = Path(rest[0]) if rest else Path(source.name)
    if target.is_dir():
        target /= source.name
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise ZooError(f"{target} exists already; name another path: zoo recipe copy NAME PATH") from None
    except OSError as error:
        raise ZooError(f"{target} cannot be written: {error.strerror}") from None
    print(f"copied to {target}; train it with: zoo {verb} {target}")
    return 0


def validate(options: argparse.Namespace) -> int:
    from zoo.recipe import validate as check

    report = check(options.recipe, options.overrides)
    if options.json:
        print_json(report.to_dict())
    else:
        print(report)
    return 0 if report.ok else 2
