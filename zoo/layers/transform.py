"""Transforms applied to models that exist already, and folded back into plain weights."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, TypeVar, cast

from torch import nn

from zoo.catalogue import Catalogue, Part, blaming
from zoo.catalogue import catalogue as default_catalogue
from zoo.errors import ZooError, either
from zoo.layers.model import Model, transform
from zoo.specs import TransformSpec

M = TypeVar("M", bound=nn.Module)


def apply_transform(model: M, name: str, *, catalogue: Catalogue | None = None, **params: Any) -> M:
    """Change a model by a transform, in place; give the optimiser its parameters afterwards.

        zoo.apply_transform(timm.create_model("vit_tiny_patch16_224"), "sigmareparam")

    Args:
        model: any module. The plan of one of the zoo's records the transform, so that it saves and loads.
        name: full or short name of a transform.
        params: the transform's parameters (`zoo show NAME` lists them).

    Returns:
        The changed model; what its user may not expect is said in a `UserWarning`.

    Raises:
        UnknownName, ConfigError: no such transform, or parameters that it does not take.
        ZooError: the transform refuses this model.
    """
    catalogue = catalogue or default_catalogue()
    part = catalogue.part("transform", name, params)
    done, notes = transform(model, part, catalogue=catalogue)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    if isinstance(done, Model):
        if part not in done.plan.transforms:  # a second time it changed nothing
            done.plan = replace(done.plan, transforms=(*done.plan.transforms, part))
        done.notes += notes
    return cast(M, done)


def fold_transforms(model: M, *names: str, catalogue: Catalogue | None = None) -> M:
    """Turn transforms back into plain weights, in place: the model computes the same as in evaluation mode.

    Args:
        names: which; for a model of the zoo by default all of its plan, the last one first.

    Raises:
        UnknownName: no such transform.
        ZooError: one has no plain form or was not applied, or none is named and the model keeps no record.
    """
    catalogue = catalogue or default_catalogue()
    ids = [catalogue.get("transform", name).id for name in names]
    if isinstance(model, Model):
        parts = [part for part in model.plan.transforms if not ids or part.id in ids]
        absent = sorted(set(ids) - {part.id for part in parts})
        if absent:
            raise ZooError(f"transform {either(absent)} was not applied to this model")
    elif not ids:
        raise ZooError("name the transforms to fold: only the zoo's own models keep a record of theirs")
    else:
        parts = [Part("transform", id) for id in ids]
    # Import every fold before any is carried out: all or nothing. One fold undoes all that its transform did.
    folds = {
        part.id: cast(TransformSpec, catalogue.get("transform", part.id)).load_fold()
        for part in reversed(parts)
    }
    done: nn.Module = model
    for id, fold in folds.items():
        with blaming(f"transform {id!r} cannot be folded"):
            done = fold(done)
    if isinstance(done, Model):
        left = [_folded(part, catalogue) if part in parts else part for part in done.plan.transforms]
        done.plan = replace(done.plan, transforms=tuple(part for part in left if part is not None))
    return cast(M, done)


def _folded(part: Part, catalogue: Catalogue) -> Part | None:
    """What of a transform is left in the plan once it is folded."""
    config = catalogue.ask(part, "folded")
    return None if config is None else replace(part, config=config)
