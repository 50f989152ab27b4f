"""What was exported is held to the model that was trained, on random input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.contract import Plan
from zoo.errors import ZooError, one_line
from zoo.layers.model import Model
from zoo.sharing.graph import random_inputs, takes_mask

#: The largest difference allowed, as a share of the largest output (or of 1): what float32 kernels that
#: add in another order differ by, and no wrong graph does.
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far an exported model was from the eager one.

    tried: batch sizes and lengths. error: the largest difference, relative to the outputs' size.
    """

    tried: tuple[tuple[int, int], ...]
    error: float


def verify(
    found: Callable[..., Tensor], model: Model, plan: Plan, shapes: Iterable[tuple[int, int]]
) -> Agreement:
    """Compare on random inputs of several shapes.

    found: what was exported, called with x and, where the data are ragged, the mask.
    model: the eager one, in evaluation mode.

    Raises:
        ZooError: they differ, or what was exported fails; with the shape.
    """
    worst, tried = 0.0, []
    for seed, (batch, n) in enumerate(shapes, start=1):
        given = random_inputs(plan, batch, n, seed=seed)
        with torch.no_grad():
            expected = model(given[0], mask=given[1] if takes_mask(plan) else None)
            try:
                outputs = found(*given)
            except Exception as error:  # of whatever runs the file
                raise ZooError(
                    f"what was exported fails on {_named(given)}: {one_line(error)[:300]}"
                ) from error
        if outputs.shape != expected.shape:
            shape = tuple(outputs.shape)
            raise ZooError(
                f"what was exported gives {shape} on {_named(given)}, but the model {tuple(expected.shape)}"
            )
        scale = max(1.0, float(expected.abs().max()))
        apart = float((outputs - expected).abs().max()) / scale
        if not apart <= TOLERANCE:  # NaN is no agreement either
            raise ZooError(
                f"what was exported differs from the model by {apart:.2g} of the largest output on "
                f"{_named(given)}; {TOLERANCE:g} is allowed"
            )
        worst = max(worst, apart)
        tried.append((batch, n))
    return Agreement(tried=tuple(tried), error=worst)


def _named(given: tuple[Tensor, ...]) -> str:
    return f"inputs {tuple(given[0].shape)}"
