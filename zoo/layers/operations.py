"""Operations counted while they are called: floating-point operations of products, or another measure.

Counted where torch itself computes, so that what a layer does by hand is seen as well: products inside
autograd functions of its own, and those that add into a tensor that is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

_aten = torch.ops.aten
Measure = Callable[[Any, tuple[Any, ...], Mapping[str, Any], Any], int | None]


class OperationCounter(TorchDispatchMode):
    """Adds up a measure of every call of torch inside the block, forwards and backwards.

    By default that is `flops_of_call`. torch's `FlopCounterMode` tells operations by module as well, fails
    where a module takes a bare parameter, and leaves out what `_MORE` below has.
    """

    def __init__(self, measure: Measure | None = None) -> None:
        """measure: function, arguments, keywords and result of a call -> a number; `None` counts nothing."""
        super().__init__()
        self.measure = measure or flops_of_call
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.total += self.measure(func, args, kwargs or {}, out) or 0
        return out


def flops_of_call(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int | None:
    """Floating-point operations of one call of torch, a multiplication and its addition being two.

    `None`: it is no product of matrices, convolution or attention.
    """
    packet = func._overloadpacket
    if packet in _MORE:
        return int(_MORE[packet](args))
    if packet not in flop_registry and packet.__name__.endswith("_"):  # in place: baddbmm_
        packet = getattr(_aten, packet.__name__.rstrip("_"), packet)
    return int(flop_registry[packet](*args, **kwargs, out_val=out)) if packet in flop_registry else None


def _attention(args: tuple[Any, ...]) -> int:
    return int(sdpa_flop_count(args[0].shape, args[1].shape, args[2].shape))


def _attention_backward(args: tuple[Any, ...]) -> int:
    """Five products of the size of the two forwards: the scores again, and four gradients."""
    _, q, k, v = args[:4]
    return 5 * int(sdpa_flop_count(q.shape, k.shape, v.shape)) // 2


def _dot(one: Tensor, _: Tensor) -> int:
    return 2 * one.numel()


def _solve(matrices: Tensor, sides: Tensor) -> int:
    """A triangle of n x n against right-hand sides (..., n, k): n^2 each."""
    n = matrices.shape[-1]
    return n * math.prod(sides.shape)


#: What torch 2.13 has no formula for.
_MORE: dict[Any, Callable[[tuple[Any, ...]], int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten.dot: lambda args: _dot(args[0], args[1]),
    _aten.mv: lambda args: _dot(args[0], args[1]),
    _aten.addmv: lambda args: _dot(args[1], args[2]),
    _aten.linalg_solve_triangular: lambda args: _solve(args[0], args[1]),
}
