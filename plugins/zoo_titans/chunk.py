"""One chunk of tokens: learn from all of them at the anchor, read each through its own weights.

R rows (streams times heads), C tokens of the chunk, Q of them read (all or none), n -> m channels of a layer.
The gradient of a token for a layer is the outer product of what went into the layer and the error that came
back: it is never formed. The weights that token t reads through are never formed either: x W_t is put
together from x W, x S and products with the tokens so far. Weights W and momentum S of a layer lie in one
tensor, (R, 2 n, m), so that the tall products run as one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo_titans.activation import ACTIVATIONS


class Form(NamedTuple):
    """How the memory computes.

    limit: soft bound on the Frobenius norm of one token's gradient for one layer; `None`: the paper's.
    """

    act: str = "silu"
    residual: bool = False
    loss_scale: float = 1.0
    limit: float | None = None


class Given(NamedTuple):
    """What a chunk is given, or its gradients: what depends on data alone is computed for all chunks at once.

    k: (R, C, d_k); v: (R, C, d_v), values, less the keys where the memory adds its input.
    read, share, mix, write: as in `ChunkGates`.
    left, written, weighted: of the first layer, see `Layer`.
    """

    k: Tensor
    v: Tensor
    read: Tensor
    share: Tensor
    mix: Tensor
    write: Tensor
    left: Tensor
    written: Tensor
    weighted: Tensor


class Bound(NamedTuple):
    """How a layer's gradients are bounded, (R, C, 1) each: the factor, and the squared norms of a and e."""

    shrink: Tensor
    a: Tensor
    e: Tensor


class Layer(NamedTuple):
    """What one layer's backward needs.

    a: what goes in (R, C, n). h: what comes out, before the activation, and back: the error arriving after
        it, (R, C, m); both `None` in the last layer.
    e, bound, learned: the error, what bounds it, and the error bounded.
    x: as a, of the tokens that read; seen: x a^T (R, Q, C); both `None` in the first layer.
    z: as h, of the tokens that read.
    left, written: x and a times both factors of what is read and written (R, Q or C, 2 n).
    weighted: seen times the gates' share (R, Q, C).
    """

    a: Tensor
    h: Tensor | None
    back: Tensor | None
    e: Tensor
    bound: Bound | None
    learned: Tensor
    x: Tensor | None
    seen: Tensor | None
    z: Tensor
    left: Tensor
    written: Tensor
    weighted: Tensor


Stacks = list[Tensor]


def forward(given: Given, stacks: Stacks, anchor: Stacks, form: Form) -> tuple[Tensor, Stacks, list[Layer]]:
    """stacks: W over S of each layer; anchor: weights of each layer.

    Returns what each token reads (R, Q, d_v), the stacks after the chunk, and what `backward` needs.
    """
    act, last, scale = ACTIVATIONS[form.act], len(stacks) - 1, 2 * form.loss_scale
    # The memory at the anchor, and the way down its loss: minus the gradient of eq. (12).
    inputs: list[Tensor] = [given.k]
    hidden: list[Tensor] = []
    for weight in anchor[:-1]:
        hidden.append(torch.bmm(inputs[-1], weight))
        inputs.append(act.value(hidden[-1]))
    errors = [torch.baddbmm(given.v, inputs[-1], anchor[-1], beta=scale, alpha=-scale)]
    arriving: list[Tensor | None] = [None]
    for depth in range(last, 0, -1):
        back = torch.bmm(errors[0], anchor[depth].mT)
        arriving.insert(0, back)
        errors.insert(0, act.back(back, hidden[depth - 1]))
    # Reading and writing, layer by layer.
    layers: list[Layer] = []
    after: Stacks = []
    x, seen, left, written, weighted = None, None, given.left, given.written, given.weighted
    for depth, (stack, a, e) in enumerate(zip(stacks, inputs, errors, strict=True)):
        if layers:
            x = act.value(layers[-1].z)
            seen = torch.bmm(x, a.mT)
            left, written, weighted = beside(x, given.read), beside(a, given.write), seen * given.share
        bound = None if form.limit is None else _bound(a, e, form.limit)
        learned = e if bound is None else e * bound.shrink
        z = torch.bmm(left, stack).baddbmm_(weighted, learned)
        mixed = torch.bmm(given.mix, _flat(stack)).view_as(stack)
        after.append(mixed.baddbmm_(written.mT, learned))
        h = hidden[depth] if depth < last else None
        layers.append(Layer(a, h, arriving[depth], e, bound, learned, x, seen, z, left, written, weighted))
    return layers[-1].z, after, layers


