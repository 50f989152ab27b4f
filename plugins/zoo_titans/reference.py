"""The neural memory the slow and obvious way: token by token, gradients by `torch.func`.

B streams, H heads, T tokens. The fast forms are tested against this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.layers.precision import sum_dtype
from zoo_titans.chunk import Form
from zoo_titans.state import MemoryState
from zoo_titans.told import Told

if TYPE_CHECKING:
    from zoo_titans.attention import Projections
    from zoo_titans.layers import NeuralMemory
    from zoo_titans.mac import MemoryAsContext
    from zoo_titans.memory import Memory
    from zoo_titans.window import MemoryAsGate, MemoryAsLayer


def memory(weights: tuple[Tensor, ...], x: Tensor, form: Form) -> Tensor:
    """M(x) for one stream and head: weights (n_in, n_out) each, x (d_k,) -> (d_v,)."""
    act = F.silu if form.act == "silu" else F.gelu
    first = x
    for depth, weight in enumerate(weights):
        x = x @ weight
        if depth < len(weights) - 1:
            x = act(x)
    return x + first if form.residual else x


def loss(weights: tuple[Tensor, ...], k: Tensor, v: Tensor, form: Form) -> Tensor:
    """Eq. (12), for one token of one stream and head."""
    return form.loss_scale * (memory(weights, k, form) - v).square().sum()


def neural_memory_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    eta: Tensor,
    alpha: Tensor,
    state: MemoryState,
    *,
    chunk: int = 1,
    form: Form | None = None,
    read: str = "after",
    valid: Tensor | None = None,
) -> tuple[Tensor, MemoryState]:
    """As `neural_memory_scan`, one token after the other (eq. 13 to 16); every stream has a phase of its own.

    Differentiable through every inner gradient.
    """
    form = form or Form()
    dtype = sum_dtype(k.dtype)
    out_dtype = q.dtype
    q, k, v, theta, eta, alpha = (t.to(dtype) for t in (q, k, v, theta, eta, alpha))
    weights, momentum, anchor, phase = state
    gradient = torch.func.grad(lambda w, a, b: loss(w, a, b, form))
    per_head = torch.func.vmap(torch.func.vmap(gradient))
    recall = torch.func.vmap(torch.func.vmap(lambda w, a: memory(w, a, form)))
    outputs = []
    for t in range(k.shape[2]):
        starts = (phase == 0)[:, None, None, None]
        anchor = tuple(torch.where(starts, w, a) for w, a in zip(weights, anchor, strict=True))
        if read == "before":
            outputs.append(recall(weights, q[:, :, t]))
        surprises = per_head(anchor, k[:, :, t], v[:, :, t])
        if form.limit is not None:
            surprises = tuple(bounded(u, form.limit) for u in surprises)
        step, inertia, forget = (g[:, :, t, None, None] for g in (theta, eta, alpha))
        moved = tuple(inertia * s - step * u for s, u in zip(momentum, surprises, strict=True))  # eq. (14)
        learned = tuple((1 - forget) * w + s for w, s in zip(weights, moved, strict=True))  # eq. (13)
        if valid is None:
            momentum, weights = moved, learned
        else:
            keep = valid[:, t, None, None, None]
            momentum = tuple(torch.where(keep, new, old) for new, old in zip(moved, momentum, strict=True))
            weights = tuple(torch.where(keep, new, old) for new, old in zip(learned, weights, strict=True))
        if read == "after":
            outputs.append(recall(weights, q[:, :, t]))  # eq. (15)
        phase = (phase + 1) % chunk
    starts = (phase == 0)[:, None, None, None]
    anchor = tuple(torch.where(starts, w, a) for w, a in zip(weights, anchor, strict=True))
    y = torch.stack(outputs, 2).to(out_dtype) if outputs else v.new_zeros(v.shape)
    return y, MemoryState(weights, momentum, anchor, phase)


def bounded(gradient: Tensor, limit: float) -> Tensor:
    """A token's gradient (..., n_in, n_out), its norm softly kept below the limit."""
    square = gradient.square().sum((-2, -1), keepdim=True)
    return gradient / (1 + square / limit**2).sqrt()


# -- layers ----------------------------------------------------------------------------------


def told(memory: Memory, x: Tensor) -> Told:
    """What a memory is told of one document, (N, D) -> q, k, v (1, H, N, d); theta, eta, alpha (1, H, N)."""
    projected = x @ memory.qkv.weight.T
    mixed = projected
    if memory.conv is not None:
        kernel = memory.conv[:, 0]  # (3 D, width)
        rows = []
        for t in range(len(x)):
            reach = range(min(kernel.shape[1], t + 1))
            rows.append(torch.stack([kernel[:, -1 - back] * projected[t - back] for back in reach]).sum(0))
        mixed = torch.stack(rows)
    q, k, v = (t.unflatten(-1, (memory.heads, -1)).transpose(0, 1) for t in F.silu(mixed).chunk(3, -1))
    q, k = (t / (t.square().sum(-1, keepdim=True) + 1e-6).sqrt() for t in (q, k))
    at = [t - t % memory.chunk if memory.by_chunk else t for t in range(len(x))]
    theta, eta, alpha = torch.sigmoid(x[at] @ memory.gate.weight.T + memory.gate.bias).T.chunk(3)
    q, k, v, theta, eta, alpha = (t.unsqueeze(0) for t in (q, k, v, memory.theta_max * theta, eta, alpha))
    return Told(q, k, v, theta, eta, alpha)


