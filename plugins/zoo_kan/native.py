"""Sums over edges as loops in C (`splines.c`), for CPUs: only splines that are not 0 are touched.

N rows, I inputs, O outputs, K functions, M knots. The same values and gradients as `splines.py` has for any
grid and order; nothing is kept for the way back but x, the weights and the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zoo.layers import native
from zoo_kan.edges import Gradients

SOURCE = Path(__file__).with_name("splines.c")
#: What the loops have registers or room for.
HIGHEST_ORDER = 8
BASES = ("silu", "identity")


def obstacle(x: Tensor, order: int) -> str:
    """Why `SplineSums` cannot compute this, "needs ..."; empty where it can."""
    if order > HIGHEST_ORDER:
        return f"needs an order of at most {HIGHEST_ORDER}"
    return native.obstacle(SOURCE, x, graphs=True)


@dataclass(frozen=True)
class SplineSums:
    """grid: (I, M), float64. extrapolate: which of `splines.EXTRAPOLATE`."""

    grid: Tensor
    order: int
    extrapolate: int

    def forward(self, x: Tensor, coef: Tensor, base_weight: Tensor | None, base: str) -> Tensor:
        """Of x (N, I), with coef (O, I, K) and base_weight (O, I): the sums, (N, O)."""
        choices = self._choices(base_weight, base)
        return cast(Tensor, torch.ops.zoo_kan.splines.default(x, coef, base_weight, self.grid, choices))

    def backward(
        self,
        gradient: Tensor,
        x: Tensor,
        coef: Tensor,
        base_weight: Tensor | None,
        base: str,
        wanted: Sequence[bool],
    ) -> Gradients:
        """The gradients of x, coef and base_weight, those that are wanted; gradient: (N, O), of the sums."""
        wanted = [*wanted[:2], wanted[2] and base_weight is not None]
        choices = self._choices(base_weight, base)
        found = torch.ops.zoo_kan.splines_backward.default(
            gradient, x, coef, base_weight, self.grid, choices, wanted
        )
        of_x, of_coef, of_base = (t if is_ else None for t, is_ in zip(found, wanted, strict=True))
        return of_x, of_coef, of_base

    def _choices(self, base_weight: Tensor | None, base: str) -> list[int]:
        """Order, extrapolation and b, as `splines.c` takes them."""
        return [self.order, self.extrapolate, 0 if base_weight is None else 1 + BASES.index(base)]


# Operations of torch, so that compiled code, its counter of operations and its fake tensors know them. Those
# that `torch.library.custom_op` makes, in fewer words, take longer to be called.
_LIBRARY = torch.library.Library("zoo_kan", "DEF")
_LIBRARY.define("splines(Tensor x, Tensor coef, Tensor? base_weight, Tensor grid, int[] choices) -> Tensor")
_LIBRARY.define(
    "splines_backward(Tensor gradient, Tensor x, Tensor coef, Tensor? base_weight, Tensor grid,"
    " int[] choices, bool[] wanted) -> (Tensor, Tensor, Tensor)"
)


@torch.library.impl(_LIBRARY, "splines", "CPU")
def _forward(
    x: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, choices: Sequence[int]
) -> Tensor:
    given = [_dense(t) for t in (x, coef, base_weight, grid)]
    sums = x.new_zeros(len(x), len(coef))
    sizes = (x.shape[1], len(coef), grid.shape[1], *choices)
    native.loops(SOURCE, x.dtype).run("forward", len(x), *sizes, *given, sums)
    return sums


@torch.library.register_fake("zoo_kan::splines", lib=_LIBRARY)
def _(x: Tensor, coef: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape[0], coef.shape[0])


@torch.library.impl(_LIBRARY, "splines_backward", "CPU")
def _backward(
    gradient: Tensor,
    x: Tensor,
    coef: Tensor,
    base_weight: Tensor | None,
    grid: Tensor,
    choices: Sequence[int],
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, coef and base_weight; what is not wanted is empty."""
    given = [_dense(t) for t in (gradient, x, coef, base_weight, grid)]
    found = _made(x, coef, wanted)
    made = [t if is_ else None for t, is_ in zip(found, wanted, strict=True)]
    sizes = (len(x), x.shape[1], len(coef), grid.shape[1], *choices)
    native.loops(SOURCE, x.dtype).run("backward", x.shape[1], *sizes, *given, *made)
    return found


@torch.library.register_fake("zoo_kan::splines_backward", lib=_LIBRARY)
def _(gradient: Tensor, x: Tensor, coef: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _made(x, coef, others[-1])


def _made(x: Tensor, coef: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (x.shape, coef.shape, coef.shape[:2])
    of_x, of_coef, of_base = (
        x.new_empty(shape if is_ else (0,)) for shape, is_ in zip(shapes, wanted, strict=True)
    )
    return of_x, of_coef, of_base


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


@register_flop_formula(torch.ops.zoo_kan.splines)
def _(x: torch.Size, coef: torch.Size, *others: Any, **_: Any) -> int:
    """Of each edge order + 1 splines and the base function, times their weights."""
    order, _, base = others[2]
    return 2 * x.numel() * coef[0] * (order + 1 + (base > 0))


@register_flop_formula(torch.ops.zoo_kan.splines_backward)
def _(gradient: torch.Size, x: torch.Size, coef: torch.Size, *others: Any, **_: Any) -> int:
    """As much for the weights, and for x, which has the product with `gradient` as well."""
    (order, _, base), (of_x, of_coef, of_base) = others[2], others[3]
    functions = order + 1 + (base > 0)
    return 2 * x.numel() * coef[0] * (of_x * (functions + 1) + (of_coef or of_base) * functions)
