"""What is measured: backbones of one width, depth and number of heads, mixers in the core's transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, cast

from zoo.catalogue import Catalogue, Part
from zoo.contract import Plan, resolve
from zoo.errors import UnknownName, ZooError, suggest_id
from zoo.kinds import Classes, Ids, NextId
from zoo.specs import ModelSpec, Spec

#: What all others are held against, and the stack that mixers are measured in.
BASELINE, STACK = "core/softmax", "core/transformer"
#: Stem and head are not measured: any size of them does.
_VOCAB = 16


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to be measured. name: as it was asked for; a mixer goes by its own."""

    name: str
    model: Part

    def plan(self, catalogue: Catalogue, *, width: int, tokens: int, causal: bool) -> Plan:
        """Its plan for so many tokens: as a language model, or as a model that sees both ways.

        Raises:
            ZooError: it cannot be causal (or else), or cannot take so many tokens; says why.
        """
        targets: Any = NextId(vocab=_VOCAB) if causal else Classes(count=2)
        inputs = Ids(vocab=_VOCAB, length=tokens)
        return resolve(
            catalogue, model=self.model, width=width, inputs=inputs, targets=targets, causal=causal
        )


def baseline(catalogue: Catalogue, *, depth: int, heads: int) -> Subject:
    """Softmax attention in the core's transformer."""
    return _mixer(catalogue, BASELINE, depth=depth, heads=heads)


def find_subjects(
    catalogue: Catalogue, names: Sequence[str], *, kind: str | None, depth: int, heads: int
) -> list[Subject]:
    """Models and mixers by name; without names every mixer. A name that is both is the model.

    kind: "model" or "mixer" where only such are meant.

    Raises:
        UnknownName: there is none of that name.
        ZooError: a model that takes no tokens.
    """
    if not names:
        names = [spec.id for spec in catalogue.specs("mixer")]
        kind = kind or "mixer"
    found: dict[str, Subject] = {}
    for name in names:
        subject = _subject(catalogue, name, kind, depth=depth, heads=heads)
        found[subject.name] = subject
    return list(found.values())


def _subject(catalogue: Catalogue, name: str, kind: str | None, *, depth: int, heads: int) -> Subject:
    spec = catalogue.get(kind, name) if kind else _model_or_mixer(catalogue, name)
    if spec.kind == "mixer":
        return _mixer(catalogue, spec.id, depth=depth, heads=heads)
    accepts = cast(ModelSpec, spec).accepts
    if accepts != "tokens":
        takes = {"vector": "a vector", "image": "images"}[accepts]
        raise ZooError(f"model {spec.id!r} takes {takes}, no tokens: there is no length to measure it over")
    sizes = {"depth": depth, "heads": heads}
    return Subject(name=spec.id, model=catalogue.part("model", spec.id, _taken(catalogue, spec.id, sizes)))


def _model_or_mixer(catalogue: Catalogue, name: str) -> Spec:
    try:
        return catalogue.get("model", name)
    except UnknownName as unknown:
        with suppress(UnknownName):
            return catalogue.get("mixer", name)
        mixers = [spec.id for spec in catalogue.specs("mixer")]
        hint = suggest_id(name, [*mixers, *(spec.id for spec in catalogue.specs("model"))])
        if not hint or catalogue.family(name) or catalogue.lost(name):
            raise  # what is said of models says more
        raise UnknownName(f"no model and no mixer is called {name!r}.{hint}") from unknown


def _mixer(catalogue: Catalogue, name: str, *, depth: int, heads: int) -> Subject:
    name = catalogue.get("mixer", name).id
    params = {"layers": [name], "positions": "none", "depth": depth, "heads": heads}
    return Subject(name=name, model=catalogue.part("model", STACK, params))


def _taken(catalogue: Catalogue, model: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes that the model has parameters for."""
    config = catalogue.part("model", model).config
    known = {field.name for field in fields(config)} if config is not None else set()
    return {name: value for name, value in sizes.items() if name in known}
