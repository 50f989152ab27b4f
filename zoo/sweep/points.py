"""The points of a sweep, all checked before anything runs (torch-free)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zoo.catalogue import Catalogue
from zoo.recipe import LoadedRecipe, RecipeError, load_recipe
from zoo.recipe.errors import Mistake, Origin
from zoo.recipe.fingerprint import fingerprint


@dataclass(frozen=True, kw_only=True)
class Point:
    """One recipe to train.

    recipe: as given, a name or a path. overrides: those of this point. id: the fingerprint of the whole.
    """

    recipe: str
    overrides: tuple[str, ...]
    id: str
    loaded: LoadedRecipe

    def __str__(self) -> str:
        return " ".join((self.recipe, *self.overrides))


def check_points(
    recipes: str | Sequence[str],
    combinations: Sequence[tuple[str, ...]],
    *,
    catalogue: Catalogue | None = None,
    places: Mapping[str, Origin] | None = None,
) -> list[Point]:
    """Every combination of overrides of every recipe, checked; those that come to the same are one point.

    places: where a file says an override: there its mistakes are.

    Raises:
        RecipeError: mistakes of any point, each once.
    """
    points: dict[str, Point] = {}
    mistakes: dict[tuple[str, str], Mistake] = {}
    recipes = [recipes] if isinstance(recipes, str) else recipes
    for recipe, overrides in itertools.product(recipes, combinations):
        try:
            loaded = load_recipe(recipe, overrides, catalogue=catalogue)
        except RecipeError as error:
            placed = (_placed(each, overrides, places or {}) for each in error.mistakes)
            mistakes |= {(each.path, each.message): each for each in placed}
            continue
        id = fingerprint(loaded)
        points.setdefault(id, Point(recipe=recipe, overrides=overrides, id=id, loaded=loaded))
    if mistakes:
        raise RecipeError(list(mistakes.values()))
    return list(points.values())


def _placed(mistake: Mistake, overrides: tuple[str, ...], places: Mapping[str, Origin]) -> Mistake:
    """The mistake where a file says the override that it is in; an override's rank is its number."""
    rank = mistake.origin.source.rank
    place = places.get(overrides[rank - 1]) if rank else None
    return replace(mistake, origin=place) if place else mistake
