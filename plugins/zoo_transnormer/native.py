"""Lightning attention as loops in C (`lightning.c`), for CPUs: a chunk's products never leave the cache.

B batch, H heads, T tokens, D channels of queries and keys, E of values. The same values and gradients as
`chunked.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from zoo.layers.native import Kernels, kernels

SOURCE = Path(__file__).with_name("lightning.c")
#: Tokens per chunk at most: what a chunk holds stays in the cache.
LONGEST_CHUNK = 128


def obstacle(q: Tensor, dtype: torch.dtype) -> str:
    """Why `native_attention` cannot compute this; empty where it can. dtype: of the sums."""
    if q.device.type != "cpu":
        return f"the backend 'native' needs tensors on CPU, these are on {q.device.type}"
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return "the backend 'native' cannot be captured as a graph"
    if kernels(SOURCE, dtype) is None:
        return "the backend 'native' needs a C compiler (cc, gcc, clang or $CC) and ZOO_KERNELS unset"
    return ""


def native_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    state: Tensor | None,
    lengths: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """o_t = q_t S_t with S_t = e^(-slope) S_{t-1} + k_t v_t^T, and the state after the last token.

    q, k: (B, H, T, D), v: (B, H, T, E), slopes: (B, H), state: (B, H, D, E) or `None`, all of one type;
    lengths: int64 (B,), how many tokens of a row are there, or `None`. The others, at its end, are not
    looked at, and their outputs are zeros. Returns (B, H, T, E) and (B, H, D, E).
    """
    chunk = max(1, min(chunk, q.shape[2], LONGEST_CHUNK))
    out, last = _Lightning.apply(q, k, v, slopes, state, lengths, chunk)
    return out, last


class _Lightning(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        slopes: Tensor,
        state: Tensor | None,
        lengths: Tensor | None,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        out, last, states = _forward(q, k, v, slopes, state, lengths, chunk)
        ctx.save_for_backward(q, k, v, slopes, lengths, states)
        ctx.chunk, ctx.continues = chunk, state is not None
        ctx.set_materialize_grads(False)
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_last: Tensor | None) -> Any:
        grad_q, grad_k, grad_v, grad_state = _backward(*ctx.saved_tensors, ctx.chunk, grad, grad_last)
        return grad_q, grad_k, grad_v, None, grad_state if ctx.continues else None, None, None


@torch.library.custom_op("zoo_transnormer::lightning", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    state: Tensor | None,
    lengths: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, H, T, E), the last state, and the states before the chunks, (B, H, N, E, D)."""
    given = [x.contiguous() for x in (q, k, v, slopes)]
    last = _carried(q, v, state)
    out, states = v.new_empty(v.shape), _states(q, v, chunk)
    sizes = (q.shape[1], q.shape[2], q.shape[3], v.shape[3], chunk)
    _loops(v).run("forward", slopes.numel(), *sizes, *given, lengths, last, out, states)
    return out, last, states


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return v.new_empty(v.shape), q.new_empty(*q.shape[:2], q.shape[3], v.shape[3]), _states(q, v, others[-1])


@torch.library.custom_op("zoo_transnormer::lightning_backward", mutates_args=())
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    lengths: Tensor | None,
    states: Tensor,
    chunk: int,
    grad: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the first state."""
    grad = torch.zeros_like(v) if grad is None else grad
    given = [x.contiguous() for x in (q, k, v, slopes)]
    first = _carried(q, v, grad_last)
    made = [torch.empty_like(x) for x in given[:3]]
    sizes = (q.shape[1], q.shape[2], q.shape[3], v.shape[3], chunk)
    _loops(v).run(
        "backward", slopes.numel(), *sizes, *given, lengths, states, grad.contiguous(), first, *made
    )
    return made[0], made[1], made[2], first


@_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, ...]:
    state = q.new_empty(*q.shape[:2], q.shape[3], v.shape[3])
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), state


# Half of a chunk's weights lie in the future and are not computed.
@register_flop_formula(torch.ops.zoo_transnormer.lightning)
def _(q: torch.Size, k: torch.Size, v: torch.Size, *others: Any, **_: Any) -> int:
    batch, heads, tokens, channels = q
    return batch * heads * tokens * (others[-1] * (channels + v[-1]) + 4 * channels * v[-1])


@register_flop_formula(torch.ops.zoo_transnormer.lightning_backward)
def _(q: torch.Size, k: torch.Size, v: torch.Size, *others: Any, **_: Any) -> int:
    batch, heads, tokens, channels = q
    chunk = others[3]
    return batch * heads * tokens * (chunk * (3 * channels + 2 * v[-1]) + 8 * channels * v[-1])


def _carried(q: Tensor, v: Tensor, state: Tensor | None) -> Tensor:
    """(B, H, D, E), to be written over: the state, or zeros."""
    if state is None:
        return q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3])
    return state.clone(memory_format=torch.contiguous_format)


def _states(q: Tensor, v: Tensor, chunk: int) -> Tensor:
    batch, heads, tokens, channels = q.shape
    return q.new_empty(batch, heads, -(-tokens // chunk), v.shape[3], channels)


def _loops(v: Tensor) -> Kernels:
    found = kernels(SOURCE, v.dtype)
    assert found is not None, "see `obstacle`"
    return found
