"""Where recipes lie and how a name finds one.

The zoo's own are package data (`zoo/_recipes`) or, in a checkout, the folder `recipes` beside the
package; a plugin of another distribution brings a folder `recipes` in its own package. A recipe is
named `plugin/recipe`, or by its short name where only one is called that. Files whose name starts with
`_` are shared settings: they can be included, not run. Those that end in `.sweep.yaml` are sweeps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import zoo
from zoo.catalogue import Catalogue, catalogue
from zoo.errors import UnknownName, either, suggest, suggest_id
from zoo.recipe.sweep_file import SWEEP_SUFFIX

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that can be run by name."""

    name: str
    path: Path

    @property
    def title(self) -> str:
        """What the file itself says of its title."""
        return str(self.said().get("title", ""))

    def said(self) -> dict[str, Any]:
        """What the file itself says, unchecked, without what it includes; empty if it cannot be read."""
        from zoo.recipe.errors import Source
        from zoo.recipe.source import plain, read

        root = read(Source(self.name, self.path.read_text(encoding="utf-8")), [])
        data = plain(root) if root else {}
        return data if isinstance(data, dict) else {}


def list_recipes(pattern: str = "*", found: Catalogue | None = None) -> tuple[RecipeFile, ...]:
    """All recipes whose full or short name matches a shell pattern, by name."""
    return tuple(
        RecipeFile(name, path)
        for name, path in sorted(_runnable(found).items())
        if fnmatchcase(name, pattern) or fnmatchcase(name.partition("/")[2], pattern)
    )


def find_recipe(name: str | os.PathLike[str], found: Catalogue | None = None) -> Path:
    """The file of a recipe given by name or by path.

    Raises:
        UnknownName: there is no such recipe or file, or a short name is ambiguous; names are suggested.
    """
    path, name = Path(name), str(name)
    if path.suffix in SUFFIXES or os.path.isfile(path):
        if not os.path.isfile(path):
            raise UnknownName(f"there is no recipe file {name!r}{_why_not(path)}")
        return path
    if os.path.isdir(path):
        inside = [repr(str(file)) for file in sorted(path.glob("*.yaml"))[:5]]
        raise UnknownName(f"{name!r} is a folder, not a recipe. It holds {', '.join(inside) or 'no recipe'}.")
    recipes = _runnable(found)
    if name in recipes:
        return recipes[name]
    short = [full for full in sorted(recipes) if full.partition("/")[2] == name]
    if len(short) == 1:
        return recipes[short[0]]
    if short:
        raise UnknownName(f"recipe {name!r} is ambiguous: write {either(short)}.")
    if name in sweep_files(found):
        raise UnknownName(f"{name!r} is a sweep, not a recipe: zoo sweep {name}")
    beside = next((file for file in (f"{name}{suffix}" for suffix in SUFFIXES) if os.path.isfile(file)), None)
    hint = f" A file lies here: write {beside!r}." if beside else suggest_id(name, recipes)
    hint = hint or suggest(name, recipes) or " 'zoo recipe list' shows all."
    raise UnknownName(f"unknown recipe {name!r}.{hint}")


def name_of(path: Path, files: dict[str, Path]) -> str:
    """What a recipe is called: `plugin/recipe` if it is one of `files`, else the name of its file."""
    known = {file.resolve(): key.removesuffix(".yaml") for key, file in files.items()}
    return known.get(path.resolve(), path.stem)


def recipe_files(found: Catalogue | None = None) -> dict[str, Path]:
    """Every YAML file of the recipe folders, by `plugin/file.yaml`. The zoo's own come first."""
    files: dict[str, Path] = {}
    for root in own_folders():
        for path in sorted(root.glob("*/*.yaml")):
            files.setdefault(f"{path.parent.name}/{path.name}", path)
    for plugin in (found or catalogue()).plugins:
        if plugin.file and not plugin.own and plugin.status == "ok":
            for path in sorted((Path(plugin.file).parent / "recipes").glob("*.yaml")):
                files.setdefault(f"{plugin.id}/{path.name}", path)
    return files


def sweep_files(found: Catalogue | None = None) -> dict[str, Path]:
    """The sweeps beside the recipes, by `plugin/name`: `zoo sweep core/five_models`."""
    files = recipe_files(found)
    return {key.removesuffix(SWEEP_SUFFIX): path for key, path in files.items() if key.endswith(SWEEP_SUFFIX)}


def own_folders() -> tuple[Path, ...]:
    """Where the zoo's own recipes are: one folder in an installed wheel, one in a checkout."""
    package = Path(zoo.__file__).parent
    checkout = package.parent / "recipes"
    # Beside an installed package lies site-packages, where "recipes" would be somebody else's.
    folders = (package / "_recipes", checkout if (package.parent / "pyproject.toml").is_file() else None)
    return tuple(folder for folder in folders if folder and folder.is_dir())


def _runnable(found: Catalogue | None) -> dict[str, Path]:
    files = recipe_files(found)
    return {
        key.removesuffix(".yaml"): path
        for key, path in files.items()
        if "/_" not in key and not key.endswith(SWEEP_SUFFIX)
    }


def _why_not(path: Path) -> str:
    if os.path.isdir(path):
        return ": it is a folder."
    if not os.path.isdir(path.parent):
        return f": the folder {str(path.parent)!r} does not exist."
    return f".{suggest(path.name, [file.name for file in path.parent.iterdir() if file.suffix in SUFFIXES])}"
