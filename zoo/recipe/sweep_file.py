"""What the file of a sweep may say, and how it is told from a recipe.

    schema: 1
    recipes: [core/compare_text, core/compare_images]
    points:
      - {model: {name: core/transformer}}
      - {model: {name: aaren/encoder}}
    values: {seed: 0..2}
    match: params

It says what the arguments and options of `zoo sweep` say; `zoo.sweep` makes points of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from zoo.config import Config, param
from zoo.recipe.schema import Recipe, check_schema
from zoo.recipe.source import Node

#: Ends the names of files that lie beside recipes and are sweeps: `recipes/core/five_models.sweep.yaml`.
SWEEP_SUFFIX = ".sweep.yaml"


@dataclass(frozen=True, kw_only=True)
class SweepFile(Config):
    """A whole sweep, checked but for what it says of the recipes."""

    schema: int = param(help="version of the form, that of recipes")
    title: str = param("", "one line, over the page")
    recipes: tuple[str, ...] = param(help="names, or paths from this file's folder")
    values: dict[str, Any] = param(
        factory=dict,
        help="a fragment of the recipe; lists ([1e-3, 3e-3]) and ranges (0..4, 1e-4..1e-2) are combined",
    )
    points: tuple[dict[str, Any], ...] = param((), "fragments of the recipe, a point each")
    match: Literal["params", "flops"] | None = param(None, "one size for all models, that of the first point")
    sampler: Literal["random", "tpe"] | None = param(None, "draws points; null: all are trained")
    trials: int | None = param(None, "how many points a sampler draws", at_least=1)
    sampler_seed: int = param(0, "of what it draws", at_least=0)
    jobs: int = param(1, "points trained at the same time", at_least=1)
    on: Literal["here", "ray"] = param("here", "in processes of this machine, or on a Ray cluster")
    html: str | None = param(None, "the page that it ends with, from the working folder")

    def check(self) -> Iterator[tuple[str, str]]:
        yield from check_schema(self.schema)
        if not self.recipes:
            yield "recipes", "must name at least one recipe"


#: Keys that a sweep has and no recipe.
KEYS = frozenset(field.name for field in fields(SweepFile)) - {field.name for field in fields(Recipe)}


def is_sweep(node: Node) -> bool:
    """Whether a file is a sweep: it has a key that only a sweep has, and names no model of its own."""
    return isinstance(node.value, dict) and "model" not in node.value and not KEYS.isdisjoint(node.value)