def learned(memory: Memory, x: Tensor) -> Tensor:
    """What a memory reads of one document as it learns it, x: (N, D) -> (N, D)."""
    state = MemoryState.start(list(memory.first), 1)
    return learned_on(memory, x, state)[0]


def learned_on(memory: Memory, x: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
    """The same, from a state on."""
    q, k, v, theta, eta, alpha = told(memory, x)
    y, state = neural_memory_recurrent(
        q, k, v, theta, eta, alpha, state, chunk=memory.chunk, form=memory.form
    )
    return y[0].transpose(0, 1).flatten(1), state


def memory_layer(layer: NeuralMemory, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The layer of `titans/memory`, x: (B, N, D), mask: bool (B, N) -> (B, N, D)."""
    return each_row(lambda row: finished(layer, row, learned(layer.memory, row)), x, mask)


def finished(layer: NeuralMemory, x: Tensor, read: Tensor) -> Tensor:
    """What a memory read of one document (N, D), normed by head, gated and projected."""
    heads = read.unflatten(-1, (layer.memory.heads, -1))
    normed = heads / (heads.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.norm.weight
    return layer.out(normed.flatten(-2) * F.silu(layer.gate(x)))


def each_row(run: Callable[[Tensor], Tensor], x: Tensor, mask: Tensor | None) -> Tensor:
    """`run` on the kept tokens of each row, (N, D) -> (N, D); zeros elsewhere."""
    rows = []
    for index, row in enumerate(x):
        kept = torch.ones(len(row), dtype=torch.bool) if mask is None else mask[index]
        y = torch.zeros_like(row)
        if kept.any():
            y = y.index_put((kept.nonzero().squeeze(1),), run(row[kept]))
        rows.append(y)
    return torch.stack(rows)


def persistent_keys(attention: Projections, tokens: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Keys and values of persistent tokens (P, D), (H, P, d) each."""
    if tokens is None:
        return None
    k, v = attention.keys_values(tokens.unsqueeze(0))
    return k[0], v[0]


def attend(
    attention: Projections,
    x: Tensor,
    first: tuple[Tensor, Tensor] | None,
    sees: Callable[[int], range],
    beside: Tensor | None = None,
) -> Tensor:
    """Token by token: persistent keys, and the tokens that it `sees`, with what stands `beside` each of them.

    x, beside: (N, D) -> (N, D).
    """
    q, k, v = (t[0] for t in attention(x.unsqueeze(0)))  # (H, N, d)
    positions = torch.arange(len(x)).unsqueeze(0)
    turned = attention.turn(k.unsqueeze(0), positions)[0]
    turned_q = attention.turn(q.unsqueeze(0), positions)[0]
    if beside is not None:
        other_k, other_v = attention.keys_values(beside.unsqueeze(0))
        other_k, other_v = attention.turn(other_k, positions)[0], other_v[0]
    outputs = []
    for t in range(len(x)):
        at = list(sees(t))
        scores = [torch.einsum("hd,hmd->hm", turned_q[:, t], turned[:, at])]
        values = [v[:, at]]
        if beside is not None:
            scores.append(torch.einsum("hd,hmd->hm", turned_q[:, t], other_k[:, at]))
            values.append(other_v[:, at])
        if first is not None:
            scores.append(torch.einsum("hd,hmd->hm", q[:, t], first[0]))
            values.append(first[1])
        weights = (torch.cat(scores, -1) / q.shape[-1] ** 0.5).softmax(-1)
        outputs.append(torch.einsum("hm,hmd->hd", weights, torch.cat(values, 1)).flatten())
    return torch.stack(outputs)


def mac(layer: MemoryAsContext, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The layer of `titans/mac`, segment by segment, x: (B, N, D), mask: bool (B, N) -> (B, N, D)."""

    def run(x: Tensor) -> Tensor:
        state = MemoryState.start(list(layer.memory.first), 1)
        first = persistent_keys(layer.attention, layer.attention.persistent)
        outputs = []
        for segment in x.split(layer.segment):
            q = told(layer.memory, segment)[0]
            h = layer.memory.recall(q, state.weights)[0]
            sees = [range(t + 1) for t in range(len(segment))]
            y = layer.mixed(attend(layer.attention, segment, first, sees.__getitem__, layer.recall_norm(h)))
            read, state = learned_on(layer.memory, y, state)
            outputs.append(layer.out(layer.gate(y, read)))
        return torch.cat(outputs)

    return each_row(run, x, mask)


def mag(layer: MemoryAsGate, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The layer of `titans/mag`, x: (B, N, D), mask: bool (B, N) -> (B, N, D)."""
    persistent, window = layer.attention.persistent, layer.attention.window

    def run(x: Tensor) -> Tensor:
        y = attend(
            layer.attention,
            x,
            persistent_keys(layer.attention, persistent),
            lambda t: range(max(0, t - window + 1), t + 1),
        )
        before = x if persistent is None else torch.cat((persistent, x))
        return layer.out(layer.gate(y, learned(layer.memory, before)[-len(x) :]))

    return each_row(run, x, mask)


def mal(layer: MemoryAsLayer, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The layer of `titans/mal`, x: (B, N, D), mask: bool (B, N) -> (B, N, D)."""
    persistent, window = layer.attention.persistent, layer.attention.window

    def run(x: Tensor) -> Tensor:
        before = x if persistent is None else torch.cat((persistent, x))
        read = finished(layer.memory, before, learned(layer.memory.memory, before))
        first = persistent_keys(layer.attention, None if persistent is None else read[: len(persistent)])
        return layer.out(
            attend(layer.attention, read[-len(x) :], first, lambda t: range(max(0, t - window + 1), t + 1))
        )

    return each_row(run, x, mask)
