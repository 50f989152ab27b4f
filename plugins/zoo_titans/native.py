"""The chunks as a loop in C (`memory.c`), for CPUs: a memory and all that a chunk computes stay in the cache.

R rows, n chunks of C tokens, as in `scan.py`, whose values and gradients it has; S numbers in a row's stacks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from zoo.layers import native
from zoo_titans.chunk import Form, Stacks
from zoo_titans.gates import Gates

SOURCE = Path(__file__).with_name("memory.c")
#: Chunks whose stacks are kept for the backward, of more every sqrt(n)-th. Fewer than in `scan.py`: computing
#: one again in the cache costs less than writing it to memory.
STORED = 8
#: As in `memory.c`.
ACTIVATIONS = ("silu", "gelu")


def obstacle(x: Tensor, dtype: torch.dtype) -> str:
    """Why `native_chunks` cannot compute on tensors like x, sums in dtype; empty where it can."""
    return native.obstacle(SOURCE, x, dtype)


def native_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Gates,
    stacks: Stacks,
    anchor: Stacks,
    form: Form,
    *,
    before: bool,
) -> tuple[Tensor, Stacks]:
    """As `scan.run_chunks`; v less the keys where the memory adds its input, which this leaves out."""
    count, sizes = k.shape[1], [*(stack.shape[1] // 2 for stack in stacks), v.shape[3]]
    group = 1 if count <= STORED else math.isqrt(count - 1) + 1
    at = torch.cat([w.flatten(1) for w in anchor], 1) if anchor else None
    whole = torch.cat([stack.flatten(1) for stack in stacks], 1)
    tensors = (q, k, v, *gates, whole, at)
    learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    y, after = _Chunks.apply(sizes, form, group, before, learns, *tensors)
    parts = after.split([2 * n * m for n, m in itertools.pairwise(sizes)], 1)
    return y, [part.view_as(stack) for part, stack in zip(parts, stacks, strict=True)]


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sizes: list[int], form: Form, group: int, before: bool, learns: bool, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.how = (sizes, ACTIVATIONS.index(form.act), form.loss_scale, form.limit or 0.0, group, before)
        y, after, starts = torch.ops.zoo_titans.memory.default(*tensors, *ctx.how, learns)
        ctx.save_for_backward(*tensors[:-2], starts, tensors[-1])
        return y, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, g_after: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: recomputed layers hand them out once
        *found, g_stacks, g_anchor = torch.ops.zoo_titans.memory_backward.default(
            *saved, *ctx.how, grad, g_after
        )
        elsewhere = None if saved[-1] is None else g_anchor
        return *[None] * 5, *found, None, g_stacks, elsewhere


# Operations of torch, so that its counter of operations and its fake tensors know them.
_LIBRARY = torch.library.Library("zoo_titans", "DEF")
_GIVEN = "Tensor q, Tensor k, Tensor v, Tensor alpha, Tensor eta, Tensor theta, Tensor? valid"
_HOW = "int[] sizes, int act, float loss_scale, float limit, int group, bool before"
_LIBRARY.define(
    f"memory({_GIVEN}, Tensor stacks, Tensor? anchor, {_HOW}, bool learns) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    f"memory_backward({_GIVEN}, Tensor starts, Tensor? anchor, {_HOW}, Tensor grad, Tensor grad_after)"
    f" -> ({', '.join(['Tensor'] * 8)})"
)


@torch.library.impl(_LIBRARY, "memory", "CPU")
def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """y (R, n, Q, d_v), the stacks after the last chunk (R, S), those before every group, (R, groups, S)."""
    tensors, how, learns = arguments[:9], arguments[9:-1], arguments[-1]
    given = [None if t is None else t.contiguous() for t in tensors]
    made = _outputs(given, how[-2], learns)
    y, after, starts = made
    native.loops(SOURCE, y.dtype).run(
        "forward", len(after), *_numbers(given, *how), *given, y, after, starts if learns else None
    )
    return made


@torch.library.impl(_LIBRARY, "memory_backward", "CPU")
def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of all that is given, of the first stacks (R, S) and of the anchor (R, S / 2)."""
    tensors, how, (grad, g_after) = arguments[:9], arguments[9:-2], arguments[-2:]
    given = [None if t is None else t.contiguous() for t in tensors]
    made = _gradients(given, g_after)
    *found, g_stacks, g_anchor = made
    g_stacks.copy_(g_after)
    native.loops(SOURCE, grad.dtype).run(
        "backward",
        len(g_stacks),
        *_numbers(given, *how),
        *given,
        grad.contiguous(),
        g_stacks,
        *found,
        None if given[-1] is None else g_anchor,
    )
    return made


@torch.library.register_fake("zoo_titans::memory", lib=_LIBRARY)
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(arguments[:9], arguments[-3], arguments[-1])


@torch.library.register_fake("zoo_titans::memory_backward", lib=_LIBRARY)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    return _gradients(arguments[:9], arguments[-1])


@register_flop_formula(torch.ops.zoo_titans.memory)
def _(q: torch.Size, k: torch.Size, *others: Any, **_: Any) -> int:
    sizes = others[7]
    inner, outer = _operations(q, k, sizes)
    return inner + outer


# The backward computes all but the last layer's reading again; each product has two for its gradients.
@register_flop_formula(torch.ops.zoo_titans.memory_backward)
def _(q: torch.Size, k: torch.Size, *others: Any, **_: Any) -> int:
    inner, outer = _operations(q, k, others[7])
    return 3 * (inner + outer)


def _operations(q: torch.Size, k: torch.Size, sizes: list[int]) -> tuple[int, int]:
    """Of all chunks: at the anchor, and of reading and writing."""
    rows, chunks, tokens, _ = k
    weights = [n * m for n, m in itertools.pairwise(sizes)]
    inner = 2 * (2 * sum(weights) - weights[0])
    outer = 4 * sum(weights)
    if q[2]:
        outer += 4 * sum(weights) + 2 * tokens * (sum(sizes[:-1]) + sum(sizes[1:]))
    return rows * chunks * tokens * inner, rows * chunks * tokens * outer


def _numbers(
    given: Sequence[Any],
    sizes: list[int],
    act: int,
    loss_scale: float,
    limit: float,
    group: int,
    before: bool,
) -> tuple[Any, ...]:
    """What comes before the tensors, in the order of `memory.c`."""
    q, k, *_ = given
    numbers = torch.tensor([2 * loss_scale, limit], dtype=k.dtype)
    how = (len(sizes) - 1, k.shape[1], k.shape[2], int(q.shape[2] > 0), int(before), act, group)
    return *how, torch.tensor(sizes), numbers


def _outputs(given: Sequence[Any], group: int, learns: bool) -> tuple[Tensor, Tensor, Tensor]:
    q, _, v, *_, stacks, _ = given
    rows, count, reading, _ = q.shape
    groups = -(-count // group) if learns else 0
    y = v.new_empty(rows, count, reading, v.shape[3])
    return y, torch.empty_like(stacks), stacks.new_empty(rows, groups, stacks.shape[1])


def _gradients(given: Sequence[Any], g_after: Tensor) -> tuple[Tensor, ...]:
    q, k, v, alpha, eta, theta, _, _, anchor = given
    found = (q, k, v, alpha, eta, theta)
    g_anchor = g_after.new_empty(0) if anchor is None else torch.empty_like(anchor)
    return *(torch.empty_like(t) for t in found), torch.empty_like(g_after), g_anchor
