"""One chunk of tokens: learn from all of them at the anchor, read each through its own weights.

R rows (streams times heads), C tokens of the chunk, n -> m channels of a layer. The gradient of a token for a
layer is the outer product of what went into the layer and the error that came back: it is never formed. The
weights that token t reads through are never formed either: x W_t is put together from x W, x S and products
with the tokens so far. Weights W and momentum S of a layer lie in one tensor, (R, 2 n, m), so that the tall
products run as one.
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


class ChunkGates(NamedTuple):
    """`GateProducts` of a chunk as its products need them.

    read: (R, C, 2), what is kept of W and of S where token t reads; share: (R, C, C), of each gradient.
    mix: (R, 2, 2), what W and S after the chunk hold of W and S before; write: (R, C, 2), of each gradient.
    """

    read: Tensor
    share: Tensor
    mix: Tensor
    write: Tensor


class Layer(NamedTuple):
    """What one layer's backward needs.

    a, h, slope: what goes in (R, C, n), what comes out (R, C, m) before the activation, and the activation's
        slope there; back: the error arriving at the layer, before that slope; e, shrink, learned: the error,
        the factor that bounds it (R, C, 1), and their product.
    x, z_slope: the same as a and slope of the tokens that read; seen: x a^T, weighted: that times the gates'
        share, (R, C, C); left, written: x and a times both factors of what is read and written (R, C, 2 n).
    """

    a: Tensor
    h: Tensor
    slope: Tensor | None
    back: Tensor | None
    e: Tensor
    shrink: Tensor | None
    learned: Tensor
    x: Tensor
    z_slope: Tensor | None
    seen: Tensor
    weighted: Tensor
    left: Tensor
    written: Tensor


Stacks = list[Tensor]


def forward(
    q: Tensor, k: Tensor, v: Tensor, gates: ChunkGates, stacks: Stacks, anchor: Stacks, form: Form
) -> tuple[Tensor, Stacks, list[Layer]]:
    """q, k: (R, C, d_k), v: (R, C, d_v); stacks: W over S of each layer; anchor: weights of each layer.

    Returns what each token reads (R, C, d_v), the stacks after the chunk, and what `backward` needs.
    """
    both = ACTIVATIONS[form.act].both
    last = len(stacks) - 1
    # The memory at the anchor, and its error (eq. 12, differentiated).
    a, inputs, outputs, slopes = k, [], [], []
    for depth, weight in enumerate(anchor):
        h = torch.bmm(a, weight)  # (R, C, m)
        inputs.append(a)
        outputs.append(h)
        if depth < last:
            a, slope = both(h)
            slopes.append(slope)
    out = outputs[-1] + k if form.residual else outputs[-1]
    errors: list[Tensor] = [2 * form.loss_scale * (out - v)]
    arriving: list[Tensor] = []
    for depth in range(last, 0, -1):
        back = torch.bmm(errors[0], anchor[depth].mT)
        arriving.insert(0, back)
        errors.insert(0, back * slopes[depth - 1])
    # Reading and writing, layer by layer.
    layers, after, x = [], [], q
    for depth, stack in enumerate(stacks):
        a, e = inputs[depth], errors[depth]
        shrink = None if form.limit is None else _shrink(a, e, form.limit)
        learned = e if shrink is None else e * shrink
        seen = torch.bmm(x, a.mT)  # (R, C, C)
        weighted = seen * gates.share
        left, written = _beside(x, gates.read), _beside(a, gates.write)
        z = torch.bmm(left, stack).baddbmm_(weighted, learned, alpha=-1)
        mixed = torch.bmm(gates.mix, stack.unflatten(1, (2, -1)).flatten(2)).view_as(stack)
        after.append(mixed.baddbmm_(written.mT, learned, alpha=-1))
        inner = depth < last
        value, z_slope = both(z) if inner else (z, None)
        layers.append(
            Layer(
                a=a,
                h=outputs[depth],
                slope=slopes[depth] if inner else None,
                back=arriving[depth] if inner else None,
                e=e,
                shrink=shrink,
                learned=learned,
                x=x,
                z_slope=z_slope,
                seen=seen,
                weighted=weighted,
                left=left,
                written=written,
            )
        )
        x = value
    return x + q if form.residual else x, after, layers


def backward(
    grad: Tensor,
    grad_after: Stacks,
    gates: ChunkGates,
    stacks: Stacks,
    anchor: Stacks,
    layers: list[Layer],
    form: Form,
) -> tuple[Tensor, Tensor, Tensor, ChunkGates, Stacks, Stacks]:
    """Gradients of q, k, v, the gates, the stacks and the anchor, from those of what `forward` returned."""
    curvature = ACTIVATIONS[form.act].curvature
    last = len(layers) - 1
    g_read, g_share, g_mix, g_write = (torch.zeros_like(g) for g in gates)
    g_stacks: Stacks = [t for t in stacks]
    g_anchor: Stacks = [t for t in anchor]
    g_a: list[Tensor] = [layer.a for layer in layers]
    g_e: list[Tensor] = [layer.e for layer in layers]
    # Back through reading and writing.
    g_x = grad
    for depth in range(last, -1, -1):
        layer, stack, new = layers[depth], stacks[depth], grad_after[depth]
        g_z = g_x if layer.z_slope is None else g_x * layer.z_slope
        flat, flat_new = (t.unflatten(1, (2, -1)).flatten(2) for t in (stack, new))
        g_mix += torch.bmm(flat_new, flat.mT)
        back = torch.bmm(gates.mix.mT, flat_new).view_as(stack)
        g_stacks[depth] = back.baddbmm_(layer.left.mT, g_z)
        g_x, more = _beside_back(torch.bmm(g_z, stack.mT), layer.x, gates.read)
        g_read += more
        # What was subtracted has its gradients with the other sign.
        g_weighted = torch.bmm(g_z, layer.learned.mT)
        g_share.addcmul_(g_weighted, layer.seen, value=-1)
        g_seen = g_weighted.mul_(gates.share)
        g_x.baddbmm_(g_seen, layer.a, alpha=-1)
        g_learned = torch.bmm(layer.weighted.mT, g_z).baddbmm_(layer.written, new, beta=-1, alpha=-1)
        g_a[depth], more = _beside_back(torch.bmm(layer.learned, new.mT), layer.a, -gates.write)
        g_write -= more
        g_a[depth].baddbmm_(g_seen.mT, layer.x, alpha=-1)
        if layer.shrink is None:
            g_e[depth] = g_learned
        else:
            g_e[depth], more = _shrink_back(g_learned, layer, form.limit)
            g_a[depth] += more
    g_q = g_x + grad if form.residual else g_x
    # Back through the error's way back: from the first layer, where it ended.
    g_slopes: list[Tensor] = []
    g_backs: list[Tensor] = []
    for depth in range(1, last + 1):
        below = layers[depth - 1]
        assert below.slope is not None and below.back is not None
        g_slopes.append(g_e[depth - 1] * below.back)
        g_backs.append(g_e[depth - 1] * below.slope)
        g_e[depth].baddbmm_(g_backs[-1], anchor[depth])
    g_out = 2 * form.loss_scale * g_e[last]
    # Back through the memory at the anchor.
    g_h = g_out
    for depth in range(last, -1, -1):
        layer = layers[depth]
        into, out = layer.a, g_h
        if depth:  # two products as one
            into, out = torch.cat((into, g_backs[depth - 1]), 1), torch.cat((out, layer.e), 1)
        g_anchor[depth] = torch.bmm(into.mT, out)
        g_a[depth].baddbmm_(g_h, anchor[depth].mT)
        if depth:
            below = layers[depth - 1]
            assert below.slope is not None
            g_h = torch.addcmul(g_a[depth] * below.slope, g_slopes[depth - 1], curvature(below.h))
    g_k = g_a[0] + g_out if form.residual else g_a[0]
    return g_q, g_k, -g_out, ChunkGates(g_read, g_share, g_mix, g_write), g_stacks, g_anchor


def _beside(x: Tensor, factors: Tensor) -> Tensor:
    """x times each of two factors, side by side: (R, C, n), (R, C, 2) -> (R, C, 2 n)."""
    return (x.unsqueeze(2) * factors.unsqueeze(3)).flatten(2)


def _beside_back(grad: Tensor, x: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the factors."""
    halves = grad.unflatten(2, (2, -1))  # (R, C, 2, n)
    g_x = torch.addcmul(halves[:, :, 0] * factors[:, :, :1], halves[:, :, 1], factors[:, :, 1:])
    return g_x, torch.matmul(halves, x.unsqueeze(3)).squeeze(3)


def _shrink(a: Tensor, e: Tensor, limit: float) -> Tensor:
    """The factor 1 / sqrt(1 + (|a| |e| / limit)^2): the gradient's norm |a| |e| stays below the limit."""
    square = _square(a) * _square(e)
    return torch.rsqrt(1 + square / limit**2)


def _shrink_back(g_learned: Tensor, layer: Layer, limit: float | None) -> tuple[Tensor, Tensor]:
    """Gradients of the error and of the input from that of `learned`."""
    assert limit is not None and layer.shrink is not None
    along = (g_learned * layer.e).sum(-1, keepdim=True)
    g_square = along * layer.shrink**3 * (-1 / limit**2)  # twice the gradient of |a|^2 |e|^2
    g_e = torch.addcmul(g_learned * layer.shrink, layer.e, g_square * _square(layer.a))
    return g_e, layer.a * (g_square * _square(layer.e))


def _square(x: Tensor) -> Tensor:
    return (x * x).sum(-1, keepdim=True)
