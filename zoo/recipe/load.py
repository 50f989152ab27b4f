"""From a name, a path or a mapping to a checked recipe with its plan, or to every mistake at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.catalogue import Catalogue, Part
from zoo.catalogue import catalogue as default_catalogue
from zoo.contract import Plan
from zoo.recipe.check import Check
from zoo.recipe.errors import Mistake, Origin, RecipeError, Source, in_order
from zoo.recipe.find import find_recipe, name_of, recipe_files
from zoo.recipe.interpolate import interpolate
from zoo.recipe.layers import Layers
from zoo.recipe.schema import Recipe, defaults
from zoo.recipe.source import Node, from_plain, plain, walk

LEVELS = ("syntax", "schema", "names and versions", "parameters", "contract")


@dataclass(frozen=True, kw_only=True)
class LoadedRecipe:
    """A recipe that is right, and all that was learnt on the way.

    name: `plugin/recipe`, or the file's name without its suffix; "python" for a mapping.
    recipe: its sections, typed. plan: what would be built. callbacks: those of plugins.
    origins: dotted path -> where the value stands; defaults have no entry.
    text: the recipe as given. sources: every file, the recipe's own first.
    notes: what happened on the way that its author may not expect.
    """

    name: str
    recipe: Recipe
    plan: Plan
    callbacks: tuple[Part, ...] = ()
    origins: Mapping[str, Origin]
    text: str
    sources: tuple[Source, ...] = ()
    overrides: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    catalogue: Catalogue = field(repr=False, compare=False)

    def mistake(self, path: str, message: str) -> RecipeError:
        """A mistake in this recipe that shows only when it runs, with its place."""
        place = path
        while place and place not in self.origins:
            place = place.rpartition(".")[0]
        origin = self.origins.get(place, Origin(Source(self.name)))
        return RecipeError([Mistake(3, path, message, origin)])

    def render(self, *, comments: bool = True) -> str:
        """The recipe as it would run: all defaults and choices spelt out, each line with its origin."""
        from zoo.recipe.render import render

        return render(self, comments=comments)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `zoo validate` prints. loaded: the recipe, if there is no mistake."""

    name: str
    mistakes: tuple[Mistake, ...]
    reached: int
    loaded: LoadedRecipe | None = None

    @property
    def ok(self) -> bool:
        return self.loaded is not None

    @property
    def levels(self) -> tuple[tuple[str, str], ...]:
        """(level, "ok" | "3 mistakes" | "not reached")."""
        rows = []
        for level, title in enumerate(LEVELS):
            count = sum(mistake.level == level for mistake in self.mistakes)
            outcome = f"{count} mistake{'s' if count > 1 else ''}" if count else "ok"
            rows.append((title, outcome if level <= self.reached else "not reached"))
        return tuple(rows)

    def __str__(self) -> str:
        lines = [str(mistake) for mistake in self.mistakes]
        lines += [f"{number} {title:<18} {outcome}" for number, (title, outcome) in enumerate(self.levels)]
        if self.loaded:
            lines += [f"note: {note}" for note in (*self.loaded.notes, *self.loaded.plan.notes)]
            lines.append(f"{self.name}: {self.loaded.plan.describe()}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "recipe": self.name,
            "ok": self.ok,
            "levels": dict(self.levels),
            "mistakes": [
                {
                    "level": mistake.level,
                    "file": mistake.origin.source.name,
                    "line": mistake.origin.line or None,
                    "column": mistake.origin.column or None,
                    "path": mistake.path,
                    "message": mistake.message,
                }
                for mistake in self.mistakes
            ],
            "plan": self.loaded.plan.describe() if self.loaded else None,
        }


def load_recipe(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    catalogue: Catalogue | None = None,
    allow_env: Collection[str] = (),
) -> LoadedRecipe:
    """Read and check a recipe: a name (`plugin/recipe`), the path of a YAML file, or a mapping.

    Args:
        overrides: `key=value` each, the value in YAML, e.g. `"trainer.max_epochs=3"`.
        catalogue: what is installed; the process's own by default.
        allow_env: environment variables it may read besides `ZOO_*`.

    Raises:
        RecipeError: every mistake, each with its place.
        UnknownName: there is no such recipe.
    """
    report = validate(recipe, overrides, catalogue=catalogue, allow_env=allow_env)
    if report.loaded is None:
        raise RecipeError(report.mistakes)
    return report.loaded


def validate(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    catalogue: Catalogue | None = None,
    allow_env: Collection[str] = (),
) -> Report:
    """As `load_recipe`, but mistakes are reported, not raised.

    Raises:
        UnknownName: there is no such recipe.
    """
    found = catalogue or default_catalogue()
    overrides = (overrides,) if isinstance(overrides, str) else overrides
    files = recipe_files(found)
    layers = Layers(files, found)
    if isinstance(recipe, Mapping):
        name, stack = "python", _from_mapping(recipe, layers)
    else:
        path = find_recipe(recipe, found)
        name, stack = name_of(path, files), layers.file(path)
    # With the recipe itself unreadable, the overrides still are worth a look.
    top = layers.overrides(overrides)
    if not stack:
        return Report(name=name, mistakes=in_order(layers.mistakes), reached=0)
    root = interpolate(
        layers.merged([*stack, top]), layers.mistakes, defaults=defaults(), allow_env=allow_env
    )
    check = Check(root, found, layers.mistakes, incomplete=layers.incomplete)
    loaded = None
    if check.recipe is not None and check.plan is not None:
        loaded = LoadedRecipe(
            name=name,
            recipe=check.recipe,
            plan=check.plan,
            callbacks=tuple(part for part in check.parts.values() if part.kind == "callback"),
            origins={path: node.origin for path, node in walk(root) if path},
            text=layers.sources[0].text,
            sources=tuple(layers.sources),
            overrides=tuple(overrides),
            notes=(*layers.notes, *check.notes),
            catalogue=found,
        )
    reached = len(LEVELS) - 1 if loaded or any(m.level == len(LEVELS) - 1 for m in layers.mistakes) else 3
    return Report(name=name, mistakes=in_order(layers.mistakes), reached=reached, loaded=loaded)


def _from_mapping(recipe: Mapping[str, Any], layers: Layers) -> list[Node]:
    """The tree of a recipe written in Python; its includes are relative to the working folder."""
    from zoo.recipe.render import dump

    tree = from_plain(recipe, Source("<python>"), layers.mistakes)
    source = Source("<python>", dump(plain(tree)))
    layers.sources.append(source)
    return layers.with_includes(tree, Path("<python>"))
