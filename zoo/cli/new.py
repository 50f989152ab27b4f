"""`zoo new plugin`: start a plugin distribution (torch-free)."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.output import add_verb
from zoo.scaffold import KINDS, new_plugin


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "new",
        new,
        "Start a plugin: a complete distribution with a small component, a recipe and its tests.",
        "zoo new plugin swirl --kind mixer",
    )
    parser.add_argument("what", choices=["plugin"], help="what to start")
    parser.add_argument("name", help="its id; the distribution becomes zoo-NAME, the package zoo_NAME")
    parser.add_argument("--kind", default="mixer", metavar="KIND", help=f"one of: {', '.join(KINDS)}")
    parser.add_argument("--dir", default=".", help="the folder to write it into")


def new(options: argparse.Namespace) -> int:
    folder = new_plugin(options.name, kind=options.kind, directory=options.dir)
    name = folder.name.removeprefix("zoo-").replace("-", "_")
    recipe = next((folder / f"zoo_{name}" / "recipes").glob("*.yaml"))
    print(
        f"{folder} holds a new {options.kind} plugin. Next:\n"
        f"  pip install --editable {folder}\n"
        f"  zoo check {name}\n"
        f"  zoo train {name}/{recipe.stem}"
    )
    return 0
