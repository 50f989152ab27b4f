"""Chunk after chunk, with a backward of its own. R rows, n chunks of C tokens, L layers of the memory.

What the backward needs of a chunk is small, but for the memory's weights at its start. Up to `STORED` chunks
keep them; beyond, only every sqrt(n)-th chunk does, and the others are computed a second time. So the most
that is held does not depend on how the tokens are cut into chunks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zoo_titans import chunk
from zoo_titans.chunk import Form, Layer, Stacks
from zoo_titans.gates import ChunkGates

#: Chunks whose weights are kept for the backward.
STORED = 64


def run_chunks(
    q: Tensor, k: Tensor, v: Tensor, gates: ChunkGates, stacks: Stacks, anchor: Stacks, form: Form, impl: str
) -> tuple[Tensor, Stacks]:
    """q: (n, R, Q, d_k), k: (n, R, C, d_k), v: (n, R, C, d_v), gates (n, R, ...) -> (n, R, Q, d_v), stacks.

    anchor: where the gradients of the first chunk are taken; empty: at its own weights, as all others.
    impl: "chunked" has the backward below; "autograd" is differentiable in any way torch knows, and slower.
    """
    if impl == "autograd" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        outputs = []
        for index, (qi, ki, vi, *gi) in enumerate(_unbind(q, k, v, *gates)):
            at = anchor if anchor and index == 0 else _weights(stacks)
            y, stacks, _ = chunk.forward(qi, ki, vi, ChunkGates(*gi), stacks, at, form)
            outputs.append(y)
        return torch.stack(outputs), stacks
    y, *after = _Scan.apply(form, len(stacks), q, k, v, *gates, *stacks, *anchor)
    return y, after


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: Form, depth: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, stacks, anchor = tensors[:7], list(tensors[7 : 7 + depth]), list(tensors[7 + depth :])
        count = inputs[0].shape[0]
        ctx.form, ctx.depth = form, depth
        ctx.group = count if count <= STORED else math.isqrt(count - 1) + 1
        ctx.starts = []  # the stacks at the start of each group
        ctx.records = []
        outputs = []
        for index, parts in enumerate(_unbind(*inputs)):
            if index % ctx.group == 0:
                ctx.starts.append(stacks)
            at = anchor if anchor and index == 0 else _weights(stacks)
            before = stacks
            y, stacks, layers = chunk.forward(
                parts[0], parts[1], parts[2], ChunkGates(*parts[3:]), stacks, at, form
            )
            outputs.append(y)
            if ctx.group == count:
                ctx.records.append((before, at, layers))
        ctx.save_for_backward(*tensors)
        return torch.stack(outputs), *stacks

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *grad_after: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        inputs, anchor = tensors[:7], list(tensors[7 + ctx.depth :])
        parts, grads = _unbind(*inputs), grad.unbind(0)
        g_stacks, g_first = [g.clone() for g in grad_after], []  # changed in place
        found: list[tuple[Tensor, ...]] = []
        for number in reversed(range(len(ctx.starts))):
            first = number * ctx.group
            group = parts[first : first + ctx.group]
            records = ctx.records or _again(group, ctx.starts[number], anchor if first == 0 else [], ctx.form)
            for offset in reversed(range(len(group))):
                stacks, at, layers = records.pop()
                gates = ChunkGates(*group[offset][3:])
                *g_qkv, g_gates, g_stacks, g_anchor = chunk.backward(
                    grads[first + offset], g_stacks, gates, stacks, at, layers, ctx.form
                )
                found.append((*g_qkv, *g_gates))
                if anchor and first + offset == 0:
                    g_first = g_anchor
                else:
                    for g_stack, g_weight in zip(g_stacks, g_anchor, strict=True):
                        g_stack[:, : g_weight.shape[1]] += g_weight
        g_inputs = [torch.stack(g[::-1]) for g in zip(*found, strict=True)]
        return None, None, *g_inputs, *g_stacks, *g_first


def _again(
    group: list[tuple[Tensor, ...]], stacks: Stacks, anchor: Stacks, form: Form
) -> list[tuple[Stacks, Stacks, list[Layer]]]:
    """What the backward needs of a group of chunks, computed a second time."""
    records = []
    for index, parts in enumerate(group):
        at = anchor if anchor and index == 0 else _weights(stacks)
        before = stacks
        _, stacks, layers = chunk.forward(
            parts[0], parts[1], parts[2], ChunkGates(*parts[3:]), stacks, at, form
        )
        records.append((before, at, layers))
    return records


def _unbind(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """(n, R, ...) each -> for each chunk its parts (R, ...)."""
    return list(zip(*(t.unbind(0) for t in tensors), strict=True))


def _weights(stacks: Stacks) -> Stacks:
    """The upper half of each stack: the weights, without the momentum."""
    return [stack[:, : stack.shape[1] // 2] for stack in stacks]
