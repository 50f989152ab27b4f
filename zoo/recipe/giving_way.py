"""What of a lower layer was meant for what a higher one replaces, beyond a component's own parameters.

* Another dataset, whose inputs or questions are of another kind: the stem, or the head and the task.
* Another model, which takes another kind of features: the stem and the head.
* Any other setting that decides the result: what the recipe expects to reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.recipe.fingerprint import APART
from zoo.specs import DatasetSpec, ModelSpec, Spec

if TYPE_CHECKING:
    from zoo.catalogue import Catalogue

#: What does not decide how good a run is, besides the sections that are `APART`.
_INDIFFERENT = (
    *APART,
    "schema",
    "seed",
    "callbacks.checkpoint",
    "callbacks.progress",
    "data.eval_batch_size",
    "data.workers",
    *(f"trainer.{key}" for key in ("accelerator", "devices", "nodes", "strategy", "log_every_steps")),
)

#: Section, kind of component, its field, what another value of that means, and what was meant for the former.
_RULES = (
    ("data", "dataset", "inputs", "gives other inputs", ("model.stem",)),
    ("data", "dataset", "targets", "asks other questions", ("model.head", "task")),
    ("model", "model", "accepts", "takes other features", ("model.stem", "model.head")),
)


def giving_way(base: Mapping[str, Any], top: Mapping[str, Any], catalogue: Catalogue) -> dict[str, str]:
    """Paths of `base` that do not hold below `top`, each with the reason; both are plain data.

    What `top` itself says of such a path stays, together with what it is laid upon.
    """
    found: dict[str, str] = {}
    for section, kind, field, does, paths in _RULES:
        old, new = (_spec(catalogue, kind, _at(layer, f"{section}.name")) for layer in (base, top))
        if old is not None and new is not None and _differ(old, new, field):
            found |= dict.fromkeys(paths, f"{section}.name is now {new.id}, which {does}")
    changed = next(_changed(base, top), None)
    if changed:
        found["expect"] = f"it holds for the recipe as it stands, and {changed} is another"
    return {
        path: why for path, why in found.items() if _at(base, path) is not None and _at(top, path) is None
    }


def _spec(catalogue: Catalogue, kind: str, name: Any) -> Spec | None:
    try:
        return catalogue.get(kind, name) if isinstance(name, str) else None
    except ZooError:
        return None


def _differ(old: Spec, new: Spec, field: str) -> bool:
    if isinstance(old, ModelSpec) and isinstance(new, ModelSpec):
        return old.accepts != new.accepts
    if isinstance(old, DatasetSpec) and isinstance(new, DatasetSpec):
        # What people's own data holds is known when it is read, and not before.
        kinds = [getattr(spec, field) for spec in (old, new)]
        return not (old.own or new.own) and type(kinds[0]) is not type(kinds[1])
    return False


def _changed(base: Mapping[str, Any], top: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The settings of `top` that decide a result and are not those of `base`."""
    for key, value in top.items():
        here = f"{path}.{key}" if path else key
        if here in _INDIFFERENT:
            continue
        if isinstance(value, Mapping) and isinstance(base.get(key, {}), Mapping):
            yield from _changed(base.get(key) or {}, value, here)
        elif key not in base or base[key] != value:
            yield here


def _at(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data
