"""What a memory is told, in one pass over its tokens in C (`told.c`), for CPUs.

B streams, N tokens, H heads, d channels of each, E = 3 H d. The same values and gradients as the tensor
operations of `told.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from zoo.layers import native

SOURCE = Path(__file__).with_name("told.c")


def obstacle(projected: Tensor, tail: Tensor) -> str:
    """Why `native_tell` cannot take them, "needs ..."; empty where it can."""
    if projected.dtype != tail.dtype:
        return "needs tensors of one type"
    return native.obstacle(SOURCE, projected)


def native_tell(
    projected: Tensor, tail: Tensor, kernel: Tensor | None, heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """projected (B, N, E), tail (B, K - 1, E), kernel (K, E) -> q, k, v (B, H, N, d)."""
    q, k, v = _Tell.apply(projected, tail, kernel, heads, eps)
    return q, k, v


class _Tell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, tail: Tensor, kernel: Tensor | None, heads: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(projected, tail, kernel)
        ctx.how = (heads, eps)
        return torch.ops.zoo_titans.tell.default(projected, tail, kernel, heads, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: recomputed layers hand them out once
        g_projected, g_tail, g_kernel = torch.ops.zoo_titans.tell_backward.default(*saved, *ctx.how, *grads)
        return g_projected, g_tail, None if saved[2] is None else g_kernel.sum(0), None, None


_LIBRARY = torch.library.Library("zoo_titans", "FRAGMENT")
_GIVEN = "Tensor projected, Tensor tail, Tensor? kernel, int heads, float eps"
_LIBRARY.define(f"tell({_GIVEN}) -> (Tensor, Tensor, Tensor)")
_LIBRARY.define(
    f"tell_backward({_GIVEN}, Tensor grad_q, Tensor grad_k, Tensor grad_v) -> (Tensor, Tensor, Tensor)"
)


@torch.library.impl(_LIBRARY, "tell", "CPU")
def _forward(
    projected: Tensor, tail: Tensor, kernel: Tensor | None, heads: int, eps: float
) -> tuple[Tensor, ...]:
    given = [None if t is None else t.contiguous() for t in (projected, tail, kernel)]
    made = _heads(projected, heads)
    sizes = _sizes(projected, tail, heads)
    native.loops(SOURCE, projected.dtype).run(
        "forward", len(projected), *sizes, projected.new_tensor([eps]), *given, *made
    )
    return made


@torch.library.impl(_LIBRARY, "tell_backward", "CPU")
def _backward(
    projected: Tensor, tail: Tensor, kernel: Tensor | None, heads: int, eps: float, *grads: Tensor
) -> tuple[Tensor, ...]:
    """Of `projected`, of `tail`, and of each stream's kernel, (B, K, E)."""
    given = [None if t is None else t.contiguous() for t in (projected, tail, kernel, *grads)]
    made = _gradients(projected, tail, kernel)
    sizes = _sizes(projected, tail, heads)
    native.loops(SOURCE, projected.dtype).run(
        "backward", len(projected), *sizes, projected.new_tensor([eps]), *given, *made
    )
    return made


@torch.library.register_fake("zoo_titans::tell", lib=_LIBRARY)
def _(projected: Tensor, tail: Tensor, kernel: Tensor | None, heads: int, eps: float) -> tuple[Tensor, ...]:
    return _heads(projected, heads)


@torch.library.register_fake("zoo_titans::tell_backward", lib=_LIBRARY)
def _(projected: Tensor, tail: Tensor, kernel: Tensor | None, *_others: Any) -> tuple[Tensor, ...]:
    return _gradients(projected, tail, kernel)


@register_flop_formula(torch.ops.zoo_titans.tell)
def _(projected: torch.Size, tail: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * projected.numel() * (tail[1] + 1)


@register_flop_formula(torch.ops.zoo_titans.tell_backward)
def _(projected: torch.Size, tail: torch.Size, *_: Any, **__: Any) -> int:
    return 6 * projected.numel() * (tail[1] + 1)


def _sizes(projected: Tensor, tail: Tensor, heads: int) -> tuple[int, ...]:
    """N, H, d and K."""
    return projected.shape[1], heads, projected.shape[2] // (3 * heads), tail.shape[1] + 1


def _heads(projected: Tensor, heads: int) -> tuple[Tensor, ...]:
    batch, tokens, channels = projected.shape
    return tuple(projected.new_empty(batch, heads, tokens, channels // (3 * heads)) for _ in range(3))


def _gradients(projected: Tensor, tail: Tensor, kernel: Tensor | None) -> tuple[Tensor, ...]:
    per_stream = projected.new_empty(0) if kernel is None else kernel.new_empty(len(projected), *kernel.shape)
    return torch.empty_like(projected), torch.empty_like(tail), per_stream
