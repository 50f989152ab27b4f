"""A model with stem and head, on the first kind of data that the contract lets it take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.catalogue import Part
from zoo.contract import Plan, resolve
from zoo.data.random_inputs import generator, normal, sample_of
from zoo.errors import ContractError
from zoo.kinds import Classes, DataKind, Ids, Image, NextId, Series, TargetKind, Values, Vector
from zoo.testing.check import NotApplicable
from zoo.testing.subject import ModelSubject, seeded

if TYPE_CHECKING:
    from zoo.layers import Model

_TOKENS = 16


def plan_of(subject: ModelSubject) -> Plan:
    """The first plan that the contract accepts.

    Raises:
        NotApplicable: no installed stem and head fit; with the last reason.
    """
    tokens = subject.lengths(_TOKENS)[-1]
    kinds: tuple[tuple[DataKind, TargetKind], ...] = (
        (subject.image, Classes(count=4)),
        (Vector(features=9), Classes(count=4)),
        (Series(channels=3, length=tokens), Classes(count=4)),
        (Ids(vocab=11, length=tokens), NextId(vocab=11)),
        (Vector(features=9), Values(count=2)),
    )
    reason = ""
    for inputs, targets in kinds:
        if isinstance(inputs, Image) != (subject.claims.accepts == "image"):
            continue
        if isinstance(targets, NextId) and subject.claims.causal == "never":
            continue
        try:
            return resolve(
                subject.catalogue,
                model=Part("model", subject.spec.id, subject.config, subject.spec.revision),
                width=subject.width,
                inputs=inputs,
                targets=targets,
                causal=True if isinstance(targets, NextId) else None,
            )
        except ContractError as error:
            reason = str(error)
    raise NotApplicable(f"no installed stem and head fit: {reason}")


def build_whole(subject: ModelSubject, *, seed: int = 0) -> Model:
    """Stem, backbone and head in float32, in training mode."""
    from zoo.layers.model import build_model

    plan = plan_of(subject)
    with seeded(seed):
        return build_model(plan, catalogue=subject.catalogue)


def batch_of(plan: Plan, size: int) -> tuple[Tensor, Tensor]:
    """Random inputs and targets of a plan."""
    n = plan.tokens or 1
    x = sample_of(plan.inputs, size, n)
    if isinstance(plan.targets, Classes):
        return x, torch.randint(plan.targets.count, (size,), generator=generator(1))
    if isinstance(plan.targets, NextId):
        return x, torch.randint(plan.targets.vocab, (size, n), generator=generator(1))
    if isinstance(plan.targets, Values):
        return x, normal((size, plan.targets.count), seed=1)
    raise NotApplicable(f"no random targets for {plan.targets}")
