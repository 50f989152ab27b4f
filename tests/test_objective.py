"""A callback that decides what a step minimises: alone, and beside another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.callbacks import Callback
from zoo.errors import ZooError
from zoo.training.plugged import objective_of


class Twice(Callback):
    """Two passes, one of them of inputs turned around."""

    def objective(
        self, model: nn.Module, batch: Mapping[str, Any], loss_of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        return (loss_of(model(batch["input"])) + loss_of(model(-batch["input"]))) / 2


class Broken(Twice):
    def objective(
        self, model: nn.Module, batch: Mapping[str, Any], loss_of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        raise ValueError("no widths here")


def test_one_callback_may_decide_what_a_step_minimises() -> None:
    assert objective_of([("a/looks_on", Callback())]) is None
    objective = objective_of([("a/looks_on", Callback()), ("a/twice", Twice())])
    assert objective is not None
    model, x = nn.Linear(2, 1), torch.randn(3, 2)
    loss = objective(model, {"input": x}, lambda outputs: outputs.square().mean())
    torch.testing.assert_close(loss, (model(x).square().mean() + model(-x).square().mean()) / 2)


def test_two_cannot_and_what_one_raises_names_it() -> None:
    with pytest.raises(ZooError, match="a/twice and b/twice both decide what a step minimises"):
        objective_of([("a/twice", Twice()), ("b/twice", Twice())])
    objective = objective_of([("a/broken", Broken())])
    assert objective is not None
    with pytest.raises(ZooError, match="callback 'a/broken' failed: ValueError: no widths here"):
        objective(nn.Linear(2, 1), {"input": torch.zeros(1, 2)}, torch.sum)
