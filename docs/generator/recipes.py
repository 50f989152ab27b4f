"""Every key of a recipe, section by section, and the recipes that come with the zoo."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

from docs.generator.markdown import bounded, default_text, table
from zoo.config import type_name
from zoo.recipe import list_recipes, load_recipe
from zoo.recipe.schema import SCHEMA, Expect, Recipe


def recipe_page() -> str:
    blocks = [
        "# Recipe reference",
        f"Every key that a recipe may have (schema {SCHEMA}). A key that is not here is reported as a "
        "mistake. [Recipes](../recipes.md) says how they are written.",
    ]
    for path, section in sections(Recipe, ""):
        blocks += [f"## {path}" if path else "## The whole", (inspect.getdoc(section) or "").split("\n")[0]]
        blocks.append(section_table(path, section))
    return "\n\n".join(blocks) + "\n"


def shipped_page() -> str:
    rows = []
    for file in list_recipes():
        loaded = load_recipe(file.name)
        rows.append([f"`{file.name}`", loaded.recipe.title, expectation(loaded.recipe.expect)])
    return (
        "# Recipes that come with the zoo\n\n`zoo train NAME` trains one, `zoo recipe copy NAME my.yaml` "
        "makes it yours. What a recipe expects was measured as it says; "
        "[Results](results.md) has what was recorded.\n\n" + table(["recipe", "what it is", "expects"], rows)
    )


def expectation(expect: Expect | None) -> str:
    if expect is None:
        return ""
    seeds = f"{expect.seeds} seeds" if expect.seeds > 1 else "1 seed"
    return f"{expect.metric} {bound(expect)} ({seeds}; {expect.measured_on})"


def bound(expect: Expect) -> str:
    """`at least 0.97`."""
    return f"at least {expect.at_least:g}" if expect.at_least is not None else f"at most {expect.at_most:g}"


def section_table(path: str, section: type) -> str:
    rows = []
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        kind, label = bounded(type_name(hints[field.name]), field), f"`{field.name}`"
        if section_of(hints[field.name]):
            kind = "a section or null" if type(None) in typing.get_args(hints[field.name]) else "a section"
            label = f"[{label}](#{path.replace('.', '')}{field.name})"
        rows.append([label, kind, default_text(field), field.metadata.get("help", "")])
    return table(["key", "type", "default", "what it is"], rows) if rows else "It has no keys."


def sections(section: type, path: str) -> Iterator[tuple[str, type]]:
    """A section and all below it, with their dotted paths."""
    yield path, section
    for name, annotation in typing.get_type_hints(section).items():
        below = section_of(annotation)
        if below:
            yield from sections(below, f"{path}.{name}" if path else name)


def section_of(annotation: Any) -> type | None:
    """The dataclass in `X` or `X | None`."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)
