"""The sum over edges, with a backward of its own.

Shapes: N rows, I inputs, O outputs, K basis functions; I' inputs of a block.

Written as plain operations, a KAN layer keeps some fifteen tensors of (N, I, K) for the way back. Here the
way back starts from x and the weights alone and computes the basis again. Two forms:

* Loops in C for B-splines on a CPU (`native.py`): only the k + 1 functions that are not 0 at an input are
  computed and multiplied.
* Block by block of features for everything else. Values of the basis live only while their block is worked
  on. It holds (I', K, N): all loops run along the rows, and what one pass leaves is still in the cache for
  the next one, the matrix product among them. Every function of every input is computed, also where it is
  0: in tensor operations it takes longer to leave those out (`scatter_`, `embedding_bag`; measured, G = 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from zoo.layers import full_precision, sum_dtype
from zoo_kan.functional import check_floating

#: Basis values in a block, 256 KiB of float32: three such tensors and what else a block needs fit a cache.
#: Smaller blocks lose more to calls than they gain.
BLOCK = 2**16


class Blocks(Protocol):
    """A basis at given inputs, a block of features at a time; nothing is to be differentiated.

    What it gives for one block may be overwritten, and by the next block is. chain: what slopes are yet to be
    multiplied by, all blocks together: (I, N) or (I, 1).
    """

    @property
    def chain(self) -> Tensor | None: ...

    def values(self, block: int) -> Tensor:
        """The functions, (I', K, N)."""

    def both(self, block: int) -> tuple[Tensor, Tensor]:
        """And their slopes, (I', K, N)."""


#: Of x (N, I), coef (O, I, K) and base_weight (O, I).
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Sums(Protocol):
    """What computes `sum_over_edges` as a whole; nothing is kept in between."""

    def forward(self, x: Tensor, coef: Tensor, base_weight: Tensor | None, base: str) -> Tensor:
        """(N, O)."""

    def backward(
        self,
        gradient: Tensor,
        x: Tensor,
        coef: Tensor,
        base_weight: Tensor | None,
        base: str,
        wanted: Sequence[bool],
    ) -> Gradients:
        """Those gradients that are wanted, and `None` for others; gradient: (N, O)."""


class Basis(nn.Module):
    """What every basis has. count: K, functions per input."""

    count: int

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., I) -> (..., I, K), in float32 (float64 for float64 inputs) also under autocast.

        Raises:
            ValueError: not of a floating-point type.
        """
        check_floating(x)
        with full_precision(x.device):
            rows = x.reshape(-1, x.shape[-1]).to(sum_dtype(x.dtype))
            return self.values(rows).transpose(1, 2).reshape(*x.shape, self.count)

    def values(self, x: Tensor, features: int = 1) -> Tensor:
        """x: (N, I) -> (N, K, I); or, with the features first (`features=0`), (I, N) -> (I, K, N)."""
        raise NotImplementedError

    def slopes(self, x: Tensor, features: int = 1) -> Tensor:
        """Derivatives of `values`."""
        raise NotImplementedError

    def part(self, at: slice) -> Basis:
        """The basis of some features only; itself, where all features have the same."""
        return self

    def blocks(self, columns: Tensor, size: int) -> Blocks:
        """The basis at inputs (I, N), which may be overwritten, by blocks of `size` features."""
        return _PlainBlocks(self, columns, size)

    def sums(self, x: Tensor) -> Sums | None:
        """What computes sums over edges at such inputs faster than block by block; `None`: nothing does."""
        return None


class _PlainBlocks:
    chain = None

    def __init__(self, basis: Basis, columns: Tensor, size: int) -> None:
        self.columns = columns.split(size)
        self.parts = [basis.part(slice(at, at + size)) for at in range(0, len(columns), size)]

    def values(self, block: int) -> Tensor:
        return self.parts[block].values(self.columns[block], 0)

    def both(self, block: int) -> tuple[Tensor, Tensor]:
        return self.values(block), self.parts[block].slopes(self.columns[block], 0)


def sum_over_edges(x: Tensor, coef: Tensor, base_weight: Tensor | None, basis: Basis, base: str) -> Tensor:
    """y_no = sum_i (w_oi b(x_ni) + sum_k c_oik B_k(x_ni)): x (N, I), coef (O, I, K), w (O, I) -> (N, O).

    base: "silu" or "identity", the function b. Differentiable any number of times (the first by blocks).
    """
    if _followed():
        return _plain(x, _planes(coef), base_weight, basis, base)
    return cast(Tensor, _Edges.apply(x, coef, base_weight, basis, base))


def expand(x: Tensor, basis: Basis) -> Tensor:
    """The basis functions themselves, x (N, I) -> (N, K, I); for the way back x alone is kept."""
    return basis.values(x) if _followed() else cast(Tensor, _Expanded.apply(x, basis))


def _followed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is under way, which follow plain
    operations alone."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


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


def _planes(coef: Tensor) -> Tensor:
    """coef (O, I, K) as plain operations multiply by it, (K I, O), forth and back."""
    return coef.permute(2, 1, 0).flatten(0, 1)


def _plain(x: Tensor, planes: Tensor, base_weight: Tensor | None, basis: Basis, base: str) -> Tensor:
    y = basis.values(x).flatten(1) @ planes  # (N, K I) @ (K I, O)
    return y if base_weight is None else F.linear(branch(x, base), base_weight) + y


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
        ctx.basis, ctx.base, ctx.sums = basis, base, basis.sums(x)
        # A compiler fuses plain operations better than blocks.
        ctx.plain = ctx.sums is None and torch.compiler.is_compiling()
        weights = _planes(coef) if ctx.plain else coef
        ctx.save_for_backward(x, weights, base_weight)
        if ctx.plain:
            return _plain(x, weights, base_weight, basis, base)
        if ctx.sums is None:
            return _by_blocks(x, coef, base_weight, basis, base)
        return cast(Tensor, ctx.sums.forward(x, coef, base_weight, base))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, coef, base_weight = ctx.saved_tensors  # where operations are plain, the planes of coef
        known = gradient, x, coef, base_weight
        if ctx.plain:
            found = _plain_backward(*known, ctx.basis, ctx.base)
        elif torch.is_grad_enabled() and not torch.compiler.is_compiling():  # to be differentiated again
            found = _plain_backward(gradient, x, _planes(coef), base_weight, ctx.basis, ctx.base)
        elif ctx.sums is not None:
            found = ctx.sums.backward(*known, ctx.base, ctx.needs_input_grad[:3])
        else:
            found = _backward_by_blocks(*known, ctx.basis, ctx.base, ctx.needs_input_grad)
        return (*found, None, None)


def _by_blocks(x: Tensor, coef: Tensor, base_weight: Tensor | None, basis: Basis, base: str) -> Tensor:
    columns, size, count = _columns(x), _block_size(x, basis), basis.count
    y = coef.new_zeros(len(coef), len(x))
    if base_weight is not None:
        y.addmm_(base_weight, branch(columns, base))
    blocks = basis.blocks(columns, size)
    for block, part in enumerate(coef.flatten(1).split(size * count, dim=1)):
        y.addmm_(part, blocks.values(block).flatten(0, 1))
    return y.T.contiguous()


def _backward_by_blocks(
    gradient: Tensor, x: Tensor, coef: Tensor, base_weight: Tensor | None, basis: Basis, base: str, wants: Any
) -> Gradients:
    """The gradients of x, coef and base_weight, as far as wanted."""
    columns, by_output, gradient = _columns(x), gradient.T.contiguous(), gradient.contiguous()
    of_base = of_branch = None
    if base_weight is not None and wants[2]:
        of_base = by_output @ branch(columns, base).T
    if base_weight is not None and wants[0]:
        of_branch = base_weight.T @ by_output
        if base == "silu":
            of_branch = torch.ops.aten.silu_backward(of_branch, columns)
    size, count = _block_size(x, basis), basis.count
    blocks = basis.blocks(columns, size)
    flat = coef.flatten(1).T.contiguous()  # (I K, O)
    of_x, of_flat = _room(x), torch.empty_like(flat)
    parts = (flat.split(size * count), of_x.split(size), of_flat.split(size * count))
    for block, (weights, of_inputs, of_weights) in enumerate(zip(*parts, strict=True)):
        values, slopes = blocks.both(block)
        matrix = values.flatten(0, 1)
        if wants[1]:
            torch.mm(matrix, gradient, out=of_weights)
        if wants[0]:
            torch.mm(weights, by_output, out=matrix)  # the gradient of the values, in their place
            torch.sum(matrix.view_as(slopes).mul_(slopes), 1, out=of_inputs)
    if wants[0] and blocks.chain is not None:
        of_x.mul_(blocks.chain)
    if of_branch is not None:
        of_x.add_(of_branch)
    return (
        of_x.T.contiguous() if wants[0] else None,
        of_flat.T.contiguous().view_as(coef) if wants[1] else None,
        of_base,
    )


def _plain_backward(
    gradient: Tensor, x: Tensor, planes: Tensor, base_weight: Tensor | None, basis: Basis, base: str
) -> Gradients:
    """The gradients of x, coef and base_weight, in operations that autograd can follow."""
    of_values = (gradient @ planes.T).unflatten(1, (basis.count, -1))  # (N, K, I)
    of_x = (of_values * basis.slopes(x)).sum(1)
    of_coef = (gradient.T @ basis.values(x).flatten(1)).unflatten(1, (basis.count, -1)).mT
    if base_weight is None:
        return of_x, of_coef, None
    of_x = of_x + (gradient @ base_weight) * _branch_slope(x, base)
    return of_x, of_coef, gradient.T @ branch(x, base)


def _columns(x: Tensor) -> Tensor:
    """x (N, I) by features, (I, N), in memory of its own."""
    return _room(x).copy_(x.T)


def _room(x: Tensor) -> Tensor:
    """Memory for (I, N) of x (N, I); its rows are no power of two apart, which caches take for one place."""
    rows, features = x.shape
    return x.new_empty(features, rows + 16 if rows % 256 == 0 else rows)[:, :rows]


def _block_size(x: Tensor, basis: Basis) -> int:
    """Features in a block, for inputs (N, I)."""
    return max(1, BLOCK // max(1, basis.count * len(x)))
