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

from zoo.layers import native

SOURCE = Path(__file__).with_name("lightning.c")
#: Tokens per chunk at most: what a chunk holds stays in the cache.
LONGEST_CHUNK = 128


def obstacle(q: Tensor, dtype: torch.dtype) -> str:
    """Why `native_attention` cannot compute this; empty where it can. dtype: of the sums."""
    reason = native.obstacle(SOURCE, q, dtype)
    return f"the backend 'native' {reason}" if reason else ""


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

    q, k: (B, H, T, D), v: (B, H, T, E), slopes: (H,) or (B, H), state: (B, H, D, E) or `None`, all of one
    type; lengths: int64 (B,), how many tokens of a row are there, or `None`. The others, at its end, are not
    looked at, and their outputs are zeros. Returns (B, H, T, E) and (B, H, D, E).
    """
    chunk = max(1, min(chunk, q.shape[2], LONGEST_CHUNK))
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, state))
    out, last = _Lightning.apply(q, k, v, slopes, state, lengths, chunk, learns)
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
        learns: bool,
    ) -> tuple[Tensor, Tensor]:
        out, last, states = torch.ops.zoo_transnormer.lightning.default(
            q, k, v, slopes, state, lengths, chunk, learns
        )
        ctx.save_for_backward(q, k, v, slopes, lengths, states)
        ctx.chunk, ctx.continues = chunk, state is not None
        ctx.set_materialize_grads(False)
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_last: Tensor | None) -> Any:
        wanted = ctx.needs_input_grad[4]
        grad_q, grad_k, grad_v, grad_state = torch.ops.zoo_transnormer.lightning_backward.default(
            *ctx.saved_tensors, ctx.chunk, ctx.continues, grad, grad_last, wanted
        )
        return grad_q, grad_k, grad_v, None, grad_state if wanted else None, None, None, None


# Operations of torch, so that its counter of operations and its fake tensors know them. Those that
# `torch.library.custom_op` makes, in fewer words, would take a tenth of a step of 1,024 tokens to be called.
_LIBRARY = torch.library.Library("zoo_transnormer", "DEF")
_LIBRARY.define(
    "lightning(Tensor q, Tensor k, Tensor v, Tensor slopes, Tensor? state, Tensor? lengths, int chunk,"
    " bool learns) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "lightning_backward(Tensor q, Tensor k, Tensor v, Tensor slopes, Tensor? lengths, Tensor states,"
    " int chunk, bool continues, Tensor? grad, Tensor? grad_last, bool wanted)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(_LIBRARY, "lightning", "CPU")
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    state: Tensor | None,
    lengths: Tensor | None,
    chunk: int,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, H, T, E), the last state and, if it learns, those before the chunks, (B, H, N, E, D)."""
    q, k, v, slopes = (x.contiguous() for x in (q, k, v, slopes))
    state = None if state is None else state.contiguous()
    out, last, states = _outputs(q, v, chunk, learns)
    given = (q, k, v, slopes, lengths, state)
    made = (out, last, states if learns else None)
    native.loops(SOURCE, v.dtype).run("forward", *_sizes(q, v, slopes, chunk), *given, *made)
    return out, last, states


@torch.library.impl(_LIBRARY, "lightning_backward", "CPU")
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    lengths: Tensor | None,
    states: Tensor,
    chunk: int,
    continues: bool,
    grad: Tensor | None,
    grad_last: Tensor | None,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and, if wanted, the first state."""
    q, k, v, slopes = (x.contiguous() for x in (q, k, v, slopes))
    grad = torch.zeros_like(v) if grad is None else grad.contiguous()
    grad_last = None if grad_last is None else grad_last.contiguous()
    grad_q, grad_k, grad_v, grad_state = _gradients(q, k, v, wanted)
    given = (q, k, v, slopes, lengths, int(continues), states, grad, grad_last)
    made = (grad_q, grad_k, grad_v, grad_state if wanted else None)
    native.loops(SOURCE, v.dtype).run("backward", *_sizes(q, v, slopes, chunk), *given, *made)
    return grad_q, grad_k, grad_v, grad_state


@torch.library.register_fake("zoo_transnormer::lightning", lib=_LIBRARY)
def _(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(q, v, *others[-2:])


@torch.library.register_fake("zoo_transnormer::lightning_backward", lib=_LIBRARY)
def _(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return _gradients(q, k, v, others[-1])


# Half of a chunk's weights lie in the future and are not computed.
@register_flop_formula(torch.ops.zoo_transnormer.lightning)
def _(q: torch.Size, k: torch.Size, v: torch.Size, *others: Any, **_: Any) -> int:
    batch, heads, tokens, channels = q
    chunk = others[3]
    return batch * heads * tokens * (chunk * (channels + v[-1]) + 4 * channels * v[-1])


@register_flop_formula(torch.ops.zoo_transnormer.lightning_backward)
def _(q: torch.Size, k: torch.Size, v: torch.Size, *others: Any, **_: Any) -> int:
    batch, heads, tokens, channels = q
    chunk = others[3]
    return batch * heads * tokens * (chunk * (3 * channels + 2 * v[-1]) + 8 * channels * v[-1])


def _sizes(q: Tensor, v: Tensor, slopes: Tensor, chunk: int) -> tuple[int, ...]:
    """R, H, L, T, D, E, C, as `lightning.c` names them."""
    batch, heads, tokens, channels = q.shape
    return batch * heads, heads, slopes.numel(), tokens, channels, v.shape[3], chunk


def _outputs(q: Tensor, v: Tensor, chunk: int, learns: bool) -> tuple[Tensor, Tensor, Tensor]:
    (batch, heads, tokens, channels), values = q.shape, v.shape[3]
    chunks = -(-tokens // chunk) if learns else 0
    last = v.new_empty(batch, heads, channels, values)
    return torch.empty_like(v), last, v.new_empty(batch, heads, chunks, values, channels)


def _gradients(q: Tensor, k: Tensor, v: Tensor, wanted: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    state = (*q.shape[:2], q.shape[3], v.shape[3]) if wanted else (0,)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), q.new_empty(state)
