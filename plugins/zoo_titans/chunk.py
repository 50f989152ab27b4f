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
from zoo_titans.gates import ChunkGates


class Form(NamedTuple):
    """How the memory computes.

    limit: soft bound on the Frobenius norm of one token's gradient for one layer; `None`: the paper's.
    """

    act: str = "silu"
    residual: bool = False
    loss_scale: float = 1.0
    limit: float | None = None


class Layer(NamedTuple):
    """What one layer's backward needs.

    a: what goes in (R, C, n). slope, bend: of the activation of what comes out, and what its curvature needs
        (R, C, m); back: the error arriving there, before that slope; all `None` in the last layer.
    e, shrink, learned: the error, the factor that bounds it (R, C, 1), and their product.
    x, z_slope: the same as a and slope of the tokens that read; seen: x a^T, weighted: that times the gates'
        share, (R, C, C); left, written: x and a times both factors of what is read and written (R, C, 2 n).
    """

    a: Tensor
    slope: Tensor | None
    bend: Tensor | None
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
    # The memory at the anchor, and the way down its loss: minus the gradient of eq. (12).
    inputs: list[Tensor] = [k]
    slopes: list[Tensor] = []
    bends: list[Tensor] = []
    for weight in anchor[:-1]:
        value, slope, bend = both(torch.bmm(inputs[-1], weight))
        inputs.append(value)
        slopes.append(slope)
        bends.append(bend)
    missing = v - torch.bmm(inputs[-1], anchor[-1])
    if form.residual:
        missing = missing - k
    errors: list[Tensor] = [2 * form.loss_scale * missing]
    arriving: list[Tensor | None] = [None]
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
        z = torch.bmm(left, stack).baddbmm_(weighted, learned)
        mixed = torch.bmm(gates.mix, _flat(stack)).view_as(stack)
        after.append(mixed.baddbmm_(written.mT, learned))
        inner = depth < last
        value, z_slope, _ = both(z) if inner else (z, None, None)
        layers.append(
            Layer(
                a=a,
                slope=slopes[depth] if inner else None,
                bend=bends[depth] if inner else None,
                back=arriving[depth],
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
    """Gradients of q, k, v, the gates, the stacks and the anchor, from those of what `forward` returned.

    `grad_after` is used up: it becomes the gradients of the stacks.
    """
    last = len(layers) - 1
    g_a: list[Tensor] = []
    g_e: list[Tensor] = []
    found: list[ChunkGates] = []  # gradients of the gates, by layer
    # Back through reading and writing, from the last layer; lists grow at their front.
    g_x = grad
    for layer, stack, g_stack in zip(layers[::-1], stacks[::-1], grad_after[::-1], strict=True):
        g_z = g_x if layer.z_slope is None else g_x * layer.z_slope
        g_x, g_read = _beside_back(torch.bmm(g_z, stack.mT), layer.x, gates.read)
        g_weighted = torch.bmm(g_z, layer.learned.mT)
        g_share = g_weighted * layer.seen
        g_seen = g_weighted.mul_(gates.share)
        g_x.baddbmm_(g_seen, layer.a)
        g_learned = torch.bmm(layer.weighted.mT, g_z).baddbmm_(layer.written, g_stack)
        into_a, g_write = _beside_back(torch.bmm(layer.learned, g_stack.mT), layer.a, gates.write)
        g_a.insert(0, into_a.baddbmm_(g_seen.mT, layer.x))
        if layer.shrink is not None:
            g_learned, more = _shrink_back(g_learned, layer, form.limit)
            g_a[0] += more
        g_e.insert(0, g_learned)
        g_mix = torch.bmm(_flat(g_stack), _flat(stack).mT)
        found.append(ChunkGates(g_read, g_share, g_mix, g_write))
        _mix_back(g_stack, gates.mix).baddbmm_(layer.left.mT, g_z)
    g_q = g_x + grad if form.residual else g_x
    # Back through the error's way back: from the first layer, where it ended.
    g_backs: list[Tensor] = []
    for depth in range(last):
        slope = layers[depth].slope
        assert slope is not None
        g_backs.append(g_e[depth] * slope)
        g_e[depth + 1].baddbmm_(g_backs[depth], anchor[depth + 1])
    g_v = 2 * form.loss_scale * g_e[last]
    # Back through the memory at the anchor.
    g_h = -g_v
    g_anchor: Stacks = []
    for depth in range(last, -1, -1):
        g_weight = torch.bmm(layers[depth].a.mT, g_h)
        if depth:
            g_weight.baddbmm_(g_backs[depth - 1].mT, layers[depth].e)
        g_anchor.insert(0, g_weight)
        g_a[depth].baddbmm_(g_h, anchor[depth].mT)
        if depth:
            g_h = _bent(layers[depth - 1], layers[depth].a, g_a[depth], g_e[depth - 1], form.act)
    g_k = g_a[0] - g_v if form.residual else g_a[0]
    return g_q, g_k, g_v, _total(found), grad_after, g_anchor


def _bent(layer: Layer, value: Tensor, g_value: Tensor, g_e: Tensor, act: str) -> Tensor:
    """Gradient of what enters a layer's activation: through its value, and through its slope in the error."""
    assert layer.slope is not None and layer.bend is not None and layer.back is not None
    bent = ACTIVATIONS[act].curvature(value, layer.slope, layer.bend)
    return torch.addcmul(g_value * layer.slope, bent.mul_(layer.back), g_e)


def _total(found: list[ChunkGates]) -> ChunkGates:
    """The sum over layers."""
    total = found[0]
    for more in found[1:]:
        total = ChunkGates(*(t.add_(m) for t, m in zip(total, more, strict=True)))
    return total


def _mix_back(g_stack: Tensor, mix: Tensor) -> Tensor:
    """From the gradient after mixing to the one before, in place; momentum after it has nothing of W."""
    g_weights, g_momentum = g_stack.chunk(2, 1)
    g_momentum.mul_(mix[:, 1, 1, None, None]).addcmul_(g_weights, mix[:, 0, 1, None, None])
    g_weights.mul_(mix[:, 0, 0, None, None])
    return g_stack


def _flat(stack: Tensor) -> Tensor:
    """Weights and momentum as two rows: (R, 2 n, m) -> (R, 2, n m)."""
    return stack.view(stack.shape[0], 2, -1)


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
