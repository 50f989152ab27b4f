"""Width and depth at which a recipe's model has so many parameters, or costs so many operations.

Models are built on torch's meta device, which holds shapes and no numbers: any size takes a moment.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zoo.errors import ZooError
from zoo.recipe import LoadedRecipe, RecipeError, load_recipe

Measure = Literal["params", "flops"]
Vary = Literal["width", "depth", "both"]

#: Widths whose neighbours cannot be built come in steps: so many heads, two halves of a rotation.
_UNITS = (1, 2, 4, 8, 16, 32, 64)
_WIDEST, _DEEPEST = 1 << 16, 1 << 10
#: Overrides that may change the size of a model.
_SIZING = ("model.", "data.", "task.", "transforms")
#: With both free, the depth stays where the width alone comes as near as this.
NEAR_ENOUGH = 0.01


@dataclass(frozen=True, kw_only=True)
class Match:
    """The overrides that come nearest. size: what they come to. target: what was asked for."""

    overrides: tuple[str, ...]
    size: int
    target: int
    width: int
    depth: int | None

    @property
    def error(self) -> float:
        """How far off, as a share of the target."""
        return abs(self.size - self.target) / self.target


def size_of(loaded: LoadedRecipe, measure: Measure) -> int:
    """Parameters, or operations for one example forwards, of a recipe's model.

    Raises:
        ZooError: the model cannot be built, or its operations cannot be counted.
    """
    from zoo.training.cost import flops_of, parameters_of

    if measure == "params":
        return parameters_of(loaded.plan, loaded.catalogue)
    flops = flops_of(loaded.plan, loaded.catalogue)
    if flops is None:
        raise ZooError(f"the operations of model {loaded.plan.model.id!r} cannot be counted; match --params")
    return flops


def match(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    target: int,
    measure: Measure = "params",
    vary: Vary = "width",
) -> Match:
    """Search the width (or the depth, or both) at which a recipe comes nearest to a size.

    Raises:
        RecipeError: mistakes in the recipe. ZooError: the model has no depth to vary, or cannot be built.
    """
    if target < 1:
        raise ZooError(f"the size to match must be at least 1, got {target:,}")
    base = load_recipe(recipe, overrides)
    depth: Any = getattr(base.plan.model.config, "depth", None)
    if vary != "width" and not isinstance(depth, int):
        raise ZooError(f"model {base.plan.model.id!r} has no parameter 'depth'; vary its width")
    size_of(base, measure)  # what is wrong with it shows here

    search = _Search(recipe=recipe, given=tuple(overrides), target=target, measure=measure, vary=vary)
    if vary == "depth":
        return search.deepened(base.plan.width, depth)
    first = search.widened(base.plan.width, depth)
    if vary == "width" or first.error <= NEAR_ENOUGH:
        return first
    around = [search.widened(first.width, d) for d in range(max(1, depth - 2), depth + 3) if d != depth]
    return min([first, *around], key=lambda found: found.error)


def of_one_size(
    recipe: str, combinations: Sequence[tuple[str, ...]], measure: Measure
) -> list[tuple[str, ...]]:
    """Combinations of overrides, each with the width at which its model is as large as the first one's.

    Raises:
        ZooError: a combination sets the width itself.
    """
    for overrides in combinations:
        if fixed := next((text for text in overrides if text.startswith("model.width=")), None):
            raise ZooError(f"{fixed}: matching sets the width; leave one of the two out")
    target = size_of(load_recipe(recipe, combinations[0]), measure)
    widths: dict[tuple[str, ...], tuple[str, ...]] = {}
    matched = []
    for overrides in combinations:
        sized = tuple(text for text in overrides if text.startswith(_SIZING))
        if sized not in widths:
            widths[sized] = match(recipe, sized, target=target, measure=measure).overrides
        matched.append((*overrides, *widths[sized]))
    return matched


@dataclass(frozen=True, kw_only=True)
class _Search:
    """One recipe at many widths and depths."""

    recipe: str
    given: tuple[str, ...]
    target: int
    measure: Measure
    vary: Vary

    def overrides(self, width: int, depth: int | None) -> tuple[str, ...]:
        wide = () if self.vary == "depth" else (f"model.width={width}",)
        deep = () if self.vary == "width" else (f"model.params.depth={depth}",)
        return (*wide, *deep)

    def size(self, width: int, depth: int | None) -> int | None:
        """`None` where such a model cannot be: heads that do not divide the width, and the like."""
        try:
            loaded = load_recipe(self.recipe, (*self.given, *self.overrides(width, depth)))
            return size_of(loaded, self.measure)
        except (RecipeError, ValueError):
            return None

    def widened(self, start: int, depth: int | None) -> Match:
        """The best width, the depth being given."""
        for unit in _UNITS:
            steps = max(2, start // unit)
            if all(self.size((steps + more) * unit, depth) is not None for more in (0, 1, 3)):
                break
        else:
            return self._match(start, depth)
        best = _nearest(lambda k: self.size(k * unit, depth), start // unit, _WIDEST // unit, self.target)
        return self._match(best * unit, depth)

    def deepened(self, width: int, start: int) -> Match:
        """The best depth, the width being given."""
        best = _nearest(lambda depth: self.size(width, depth), start, _DEEPEST, self.target)
        return self._match(width, best)

    def _match(self, width: int, depth: int | None) -> Match:
        size = self.size(width, depth)
        if size is None:
            raise ZooError(f"{self.recipe} cannot be built at width {width}")
        overrides = self.overrides(width, depth)
        return Match(overrides=overrides, size=size, target=self.target, width=width, depth=depth)


def parse_size(text: str) -> int:
    """`1.0M`, `50k`, `2G` or `123456`.

    Raises:
        ZooError: it is no such number.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)", text.strip())
    size = round(float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[found[2]]) if found else 0
    if size < 1:
        raise ZooError(f"{text!r} is no size; write e.g. 800k, 1.0M, 50M or 2G")
    return size


def _nearest(size: Callable[[int], int | None], start: int, most: int, target: int) -> int:
    """The number of 1..most whose size is nearest the target.

    Sizes grow with the number; one that cannot be built counts as too small.
    """
    measured = functools.cache(size)

    def below(number: int) -> bool:
        return (measured(number) or 0) < target

    low = high = min(max(start, 1), most)
    while high < most and below(high):
        low, high = high, min(2 * high, most)
    while low > 1 and not below(low):
        low, high = low // 2, low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if below(middle) else (low, middle)
    errors = {
        number: abs(found - target) for number in (low, high) if (found := measured(number)) is not None
    }
    if not errors:
        raise ZooError("no size of this model comes near what is asked for")
    return min(errors, key=errors.__getitem__)
