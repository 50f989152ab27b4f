"""What the functions accept, and what they say otherwise. B batch, H heads, T tokens, D, E channels."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

BACKENDS = ("auto", "torch", "native", "fla")


def attention_inputs(q: Tensor, k: Tensor, v: Tensor) -> None:
    """q, k: (B, H, T, D), v: (B, H, T, E), floating point, on one device."""
    _tensors(q=q, k=k, v=v)
    if q.dim() != 4 or q.shape != k.shape or v.shape[:-1] != q.shape[:-1]:
        raise ValueError(
            "expected q, k (B, H, T, D) and v (B, H, T, E), "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    _floats(q=q, k=k, v=v)


def step_inputs(q: Tensor, k: Tensor, v: Tensor) -> None:
    """q, k: (B, H, D), v: (B, H, E), one token."""
    if q.dim() != 3 or q.shape != k.shape or v.shape[:-1] != q.shape[:-1]:
        raise ValueError(
            "a step takes one token: expected q, k (B, H, D) and v (B, H, E), "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}; "
            "for several use lightning_attention"
        )
    _floats(q=q, k=k, v=v)


def slopes_fit(slopes: Tensor, q: Tensor) -> None:
    """slopes: (H,) or (B, H), finite, not negative, constant."""
    batch, heads = q.shape[:2]
    if not isinstance(slopes, Tensor):
        got = f"{type(slopes).__name__} {slopes!r}"
        raise TypeError(f"slopes must be a tensor ({heads},), e.g. decay_slopes({heads}); got {got}")
    if slopes.shape not in ((heads,), (batch, heads)):
        raise ValueError(
            f"slopes must be ({heads},) or {(batch, heads)}, one per head of q, got {tuple(slopes.shape)}"
        )
    if slopes.requires_grad:
        raise ValueError("slopes are constants and get no gradient: pass slopes.detach()")
    if torch.compiler.is_compiling() or slopes.is_meta:
        return  # values are not known here
    given = (slopes if slopes.dim() == 1 else slopes.flatten()).tolist()
    if not all(0 <= slope < math.inf for slope in given):
        raise ValueError(
            "slopes must be finite and at least 0 (lambda = exp(-slope) is the share kept per token), "
            f"got {[round(slope, 6) for slope in given]}"
        )


def state_fits(state: Tensor, q: Tensor, v: Tensor, *, rows: int | None = None) -> None:
    """state: (B, H, D, E); rows: sequences in a packed batch."""
    shape = (q.shape[0] if rows is None else rows, q.shape[1], q.shape[-1], v.shape[-1])
    if tuple(state.shape) != shape:
        raise ValueError(f"the state must be {shape} for these inputs, got {tuple(state.shape)}")
    dtype = torch.float64 if torch.float64 in (q.dtype, v.dtype) else torch.float32
    if state.dtype != dtype:
        raise TypeError(f"the state must be {dtype} for these inputs (half types drift), got {state.dtype}")
    _same_device(q=q, state=state)


def mask_fits(mask: Tensor, q: Tensor) -> None:
    """mask: bool (B, T), True = keep."""
    shape = (q.shape[0], q.shape[2])
    if mask.dtype != torch.bool or tuple(mask.shape) != shape:
        raise ValueError(
            f"key_padding_mask must be bool {shape}, True = keep, got {mask.dtype} {tuple(mask.shape)}"
        )
    _same_device(q=q, key_padding_mask=mask)


def token_mask(mask: Tensor, x: Tensor) -> None:
    """mask: bool (B, N), True = keep, for tokens x (B, N, D)."""
    if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        raise ValueError(
            f"mask must be bool {tuple(x.shape[:2])}, True = keep; got {mask.dtype} {tuple(mask.shape)}"
        )


def packed_lengths(cu_seqlens: Tensor, q: Tensor) -> list[int]:
    """cu_seqlens: int (S + 1,), where each sequence starts, and T -> the S lengths."""
    _tensors(cu_seqlens=cu_seqlens)
    if q.shape[0] != 1:
        raise ValueError(f"packed sequences lie in one row: with cu_seqlens B must be 1, got {q.shape[0]}")
    if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 2 or cu_seqlens.is_floating_point():
        raise ValueError(
            "cu_seqlens must be whole numbers (S + 1,) for S sequences, "
            f"got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        )
    ends: list[int] = cu_seqlens.tolist()
    lengths = [end - start for start, end in pairwise(ends)]
    if ends[0] != 0 or ends[-1] != q.shape[2] or min(lengths) < 0:
        raise ValueError(f"cu_seqlens must rise from 0 to T={q.shape[2]}, got {ends}")
    return lengths


def options(chunk_size: int, backend: str) -> None:
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int):
        raise TypeError(f"chunk_size must be a whole number, got {chunk_size!r}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


def _tensors(**given: Tensor) -> None:
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def _floats(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"{name} must be floating point, got {tensor.dtype}")
    _same_device(**tensors)


def _same_device(**tensors: Tensor) -> None:
    first, *others = tensors.values()
    if any(tensor.device != first.device for tensor in others):
        found = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"tensors must be on one device, got {found}")
