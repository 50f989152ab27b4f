"""What a model costs: parameters, floating-point operations, the state of a stream."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from zoo.catalogue import Catalogue
from zoo.contract import Plan
from zoo.data.random_inputs import sample_of
from zoo.layers.model import Model, build_model
from zoo.layers.operations import OperationCounter


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one model costs.

    parameters: numbers that are trained.
    flops: floating-point operations of products (matrices, convolutions, attention) for one example forwards,
        a multiplication and its addition counting as two; `None` where the model does not run here.
    state_bytes: what one stream remembers after an example's tokens; `None` where it cannot stream.
    """

    parameters: int
    flops: int | None
    state_bytes: int | None


def parameters_of(plan: Plan, catalogue: Catalogue) -> int:
    """How many numbers the plan's model trains, without making any."""
    return _shapes_alone(plan, catalogue).num_parameters


def flops_of(plan: Plan, catalogue: Catalogue) -> int | None:
    """Floating-point operations of one example forwards, see `Cost`; traced on torch's meta device.

    Attention counts as the full square, causal or not: what a kernel may leave out is its affair.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return _flops(plan, catalogue, _example(plan))


def cost_of(plan: Plan, catalogue: Catalogue) -> Cost:
    """The cost of a plan's model on one example as long as they come."""
    x = _example(plan)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        state = None
        if plan.causal and plan.claims.streaming:  # in numbers: most streams look at some of theirs
            state = _state_bytes(_in_numbers(plan, catalogue), x)
        return Cost(
            parameters=parameters_of(plan, catalogue), flops=_flops(plan, catalogue, x), state_bytes=state
        )


def _shapes_alone(plan: Plan, catalogue: Catalogue) -> Model:
    with torch.device("meta"):
        return build_model(plan, catalogue=catalogue, fresh=False).eval()


def _example(plan: Plan) -> Tensor:
    return sample_of(plan.inputs, 1, getattr(plan.inputs, "length", 1))


def _in_numbers(plan: Plan, catalogue: Catalogue) -> Model:
    return build_model(plan, catalogue=catalogue, fresh=False).eval()


def _flops(plan: Plan, catalogue: Catalogue, x: Tensor) -> int | None:
    for make, device in ((_shapes_alone, "meta"), (_in_numbers, "cpu")):
        model = make(plan, catalogue)
        with suppress(Exception), OperationCounter() as counter:  # on meta a layer may miss its numbers
            model(x.to(device))
            return counter.total
    return None


def _state_bytes(model: Model, x: Tensor) -> int | None:
    try:
        _, state = model.step(x, model.initial_state(1))
    except ValueError:  # a stem or a head that needs all tokens at once
        return None
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(state) if isinstance(leaf, Tensor))
