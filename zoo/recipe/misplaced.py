"""Where a key that is out of place belongs: `lr` is `optim.lr`, `model.depth` is `model.params.depth`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from difflib import SequenceMatcher
from typing import get_args

from zoo.config import SYNONYMS, field_types, join
from zoo.errors import either
from zoo.recipe.schema import Recipe

#: A key of the same section that is as near as this is what was meant.
_NEAR = 0.8


def elsewhere(path: str, params: dict[str, type | None]) -> str:
    """A sentence that names the places of a misplaced key, with a leading space; empty where there is none.

    Args:
        path: of a key that does not exist where it stands.
        params: where components have their parameters (`model.params`), and the classes of these.
    """
    section, _, key = path.rpartition(".")
    places = [*_places(Recipe), *_parameters(params)]
    beside = {name for parent, _, name in (place.rpartition(".") for place in places) if parent == section}
    wanted = {key, *SYNONYMS.get(key, ())}
    if beside & wanted or any(SequenceMatcher(None, key, name).ratio() >= _NEAR for name in beside):
        return ""
    inner = [place for place in places if place.startswith(f"{section}.params.") or not section]
    for among, nearest in ((places, 1.0), (inner, _NEAR)):
        found = [place for place in among if _likeness(place, wanted) >= nearest]
        if found:
            return f" Did you mean {either(sorted(found, key=lambda place: place.count('.'))[:3])}?"
    return ""


def _likeness(place: str, wanted: Collection[str]) -> float:
    name = place.rpartition(".")[2]
    return max(SequenceMatcher(None, each, name).ratio() for each in wanted)


def _places(section: type, path: str = "") -> Iterator[str]:
    """Every key of a section and of those below it, but no parameters of components."""
    for name, annotation in field_types(section).items():
        here = join(path, name)
        yield here
        for option in (annotation, *get_args(annotation)):
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                yield from _places(option, here)


def _parameters(params: dict[str, type | None]) -> Iterator[str]:
    for path, config in params.items():
        for field in dataclasses.fields(config) if config is not None else ():
            yield join(path, field.name)
