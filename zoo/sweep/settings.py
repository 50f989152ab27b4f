"""What a sweep is, whether the command line says it or a file (torch-free)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from zoo.config import ConfigError, build, describe, join
from zoo.errors import UnknownName, ZooError
from zoo.recipe.errors import Mistake, Origin, RecipeError, Source
from zoo.recipe.find import SUFFIXES, find_recipe, sweep_files
from zoo.recipe.source import Node, plain, read, walk
from zoo.recipe.sweep_file import SweepFile, is_sweep
from zoo.sweep.arguments import Axis, axis_of, leaves, override


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained, and how; fields as in `SweepFile`.

    axes: values that are combined. rows: points that are listed, as overrides. places: where a file says an
    override.
    """

    title: str = ""
    recipes: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ()
    rows: tuple[Mapping[str, str], ...] = ()
    match: Literal["params", "flops"] | None = None
    sampler: Literal["random", "tpe"] | None = None
    trials: int | None = None
    sampler_seed: int = 0
    jobs: int = 1
    on: Literal["here", "ray"] = "here"
    html: str | None = None
    places: Mapping[str, Origin] = field(default_factory=dict)

    def overridden(self, *, recipes: Sequence[str], axes: Sequence[Axis], **options: Any) -> Settings:
        """The same with what the command line says: recipes replace all, an axis the one of its key."""
        given = {axis.key: axis for axis in axes}
        kept = [given.pop(axis.key, axis) for axis in self.axes]
        said = {key: value for key, value in options.items() if value is not None}
        return replace(self, recipes=tuple(recipes) or self.recipes, axes=(*kept, *given.values()), **said)


def find_sweep(name: str) -> Path | None:
    """The file of a sweep, by its path or by a name as `core/five_models`; `None`: it is none."""
    if not name.endswith(SUFFIXES):
        return sweep_files().get(name)
    try:
        root = read(Source(name, Path(name).read_text(encoding="utf-8-sig")), [])
    except (OSError, UnicodeDecodeError):
        return None  # whoever reads it as a recipe says why
    return Path(name) if root is not None and is_sweep(root) else None


def read_sweep(path: Path) -> Settings:
    """The file of a sweep, checked but for what its overrides mean to the recipes.

    Raises:
        RecipeError: every mistake, each with its place.
    """
    mistakes: list[Mistake] = []
    root = read(Source(str(path), path.read_text(encoding="utf-8-sig")), mistakes)
    if root is None or mistakes:
        raise RecipeError(mistakes)
    origins = {at: node.origin for at, node in walk(root)}
    try:
        said = build(SweepFile, plain(root))
    except ConfigError as error:
        raise RecipeError(
            Mistake(1, problem.path, problem.message, _place(problem.path, origins))
            for problem in error.problems
        ) from None
    recipes = tuple(_beside(path, name) for name in said.recipes)
    for number, recipe in enumerate(recipes):
        try:
            find_recipe(recipe)
        except UnknownName as error:
            at = f"recipes.{number}"
            mistakes.append(Mistake(2, at, str(error), origins[at]))
    assert isinstance(root.value, dict)
    axes, places = _axes(root.value.get("values"), mistakes)
    if mistakes:
        raise RecipeError(mistakes)
    rows, where = _rows(root.value.get("points"))
    same = {name: getattr(said, name) for name in _SAME}
    return Settings(recipes=recipes, axes=axes, rows=rows, places={**places, **where}, **same)


def read_points(path: Path) -> tuple[tuple[Mapping[str, str], ...], dict[str, Origin]]:
    """Points from a YAML file, a list of fragments of a recipe: `- {model: {name: kan/kan, width: 64}}`.

    Each is dotted key -> value, as one would write them on the command line; and where each is written.

    Raises:
        ZooError: there is no such file, or it holds something else; says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"the list of points {str(path)!r} cannot be read: {error}") from None
    mistakes: list[Mistake] = []
    node = read(Source(str(path), text), mistakes)
    if mistakes or node is None:
        raise ZooError("\n".join(map(str, mistakes)) or f"{str(path)!r} is empty")
    if not isinstance(node.value, list) or not node.value:
        raise ZooError(f"{str(path)!r} holds {describe(plain(node))}, expected a list of points")
    for item in node.value:
        if not isinstance(item.value, dict) or not item.value:
            message = f"a point is a fragment of a recipe (key: value), not {describe(plain(item))}"
            raise ZooError(f"{item.origin}: {message}")
    return _rows(node)


#: What a file says as it stays.
_SAME = ("title", "match", "sampler", "trials", "sampler_seed", "jobs", "on", "html")


def _axes(node: Node | None, mistakes: list[Mistake]) -> tuple[tuple[Axis, ...], dict[str, Origin]]:
    axes: list[Axis] = []
    places: dict[str, Origin] = {}
    for key, leaf in leaves(node) if node else ():
        try:
            axis = axis_of(key, plain(leaf))
        except ZooError as error:
            mistakes.append(Mistake(1, join("values", key), str(error), leaf.origin))
            continue
        axes.append(axis)
        places |= dict.fromkeys((override(key, value) for value in (*axis.values, *axis.ends)), leaf.origin)
    return tuple(axes), places


def _rows(node: Node | None) -> tuple[tuple[Mapping[str, str], ...], dict[str, Origin]]:
    rows: list[Mapping[str, str]] = []
    places: dict[str, Origin] = {}
    for item in node.value if node is not None and isinstance(node.value, list) else ():
        row = {key: axis_of(key, [plain(leaf)]).values[0] for key, leaf in leaves(item)}
        places |= {override(key, row[key]): leaf.origin for key, leaf in leaves(item)}
        rows.append(row)
    return tuple(rows), places


def _beside(path: Path, recipe: str) -> str:
    """A recipe that is a file lies where the file of the sweep says it."""
    return os.path.normpath(path.parent / recipe) if recipe.endswith(SUFFIXES) else recipe


def _place(path: str, origins: Mapping[str, Origin]) -> Origin:
    while path and path not in origins:
        path = path.rpartition(".")[0]
    return origins[path]
