"""The scan as a loop over tokens in C (`scan.c`), for CPUs: each token is read and written once.

R rows (batch times heads), N tokens, D channels, as in `chunked.py`, whose values and gradients it has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zoo.layers import native
from zoo_aaren.chunked import CHUNK, chunked_scan

SOURCE = Path(__file__).with_name("scan.c")


def obstacle(values: Tensor) -> str:
    """Why `native_scan` cannot take them, "needs ..."; empty where it can."""
    return native.obstacle(SOURCE, values)


def native_scan(
    scores: Tensor, values: Tensor, state: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """As `chunked_scan`: scores (R, N), values (R, N, D), state (R,), (R,), (R, D)."""
    if scores.numel() == 0 or values.numel() == 0:
        return values, state
    out, m, u, w, _, _ = _Scan.apply(scores, values, *state)
    return out, (m, u, w)


class _Scan(torch.autograd.Function):
    """A gradient that is itself to be differentiated goes through the plain operations instead."""

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, values: Tensor, m: Tensor, u: Tensor, w: Tensor) -> Any:
        return torch.ops.zoo_aaren.scan.default(scores, values, m, u, w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        out, last_m, _, _, levels, sums = output
        ctx.mark_non_differentiable(last_m, levels, sums)
        ctx.save_for_backward(*inputs, out, levels, sums)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grad_out, _, grad_u, grad_w, _, _ = grads
        scores, values, m, u, w, out, levels, sums = ctx.saved_tensors
        if torch.is_grad_enabled():

            def plain(s: Tensor, v: Tensor, m: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, ...]:
                out, (_, u, w) = chunked_scan(s, v, (m, u, w), CHUNK)
                return out, u, w

            return torch.func.vjp(plain, scores, values, m, u, w)[1]((grad_out, grad_u, grad_w))
        given = (scores, values, m, u, w, out, levels, sums, grad_out, grad_u, grad_w)
        return tuple(torch.ops.zoo_aaren.scan_backward.default(*given))


# Operations of torch, so that `vmap`, its counter of operations and its fake tensors know them. Those that
# `torch.library.custom_op` makes, in fewer words, take longer to be called.
_LIBRARY = torch.library.Library("zoo_aaren", "DEF")
_LIBRARY.define(
    "scan(Tensor scores, Tensor values, Tensor m, Tensor u, Tensor w)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "scan_backward(Tensor scores, Tensor values, Tensor m, Tensor u, Tensor w, Tensor out, Tensor levels,"
    " Tensor sums, Tensor grad_out, Tensor grad_u, Tensor grad_w) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(_LIBRARY, "scan", "CPU")
def _forward(
    scores: Tensor, values: Tensor, m: Tensor, u: Tensor, w: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs, the last state, and m and u after every token (R, N)."""
    rows, tokens, width = values.shape
    scores, values = scores.contiguous(), values.contiguous()
    last = [x.clone(memory_format=torch.contiguous_format) for x in (m, u, w)]
    out, levels, sums = torch.empty_like(values), torch.empty_like(scores), torch.empty_like(scores)
    native.loops(SOURCE, values.dtype).run(
        "forward", rows, tokens, width, scores, values, *last, out, levels, sums
    )
    return out, last[0], last[1], last[2], levels, sums


@torch.library.register_fake("zoo_aaren::scan", lib=_LIBRARY)
def _(scores: Tensor, values: Tensor, m: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (values, m, u, w, scores, scores))


@torch.library.impl(_LIBRARY, "scan_backward", "CPU")
def _backward(
    scores: Tensor,
    values: Tensor,
    m: Tensor,
    u: Tensor,
    w: Tensor,
    out: Tensor,
    levels: Tensor,
    sums: Tensor,
    grad_out: Tensor,
    grad_u: Tensor,
    grad_w: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of scores, values, m, u, w."""
    rows, tokens, width = values.shape
    given = [x.contiguous() for x in (scores, values, m, u, w, out, levels, sums, grad_out)]
    grad_scores, grad_values, grad_m = (torch.empty_like(given[i]) for i in (0, 1, 2))
    carried = [x.clone(memory_format=torch.contiguous_format) for x in (grad_u, grad_w)]
    made = (grad_scores, grad_values, grad_m, *carried)
    native.loops(SOURCE, values.dtype).run("backward", rows, tokens, width, *given, *made)
    return grad_scores, grad_values, grad_m, carried[0], carried[1]


@torch.library.register_fake("zoo_aaren::scan_backward", lib=_LIBRARY)
def _(scores: Tensor, values: Tensor, m: Tensor, u: Tensor, w: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (scores, values, m, u, w))


def _folded(operation: Any, info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> Any:
    """Under `torch.func.vmap`: more rows."""
    size = info.batch_size
    rows = [
        (x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
        for x, dim in zip(tensors, in_dims, strict=True)
    ]
    outputs = operation(*rows)
    return tuple(x.unflatten(0, (size, -1)) for x in outputs), (0,) * len(outputs)


@torch.library.register_vmap("zoo_aaren::scan", lib=_LIBRARY)
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> Any:
    return _folded(torch.ops.zoo_aaren.scan, info, in_dims, *tensors)


@torch.library.register_vmap("zoo_aaren::scan_backward", lib=_LIBRARY)
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> Any:
    return _folded(torch.ops.zoo_aaren.scan_backward, info, in_dims, *tensors)


@register_flop_formula(torch.ops.zoo_aaren.scan)
def _(scores: torch.Size, values: torch.Size, *_: Any, **__: Any) -> int:
    """w = w e^(m - m') + e^(s - m') v."""
    return 4 * values.numel()


@register_flop_formula(torch.ops.zoo_aaren.scan_backward)
def _(scores: torch.Size, values: torch.Size, *_: Any, **__: Any) -> int:
    """G like w, weighted for dv, and its products with v, and of g with o."""
    return 9 * values.numel()
