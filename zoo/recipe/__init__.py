"""Recipes: YAML in, one frozen `Recipe` and one plan out, or every mistake at once (torch-free).

    find -> source -> layers -> interpolate -> schema -> check -> load        render writes it back

A recipe passes five levels on its way: 0 syntax, 1 schema, 2 names and versions, 3 parameters,
4 contract. Nothing in a recipe is executed: components have names, never import paths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.recipe.errors import Mistake, Origin, RecipeError
    from zoo.recipe.find import RecipeFile, find_recipe, list_recipes
    from zoo.recipe.load import LoadedRecipe, Report, load_recipe, validate
    from zoo.recipe.schema import Recipe

_LAZY = {
    "LoadedRecipe": "zoo.recipe.load",
    "Mistake": "zoo.recipe.errors",
    "Origin": "zoo.recipe.errors",
    "Recipe": "zoo.recipe.schema",
    "RecipeError": "zoo.recipe.errors",
    "RecipeFile": "zoo.recipe.find",
    "Report": "zoo.recipe.load",
    "find_recipe": "zoo.recipe.find",
    "list_recipes": "zoo.recipe.find",
    "load_recipe": "zoo.recipe.load",
    "validate": "zoo.recipe.load",
}

__all__ = [
    "LoadedRecipe",
    "Mistake",
    "Origin",
    "Recipe",
    "RecipeError",
    "RecipeFile",
    "Report",
    "find_recipe",
    "list_recipes",
    "load_recipe",
    "validate",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'zoo.recipe' has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
