"""Layers of pykan and of efficient-kan as `KANLinear`: the same functions, from their weights and grids.

Of the object that is given only its tensors are read, by their names in pykan 0.2.8 and efficient-kan, of
which neither is needed here. I inputs, O outputs, K basis functions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo_kan.layers import KANLinear


def from_pykan(layer: Any) -> KANLinear:
    """A `KANLayer` of pykan; of a `KAN`, those in its `act_fun`. Pruned edges stay pruned.

    A `KAN` also has affine maps of its nodes and symbolic edges: as long as these were not touched, its
    layers one after the other are the whole network.

    Raises:
        ValueError: it lacks what a `KANLayer` has, or its base function is not SiLU.
    """
    names = ("grid", "coef", "scale_base", "scale_sp", "mask", "k", "base_fun")
    grid, coef, base, scale, mask, order, base_fun = _read(layer, names, "a KANLayer of pykan")
    if not isinstance(base_fun, nn.SiLU):
        raise ValueError(f"its base function must be SiLU, got {base_fun!r}")
    made = _build(grid, coef.transpose(0, 1), base.T, scale.T, order=int(order))
    return made.prune_(mask.T.detach().cpu() > 0)


def from_efficient_kan(layer: Any) -> KANLinear:
    """A `KANLinear` of efficient-kan, with or without its scales of edges.

    Raises:
        ValueError: it lacks what such a layer has, or its base function is not SiLU.
    """
    names = ("grid", "spline_weight", "base_weight", "spline_order", "base_activation")
    grid, coef, base, order, base_fun = _read(layer, names, "a KANLinear of efficient-kan")
    if not isinstance(base_fun, nn.SiLU):
        raise ValueError(f"its base function must be SiLU, got {base_fun!r}")
    return _build(grid, coef, base, getattr(layer, "spline_scaler", None), order=int(order))


def _read(layer: Any, names: tuple[str, ...], what: str) -> list[Any]:
    missing = [name for name in names if not hasattr(layer, name)]
    if missing:
        raise ValueError(f"expected {what}, but a {type(layer).__name__} has no {', '.join(missing)}")
    return [getattr(layer, name) for name in names]


@torch.no_grad()
def _build(grid: Tensor, coef: Tensor, base: Tensor, scale: Tensor | None, *, order: int) -> KANLinear:
    """grid: (I, M), coef: (O, I, K), base and scale: (O, I)."""
    outputs, inputs, count = coef.shape
    made = KANLinear(
        inputs, outputs, grid_intervals=count - order, order=order, edge_scale=scale is not None
    ).to(coef.dtype)
    made.basis.set_grid(grid.detach().cpu())
    made.coef.copy_(coef)
    for ours, theirs in ((made.base_weight, base), (made.scale, scale)):
        if ours is not None and theirs is not None:
            ours.copy_(theirs)
    return made
