"""What a model costs: parameters, floating-point operations, the state of a stream."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from zoo.catalogue import Catalogue
from zoo.contract import Plan
from zoo.data.random_inputs import sample_of
from zoo.layers.model import Model, build_model


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one model costs.

    parameters: numbers that are trained.
    flops: floating-point operations of products (matrices, convolutions, attention) for one example forwards,
        a multiplication and its addition counting as two; `None` where the model cannot be traced.
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
    with torch.no_grad(), _quiet():
        return _flops(_shapes_alone(plan, catalogue), _example(plan).to("meta"))


def cost_of(plan: Plan, catalogue: Catalogue) -> Cost:
    """The cost of a plan's model on one example as long as they come."""
    model = _shapes_alone(plan, catalogue)
    x = _example(plan)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _quiet():
        state = None
        if plan.causal and plan.claims.streaming:  # in numbers: most streams look at some of theirs
            state = _state_bytes(build_model(plan, catalogue=catalogue, fresh=False), x)
        return Cost(parameters=model.num_parameters, flops=_flops(model, x.to("meta")), state_bytes=state)


def _shapes_alone(plan: Plan, catalogue: Catalogue) -> Model:
    with torch.device("meta"):
        return build_model(plan, catalogue=catalogue, fresh=False).eval()


def _example(plan: Plan) -> Tensor:
    return sample_of(plan.inputs, 1, getattr(plan.inputs, "length", 1))


def _flops(model: Model, x: Tensor) -> int | None:
    try:
        with FlopCounterMode(display=False) as counter:
            model(x)
    except Exception:  # a layer that looks at its numbers cannot run without any
        return None
    return counter.get_total_flops()


def _state_bytes(model: Model, x: Tensor) -> int | None:
    try:
        _, state = model.eval().step(x, model.initial_state(1))
    except ValueError:  # a stem or a head that needs all tokens at once
        return None
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(state) if isinstance(leaf, Tensor))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks on modules that are called more than once."""
    logger = logging.getLogger("torch.utils.flop_counter")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
