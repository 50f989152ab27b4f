"""The sum over edges, block by block of features, with a backward of its own.

Shapes: N rows, I inputs, O outputs, K basis functions.

Written as plain operations, a KAN layer keeps some fifteen tensors of (N, I, K) for the way back. Here the
values of the basis live only while their block of features is worked on, small enough for a cache, and the
way back, which starts from x and the weights alone, computes them again. A block holds (I', K, N): all loops
run along the rows, and each block is one matrix product.

Every basis function of every input is computed, also where it is 0. Of cubic splines just 4 of G + 3 are not;
but to put these 4 where they belong (`scatter_`) takes three times as long on a CPU as the closed form of
all (measured, G = 5), and a product with the rows that they pick (`embedding_bag`) ten times.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

#: Basis values per block, half a MiB of float32. 2^16 to 2^18 measured alike; 2^14 takes 1.5 times as long.
BLOCK = 2**17


class Blocks(Protocol):
    """A basis at given inputs, a block of features at a time; nothing is to be differentiated.

    sign: what values are yet to be multiplied by. chain: what slopes are, (I, N) or (I, 1), if by anything.
    """

    sign: float
    chain: Tensor | None

    def values(self, at: slice) -> Tensor:
        """The basis functions of these features, (I', K, N)."""

    def both(self, at: slice) -> tuple[Tensor, Tensor]:
        """`values`, and the slopes, in memory of their own."""


class Basis(Protocol):
    """x: (N, I) -> (N, K, I), functions and derivatives in plain operations; and x: (I, N) by blocks."""

    @property
    def count(self) -> int: ...
    def values(self, x: Tensor) -> Tensor: ...
    def slopes(self, x: Tensor) -> Tensor: ...
    def blocks(self, x: Tensor) -> Blocks: ...


def sum_over_edges(x: Tensor, coef: Tensor, base_weight: Tensor | None, basis: Basis, base: str) -> Tensor:
    """y_no = sum_i (w_oi b(x_ni) + sum_k c_oik B_k(x_ni)): x (N, I), coef (O, I, K), w (O, I) -> (N, O).

    base: "silu" or "identity", the function b. Differentiable any number of times (the first by blocks).
    """
    if torch.compiler.is_compiling():
        return _plain(x, coef, base_weight, basis, base)  # a compiler fuses it better than blocks do
    return cast(Tensor, _Edges.apply(x, coef, base_weight, basis, base))


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
        columns, flat = x.T.contiguous(), coef.flatten(1)
        y = coef.new_zeros(len(coef), len(x))
        if base_weight is not None:
            y.addmm_(base_weight, branch(columns, base))
        blocks = basis.blocks(columns)
        for at, of in _slices(x, basis.count):
            y.addmm_(flat[:, of], blocks.values(at).flatten(0, 1), alpha=blocks.sign)
        return y.T.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, coef, base_weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is to be differentiated again
            return (*_plain_backward(gradient, x, coef, base_weight, ctx.basis, ctx.base), None, None)
        wants_x, wants_coef, wants_base = ctx.needs_input_grad[:3]
        columns, by_output, count = x.T.contiguous(), gradient.T.contiguous(), ctx.basis.count
        flat = coef.flatten(1).T.contiguous()  # (I K, O)
        of_x = torch.empty_like(columns) if wants_x else None
        of_coef = torch.empty_like(flat) if wants_coef else None
        blocks, slices = ctx.basis.blocks(columns), _slices(x, count)
        signed = blocks.sign * gradient
        room = x.new_empty(slices[0][1].stop, len(x))  # memory that is given back and taken anew costs more
        for at, of in slices:
            if of_x is None:
                values = blocks.values(at)
            else:
                values, slopes = blocks.both(at)
                of_values = torch.mm(flat[of], by_output, out=room[: of.stop - of.start])
                torch.sum(slopes.mul_(of_values.view_as(slopes)), 1, out=of_x[at])
            if of_coef is not None:
                torch.mm(values.flatten(0, 1), signed, out=of_coef[of])
        if of_x is not None and blocks.chain is not None:
            of_x.mul_(blocks.chain)
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
    of_values = torch.einsum("no,oik->nki", gradient, coef)
    of_x = (of_values * basis.slopes(x)).sum(1)
    of_coef = torch.einsum("no,nki->oik", gradient, basis.values(x))
    if base_weight is None:
        return of_x, of_coef, None
    of_x = of_x + (gradient @ base_weight) * _branch_slope(x, base)
    return of_x, of_coef, gradient.T @ branch(x, base)


def _slices(x: Tensor, count: int) -> list[tuple[slice, slice]]:
    """Slices of features, and of their basis functions among all."""
    rows, features = x.shape
    size = max(1, BLOCK // max(1, count * rows))
    cuts = [(start, min(start + size, features)) for start in range(0, features, size)]
    return [(slice(start, end), slice(start * count, end * count)) for start, end in cuts]
