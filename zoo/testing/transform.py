"""Transforms: `apply(model, config) -> model`, and where there is one, `fold(model)`."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from zoo.testing.checks import NotApplicable
from zoo.testing.measure import CLOSE, require, require_close, require_finite
from zoo.testing.subject import Subject, normal, seeded


def check_transform_applies(subject: Subject) -> None:
    model, x = _transformed(subject), normal((3, 5, 16), dtype=torch.float64)
    y = model(x)
    require(y.shape == x.shape, f"the transformed model turns {tuple(x.shape)} into {tuple(y.shape)}")
    require_finite(y, "outputs of the transformed model")
    y.square().mean().backward()
    for name, parameter in model.named_parameters():
        require(parameter.grad is not None, f"in the transformed model {name} gets no gradient")


def check_transform_folds(subject: Subject) -> None:
    module = importlib.import_module(subject.spec.target.partition(":")[0])
    fold = getattr(subject.spec.load(), "fold", None) or getattr(module, "fold", None)
    if fold is None:
        raise NotApplicable("the transform has no fold()")
    x = normal((3, 5, 16), dtype=torch.float64)
    model = _transformed(subject)
    before = model(x)
    folded = fold(model)
    require_close(folded(x), before, CLOSE, "folded, against transformed")
    names, plain = set(folded.state_dict()), set(_plain().state_dict())
    require(names == plain, f"folded weights are not the plain model's: {sorted(names ^ plain)}")


def _plain() -> nn.Module:
    """Something with linear maps, norms and attention."""
    with seeded(0):
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        return nn.Sequential(layer, nn.Linear(16, 16)).double().eval()


def _transformed(subject: Subject) -> Any:
    with seeded(1):
        model = subject.spec.load()(_plain(), subject.config)
    require(isinstance(model, nn.Module), f"apply() gave {type(model).__name__}, expected an nn.Module")
    return model.eval()
