"""KAN layers the slow and obvious way, edge by edge in float64; the fast forms are tested against it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo_kan.layers import KANLinear


def bspline(x: float, knots: list[float], j: int, order: int) -> float:
    """B_j,order(x) by the recursion of Cox and de Boor, term by term, 0 / 0 = 0."""
    if order == 0:  # the last interval holds its end, too
        return float(knots[j] <= x < knots[j + 1] or knots[j] < x == knots[j + 1] == knots[-1])
    left, right = knots[j + order] - knots[j], knots[j + order + 1] - knots[j + 1]
    value = 0.0
    if left > 0:
        value += (x - knots[j]) / left * bspline(x, knots, j, order - 1)
    if right > 0:
        value += (knots[j + order + 1] - x) / right * bspline(x, knots, j + 1, order - 1)
    return value


def edge(layer: KANLinear, o: int, i: int, x: float) -> float:
    """phi_oi(x) = w_b silu(x) + w_s sum_j c_j B_j(x): the residual activation function of the KAN paper.

    Of a layer on B-splines with `extrapolate="zero"` and the SiLU base.
    """
    knots = layer.basis.grid[i].double().tolist()
    coef = layer.coef[o, i].double().tolist()
    value = sum(c * bspline(x, knots, j, layer.basis.order) for j, c in enumerate(coef))
    if layer.scale is not None:
        value *= layer.scale[o, i].item()
    if layer.base_weight is None:
        return value
    return layer.base_weight[o, i].item() * x / (1 + math.exp(-x)) + value


def kan_linear(layer: KANLinear, x: Tensor) -> Tensor:
    """y_o = sum_i phi_oi(x_i) over the edges that are kept, or a product of such sums.

    x: (N, I) -> (N, O), float64. Without bias.
    """
    kept = layer.edge_mask.bool()
    rows = [
        [
            sum(edge(layer, o, i, value) for i, value in enumerate(row) if kept[o, i])
            for o in range(layer.sums)
        ]
        for row in x.double().tolist()
    ]
    nodes = [[1.0] * layer.out_features for _ in rows]
    for row, node in zip(rows, nodes, strict=True):
        for o, value in enumerate(row):
            node[layer.node_of(o)] *= value
    return torch.tensor(nodes, dtype=torch.float64)
