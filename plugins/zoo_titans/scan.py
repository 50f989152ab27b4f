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
from zoo_titans.chunk import Form, Given, Layer, Stacks
from zoo_titans.gates import Gates, chunk_gates
from zoo_titans.native import native_chunks, obstacle

#: Chunks whose weights are kept for the backward.
STORED = 64
#: Of what a chunk is given, where gradients are added up.
ADDED = ("read", "share", "write")


def run_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Gates,
    stacks: Stacks,
    anchor: Stacks,
    form: Form,
    *,
    before: bool,
    impl: str,
) -> tuple[Tensor, Stacks]:
    """q: (R, n, Q, d_k), k: (R, n, C, d_k), v: (R, n, C, d_v), gates (R, n, C) -> (R, n, Q, d_v), stacks.

    before: token t reads what token t - 1 left.
    anchor: where the gradients of the first chunk are taken; empty: at its own weights, as all others.
    impl: "native" is the loop in C; "chunked" has the backward below; "autograd" is differentiable in any way
        torch knows, and slower; "auto" is the first of them that can compute this.
    """
    values = v - k if form.residual else v
    if impl == "native" or (impl == "auto" and not obstacle(k, k.dtype)):
        y, stacks = native_chunks(q, k, values, gates, stacks, anchor, form, before=before)
        return y + q if form.residual else y, stacks
    plain = impl == "autograd" or not torch.is_grad_enabled() or torch.compiler.is_compiling()
    beside = chunk.beside if plain else _Beside.apply
    products = chunk_gates(*gates, before=before, reading=q.shape[2] > 0, plain=impl == "autograd")
    left, written = beside(q, products.read), beside(k, products.write)
    given = Given(k, values, *products, left, written, (q @ k.mT) * products.share)
    if plain:
        outputs = []
        for index, part in enumerate(_parts(given)):
            at = anchor if anchor and index == 0 else _weights(stacks)
            one, stacks, _ = chunk.forward(part, stacks, at, form)
            outputs.append(one)
        y = torch.stack(outputs, 1)
    else:
        y, *stacks = _Scan.apply(form, len(stacks), *given, *stacks, *anchor)
    return y + q if form.residual else y, stacks


class _Beside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(x, factors)
        return chunk.beside(x, factors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return chunk.beside_back(grad, *ctx.saved_tensors)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: Form, depth: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        given, stacks, anchor = _apart(tensors, depth)
        count = given.k.shape[1]
        ctx.form, ctx.depth = form, depth
        ctx.group = count if count <= STORED else math.isqrt(count - 1) + 1
        ctx.starts = []  # the stacks at the start of each group
        ctx.records = []
        outputs = given.v.new_empty(*given.left.shape[:3], given.v.shape[3])
        for index, part in enumerate(_parts(given)):
            if index % ctx.group == 0:
                ctx.starts.append(stacks)
            at = anchor if anchor and index == 0 else _weights(stacks)
            before = stacks
            outputs[:, index], stacks, layers = chunk.forward(part, stacks, at, form)
            if ctx.group == count:
                ctx.records.append((before, at, layers))
        ctx.save_for_backward(*tensors)
        return outputs, *stacks

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *grad_after: Tensor) -> tuple[Tensor | None, ...]:
        given, _, anchor = _apart(ctx.saved_tensors, ctx.depth)
        # Chunks first: products are faster into what lies in one piece.
        found = Given(
            **{
                name: (torch.zeros if name in ADDED else torch.empty)(
                    t.shape[1], t.shape[0], *t.shape[2:], dtype=t.dtype, device=t.device
                )
                for name, t in given._asdict().items()
            }
        )
        parts, places, grads = _parts(given), [Given(*t) for t in zip(*found, strict=True)], grad.unbind(1)
        g_stacks, g_first = [g.clone() for g in grad_after], []  # changed in place
        for number in reversed(range(len(ctx.starts))):
            first = number * ctx.group
            group = parts[first : first + ctx.group]
            records = ctx.records or _again(group, ctx.starts[number], anchor if first == 0 else [], ctx.form)
            for index in reversed(range(first, first + len(group))):
                stacks, at, layers = records.pop()
                g_stacks, g_anchor = chunk.backward(
                    grads[index], g_stacks, parts[index], stacks, at, layers, ctx.form, places[index]
                )
                if anchor and index == 0:
                    g_first = g_anchor
                else:
                    for g_stack, g_weight in zip(g_stacks, g_anchor, strict=True):
                        g_stack[:, : g_weight.shape[1]] += g_weight
        return None, None, *(t.movedim(0, 1) for t in found), *g_stacks, *g_first


def _again(
    group: list[Given], stacks: Stacks, anchor: Stacks, form: Form
) -> list[tuple[Stacks, Stacks, list[Layer]]]:
    """What the backward needs of a group of chunks, computed a second time."""
    records = []
    for index, part in enumerate(group):
        at = anchor if anchor and index == 0 else _weights(stacks)
        before = stacks
        _, stacks, layers = chunk.forward(part, stacks, at, form)
        records.append((before, at, layers))
    return records


def _apart(tensors: tuple[Tensor, ...], depth: int) -> tuple[Given, Stacks, Stacks]:
    """What all chunks are given, the stacks, and the anchor, if there is one of its own."""
    fields = len(Given._fields)
    return (
        Given(*tensors[:fields]),
        list(tensors[fields : fields + depth]),
        list(tensors[fields + depth :]),
    )


def _parts(given: Given) -> list[Given]:
    """(R, n, ...) each -> for each chunk its parts (R, ...)."""
    return [Given(*parts) for parts in zip(*(t.unbind(1) for t in given), strict=True)]


def _weights(stacks: Stacks) -> Stacks:
    """The upper half of each stack: the weights, without the momentum."""
    return [stack[:, : stack.shape[1] // 2] for stack in stacks]
