"""What computes lightning attention: our loops in C on CPU, Triton kernels on CUDA, else tensor operations.

The kernels on CUDA are those of flash-linear-attention, `pip install archzoo[fla]`
(https://github.com/fla-org/flash-linear-attention), loaded when first wanted. Its `chunk_simple_gla` is our
operator in another layout. (Its `chunk_lightning_attn` is not: it has the paper's decay built in.)
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from zoo.layers.precision import sum_dtype
from zoo_transnormer import native

Backend = Literal["auto", "torch", "native", "fla"]

#: Head widths that fla is given: what its kernels' blocks divide, and no more than they hold at once.
MULTIPLE, LARGEST = 16, 256


def chosen(q: Tensor, v: Tensor, slopes: Tensor, *, backend: Backend, padded: bool) -> Backend:
    """What computes this; where what was asked for cannot, or only a shape forbids fla, says once why.

    q: (B, H, T, D), v: (B, H, T, E). Returns "torch", "native" or "fla".
    """
    installed = q.is_cuda and importlib.util.find_spec("fla") is not None
    best: Backend = backend if backend != "auto" else "fla" if installed else "native"
    if best == "torch":
        return best
    if best == "fla":
        reason = _obstacle(q, v, slopes, installed=installed, padded=padded)
    else:
        reason = native.obstacle(q, sum_dtype(q.dtype, v.dtype))
    if not reason:
        return best
    if best == "fla" or backend == "native":
        _say_once(f"lightning_attention: {reason}; the PyTorch form computes it instead")
    return "torch"


def _obstacle(q: Tensor, v: Tensor, slopes: Tensor, *, installed: bool, padded: bool) -> str:
    if not q.is_cuda:
        return f"the backend 'fla' needs CUDA tensors, these are on {q.device.type}"
    if not installed:
        return "the backend 'fla' is not installed (pip install 'archzoo[fla]')"
    if q.shape[2] == 0:
        return "the backend 'fla' takes at least one token"
    if torch.float64 in (q.dtype, v.dtype):
        return "the backend 'fla' has no float64"
    if slopes.dim() > 1:
        return "the backend 'fla' takes the same slopes for every row"
    if padded:
        return "the backend 'fla' knows no padding (pack the sequences: cu_seqlens)"
    for name, width in (("D", q.shape[-1]), ("E", v.shape[-1])):
        if width % MULTIPLE or width > LARGEST:
            steps = f"{MULTIPLE}, {2 * MULTIPLE}, ..., {LARGEST}"
            return f"the backend 'fla' takes head widths of {steps}, not {name}={width}"
    return ""


@cache
def _say_once(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    scale: float,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """By fla. Shapes as in `lightning_attention`; always returns the final state."""
    kernel = importlib.import_module("fla.ops.simple_gla").chunk_simple_gla
    out, state = kernel(
        *(x.transpose(1, 2).contiguous() for x in (q, k, v)),  # (B, T, H, D)
        g_gamma=-slopes.float(),
        scale=scale,  # theirs is 1 / sqrt(D) unless told
        initial_state=state,
        output_final_state=True,
        cu_seqlens=cu_seqlens,
    )
    return out.transpose(1, 2), state