def backward(
    grad: Tensor,
    grad_after: Stacks,
    given: Given,
    stacks: Stacks,
    anchor: Stacks,
    layers: list[Layer],
    form: Form,
    into: Given,
) -> tuple[Stacks, Stacks]:
    """Gradients of the stacks and of the anchor, from those of what `forward` returned; the others go `into`.

    There those of read, share and write are added up; the others are written. `grad_after` is used up.
    """
    act, last = ACTIVATIONS[form.act], len(layers) - 1
    g_a: list[Tensor | None] = []
    g_e: list[Tensor] = []
    g_stacks: Stacks = []
    g_mix = None
    # Back through reading and writing, from the last layer; lists grow at their front.
    g_z = grad
    for layer, stack, g_stack in zip(layers[::-1], stacks[::-1], grad_after[::-1], strict=True):
        inner = layer.x is not None and layer.seen is not None
        g_weighted = torch.bmm(g_z, layer.learned.mT, out=None if inner else into.weighted)
        g_left = torch.bmm(g_z, stack.mT, out=None if inner else into.left)
        g_written = torch.bmm(layer.learned, g_stack.mT, out=None if inner else into.written)
        g_learned = torch.bmm(layer.weighted.mT, g_z).baddbmm_(layer.written, g_stack)
        more = None
        if layer.bound is not None and form.limit is not None:
            more = _bound_back(g_learned, layer.a, layer.e, layer.bound, form.limit)
        one = torch.bmm(_flat(g_stack), _flat(stack).mT)
        g_mix = one if g_mix is None else g_mix.add_(one)
        g_stacks.insert(0, _mix_back(g_stack, given.mix).baddbmm_(layer.left.mT, g_z))
        g_e.insert(0, g_learned)
        if layer.x is None or layer.seen is None:
            g_a.insert(0, more)
            continue
        into.share.addcmul_(g_weighted, layer.seen)
        g_seen = g_weighted.mul_(given.share)
        into_a, g_write = beside_back(g_written, layer.a, given.write)
        into_a.baddbmm_(g_seen.mT, layer.x)
        g_a.insert(0, into_a if more is None else into_a.add_(more))
        g_x, g_read = beside_back(g_left, layer.x, given.read)
        into.write.add_(g_write)
        into.read.add_(g_read)
        g_z = act.back(g_x.baddbmm_(g_seen, layer.a), layers[-1 - len(g_e)].z)
    assert g_mix is not None
    into.mix.copy_(g_mix)
    # Back through the error's way back: from the first layer, where it ended.
    g_backs: list[Tensor] = []
    for depth in range(last):
        h = layers[depth].h
        assert h is not None
        g_backs.append(act.back(g_e[depth], h))
        g_e[depth + 1].baddbmm_(g_backs[depth], anchor[depth + 1])
    # Back through the memory at the anchor.
    g_h = g_e[last].mul_(-2 * form.loss_scale)
    torch.neg(g_h, out=into.v)
    g_anchor: Stacks = []
    for depth in range(last, 0, -1):
        g_weight = torch.bmm(layers[depth].a.mT, g_h)
        g_anchor.insert(0, g_weight.baddbmm_(g_backs[depth - 1].mT, layers[depth].e))
        g_value, below = g_a[depth], layers[depth - 1]
        assert g_value is not None and below.h is not None and below.back is not None
        g_value.baddbmm_(g_h, anchor[depth].mT)
        # Through the activation's value, and through its slope in the error.
        bent = act.bend(below.back * g_e[depth - 1], below.h, layers[depth].a)
        g_h = act.back(g_value, below.h).add_(bent)
    g_anchor.insert(0, torch.bmm(given.k.mT, g_h))
    torch.bmm(g_h, anchor[0].mT, out=into.k)
    if g_a[0] is not None:
        into.k.add_(g_a[0])
    return g_stacks, g_anchor


def beside(x: Tensor, factors: Tensor) -> Tensor:
    """x times each of two factors, side by side: (..., C, n), (..., C, 2) -> (..., C, 2 n)."""
    return (x.unsqueeze(-2) * factors.unsqueeze(-1)).flatten(-2)


def beside_back(grad: Tensor, x: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the factors."""
    halves = grad.unflatten(-1, (2, -1))  # (..., C, 2, n)
    g_x = torch.addcmul(halves[..., 0, :] * factors[..., :1], halves[..., 1, :], factors[..., 1:])
    return g_x, (halves * x.unsqueeze(-2)).sum(-1)


def _mix_back(g_stack: Tensor, mix: Tensor) -> Tensor:
    """From the gradient after mixing to the one before, in place; momentum after it has nothing of W."""
    g_weights, g_momentum = g_stack.chunk(2, 1)
    keep, carry, _, inertia = mix.view(-1, 4, 1, 1).unbind(1)
    g_momentum.mul_(inertia).addcmul_(g_weights, carry)
    g_weights.mul_(keep)
    return g_stack


def _flat(stack: Tensor) -> Tensor:
    """Weights and momentum as two rows: (R, 2 n, m) -> (R, 2, n m)."""
    return stack.unflatten(1, (2, -1)).flatten(2)


def _bound(a: Tensor, e: Tensor, limit: float) -> Bound:
    """shrink = 1 / sqrt(1 + (|a| |e| / limit)^2): the gradient's norm |a| |e| stays below the limit."""
    a_square, e_square = (torch.linalg.vecdot(t, t).unsqueeze(-1) for t in (a, e))
    return Bound(torch.rsqrt(1 + a_square * e_square / limit**2), a_square, e_square)


def _bound_back(grad: Tensor, a: Tensor, e: Tensor, bound: Bound, limit: float) -> Tensor:
    """From the gradient of the bounded error to that of the error, in place; returns the input's."""
    along = torch.linalg.vecdot(grad, e).unsqueeze(-1)
    g_square = along * bound.shrink**3 * (-1 / limit**2)  # twice the gradient of |a|^2 |e|^2
    grad.mul_(bound.shrink).addcmul_(e, g_square * bound.a)
    return a * (g_square * bound.e)
