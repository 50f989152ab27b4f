"""The sum over edges, block by block of features, with a backward of its own.

Shapes: N rows, I inputs, O outputs, K basis functions.

Written as plain operations, a KAN layer keeps some fifteen tensors of (N, I, K) for the way back. Here the
values of the basis live only while their block of features is worked on, and the way back, which starts from
x and the weights alone, computes them again. A block holds (I', K, N): all loops run along the rows. It is
one matrix product, large enough to be worth it, and passes over memory in pieces small enough for a cache.

Every basis function of every input is computed, also where it is 0. Of cubic splines just 4 of G + 3 are not;
but to put these 4 where they belong (`scatter_`) takes as long on a CPU as the closed form of all (measured,
G = 5), and a product with the rows that they pick (`embedding_bag`) ten times.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

#: Basis values per matrix product, 4 MiB of float32, and per pass over memory, which a cache should hold.
PRODUCT, PASS = 2**20, 2**17


class Blocks(Protocol):
    """A basis at given inputs, a block of features at a time; nothing is to be differentiated.

    at: which features these are. x: their inputs, (I', N). out: where the functions go, (I', K, N). sign:
    what these are yet to be multiplied by.
    """

    sign: float

    def values(self, x: Tensor, at: slice, *, out: Tensor) -> None: ...

    def both(self, x: Tensor, at: slice, *, out: Tensor) -> tuple[Tensor, Tensor | None]:
        """Besides, the slopes (I', K, N), and what they are yet to be multiplied by, (I', N) or (I', 1)."""


class Basis(Protocol):
    """x: (N, I) -> (N, K, I), functions and derivatives in plain operations; and by blocks."""

    @property
    def count(self) -> int: ...
    def values(self, x: Tensor) -> Tensor: ...
    def slopes(self, x: Tensor) -> Tensor: ...
    def blocks(self, x: Tensor) -> Blocks: ...


def sum_over_edges(x: Tensor, coef: Tensor, base_weight: Tensor | None, basis: Basis, base: str) -> Tensor:
    """y_no = sum_i (w_oi b(x_ni) + sum_k c_oik B_k(x_ni)): x (N, I), coef (O, I, K), w (O, I) -> (N, O).

    base: "silu" or "identity", the function b. Differentiable any number of times (the first by blocks).
    """
    return cast(Tensor, _Edges.apply(x, coef, base_weight, basis, base))


def expand(x: Tensor, basis: Basis) -> Tensor:
    """The basis functions themselves, x (N, I) -> (N, K, I); for the way back x alone is kept."""
    return cast(Tensor, _Expanded.apply(x, basis))


class _Expanded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, basis: Basis) -> Tensor:
        ctx.save_for_backward(x)
        ctx.basis = basis
        return basis.values(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return (gradient * ctx.basis.slopes(x)).sum(1), None


def _plain(x: Tensor, coef: Tensor, base_weight: Tensor | None, basis: Basis, base: str) -> Tensor:
    y = F.linear(basis.values(x).flatten(1), coef.mT.flatten(1))
    return y if base_weight is None else y + F.linear(branch(x, base), base_weight)


def branch(x: Tensor, base: str) -> Tensor:
    """b(x) of the base branch."""
    return F.silu(x) if base == "silu" else x


def _branch_slope(x: Tensor, base: str) -> Tensor:
    if base == "identity":
        return torch.ones_like(x)
    share = x.sigmoid()
    return share * (1 + x * (1 - share))


class _Edges(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, coef: Tensor, base_weight: Tensor | None, basis: Basis, base: str
    ) -> Tensor:
        ctx.save_for_backward(x, coef, base_weight)
        ctx.basis, ctx.base = basis, base
        ctx.compiled = torch.compiler.is_compiling()
        if ctx.compiled:
            return _plain(x, coef, base_weight, basis, base)  # a compiler fuses it better than blocks do
        columns, flat, blocks, count = x.T.contiguous(), coef.flatten(1), basis.blocks(x), basis.count
        y = coef.new_zeros(len(coef), len(x))
        if base_weight is not None:
            y.addmm_(base_weight, branch(columns, base))
        products = _slices(len(columns), PRODUCT // (count * len(x) + 1))
        room = x.new_empty(products[0].stop, count, len(x))
        for features in products:
            values = room[: features.stop - features.start]
            for at in _slices(len(values), PASS // (count * len(x) + 1)):
                blocks.values(columns[_moved(at, features.start)], _moved(at, features.start), out=values[at])
            of = slice(features.start * count, features.stop * count)
            y.addmm_(flat[:, of], values.flatten(0, 1), alpha=blocks.sign)
        return y.T.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, coef, base_weight = ctx.saved_tensors
        if ctx.compiled or torch.is_grad_enabled():  # the latter: it is to be differentiated again
            return (*_plain_backward(gradient, x, coef, base_weight, ctx.basis, ctx.base), None, None)
        wants_x, wants_coef, wants_base = ctx.needs_input_grad[:3]
        columns, by_output, count = x.T.contiguous(), gradient.T.contiguous(), ctx.basis.count
        flat = coef.flatten(1).T.contiguous()  # (I K, O)
        of_x = torch.empty_like(columns) if wants_x else None
        of_coef = torch.empty_like(flat) if wants_coef else None
        blocks = ctx.basis.blocks(x)
        signed = blocks.sign * gradient
        products = _slices(len(columns), PRODUCT // (count * len(x) + 1))
        shape = (products[0].stop, count, len(x))
        room = x.new_empty(shape)  # memory that is given back and taken anew costs more
        of_room = room if of_x is None else x.new_empty(shape)
        for features in products:
            values, of_values = (each[: features.stop - features.start] for each in (room, of_room))
            of = slice(features.start * count, features.stop * count)
            if of_x is not None:
                torch.mm(flat[of], by_output, out=of_values.flatten(0, 1))
            for at in _slices(len(values), PASS // (count * len(x) + 1)):
                place = _moved(at, features.start)
                if of_x is None:
                    blocks.values(columns[place], place, out=values[at])
                    continue
                slopes, chain = blocks.both(columns[place], place, out=values[at])
                of_part = torch.sum(slopes.mul_(of_values[at]), 1, out=of_x[place])
                if chain is not None:
                    of_part.mul_(chain)
            if of_coef is not None:
                torch.mm(values.flatten(0, 1), signed, out=of_coef[of])
        of_base = None
        if base_weight is not None:
            if wants_base:
                of_base = by_output @ branch(columns, ctx.base).T
            if of_x is not None:
                of_x.addcmul_(base_weight.T @ by_output, _branch_slope(columns, ctx.base))
        return (
            None if of_x is None else of_x.T.contiguous(),
            None if of_coef is None else of_coef.T.contiguous().view_as(coef),
            of_base,
            None,
            None,
        )


def _plain_backward(
    gradient: Tensor, x: Tensor, coef: Tensor, base_weight: Tensor | None, basis: Basis, base: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of x, coef and base_weight, in operations that autograd can follow."""
    of_values = (gradient @ coef.mT.flatten(1)).unflatten(1, (basis.count, -1))  # (N, K, I)
    of_x = (of_values * basis.slopes(x)).sum(1)
    of_coef = (gradient.T @ basis.values(x).flatten(1)).unflatten(1, (basis.count, -1)).mT
    if base_weight is None:
        return of_x, of_coef, None
    of_x = of_x + (gradient @ base_weight) * _branch_slope(x, base)
    return of_x, of_coef, gradient.T @ branch(x, base)


def _slices(count: int, size: int) -> list[slice]:
    """Slices of at most `size` of so many things, of one at least."""
    size = max(1, size)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _moved(at: slice, by: int) -> slice:
    return slice(at.start + by, at.stop + by)
