"""What the functions accept, and what they say otherwise (every refusal is a ValueError)."""

from __future__ import annotations

import torch
from torch import Tensor

PLANS = ("fixed", "logsparse", "axial_vertical", "axial_horizontal", "axial_rowmajor", "axial_mixture")
POOLINGS = ("max", "mean", "none")
ROW_SUMMARIES = ("none", "wsum", "proj", "wsum_proj")
IMPLS = ("auto", "einsum", "sdpa")


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def whole(name: str, value: object) -> None:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def queries_keys_values(q: Tensor, k: Tensor, v: Tensor) -> None:
    """q, k, v: (B, H, N, D), of one floating point type, on one device."""
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.dim() != 4 or not q.shape == k.shape == v.shape:
        raise ValueError(f"q, k and v must be (B, H, N, D) of one shape (self-attention); got {shapes}")
    if q.shape[2] < 1 or q.shape[3] < 1:
        raise ValueError(f"q, k and v must hold at least one token and one channel; got {shapes}")
    if not (q.is_floating_point() and q.dtype == k.dtype == v.dtype):
        raise ValueError(
            f"q, k and v must be of one floating point type; got {q.dtype}, {k.dtype} and {v.dtype}"
        )
    if not q.device == k.device == v.device:
        raise ValueError(f"q, k and v must be on one device; got {q.device}, {k.device} and {v.device}")


def options(
    *, plan: str, block_size: int | None, pooling: str, scale: float | None, dropout_p: float, impl: str
) -> None:
    one_of("plan", plan, PLANS)
    one_of("pooling", pooling, POOLINGS)
    one_of("impl", impl, IMPLS)
    if block_size is not None:
        if plan == "logsparse":
            raise ValueError(
                f"block_size must be left out for plan 'logsparse', whose spans are powers of two; "
                f"got {block_size!r}"
            )
        whole("block_size", block_size)
    if impl == "sdpa" and plan != "fixed":
        raise ValueError(f"impl 'sdpa' is there for plan 'fixed' only, got plan {plan!r}; use 'auto'")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale!r}")
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p must be at least 0 and below 1, got {dropout_p!r}")


def mask_fits(key_mask: Tensor, q: Tensor) -> None:
    """key_mask: bool (B, N)."""
    expected = (q.shape[0], q.shape[2])
    if key_mask.dtype != torch.bool or tuple(key_mask.shape) != expected:
        raise ValueError(
            f"key_mask must be bool {expected}, True = keep; got {key_mask.dtype} {tuple(key_mask.shape)}"
        )
    if key_mask.device != q.device:
        raise ValueError(f"key_mask must be on the device of q, {q.device}; got {key_mask.device}")


def span_features(span_qk: tuple[Tensor, Tensor], q: Tensor) -> None:
    """What summaries are pooled from, two tensors like q."""
    for which, features in zip(("queries", "keys"), span_qk, strict=True):
        if features.shape != q.shape or features.dtype != q.dtype:
            raise ValueError(
                f"span_qk must be features of queries and keys, each {tuple(q.shape)} of {q.dtype} like q; "
                f"got {which} {tuple(features.shape)} of {features.dtype}"
            )


def rows_fit(
    q: Tensor,
    *,
    columns: int,
    causal: bool,
    key_mask: Tensor | None,
    row_summary: str,
    row_keys: Tensor | None,
) -> None:
    """What the row-major plan asks for besides."""
    tokens = q.shape[2]
    one_of("row_summary", row_summary, ROW_SUMMARIES)
    if row_keys is not None:
        row_keys_fit(row_keys, q, columns=columns)
    elif row_summary.endswith("proj"):
        raise ValueError(
            f"row_keys must be given for row_summary {row_summary!r}, whose weights a module holds; "
            "got None. "
            "Use zoo_combiner.CombinerAxial, or row_summary 'none' or 'wsum'"
        )
    if not causal and tokens % columns:
        near = [c for c in range(1, tokens + 1) if tokens % c == 0]
        fits = sorted(sorted(near, key=lambda c: abs(c - columns))[:3])
        raise ValueError(
            f"block_size must divide the {tokens} tokens for bidirectional plan 'axial_rowmajor', "
            f"got {columns}: "
            "each column of each row must hold a token that asks for the summary. "
            f"Take block_size {', '.join(map(str, fits))}, or pad to {-(-tokens // columns) * columns} tokens"
        )
    if key_mask is not None and tokens > 1 and bool((key_mask[:, 1:] & ~key_mask[:, :-1]).any()):
        raise ValueError(
            "key_mask must be padding on the right for plan 'axial_rowmajor' (True up to each length): its "
            "summaries are asked for by the token above; got a mask with a kept token after a masked one. "
            "Move kept tokens to the front, as zoo_combiner.CombinerAxial does"
        )


def row_keys_fit(row_keys: Tensor, q: Tensor, *, columns: int) -> None:
    """row_keys: (B, rows, columns, H, D)."""
    batch, heads, tokens, width = q.shape
    expected = (batch, -(-tokens // columns), columns, heads, width)
    if tuple(row_keys.shape) != expected or row_keys.dtype != q.dtype:
        raise ValueError(
            f"row_keys must be (B, rows, block_size, H, D) = {expected} of {q.dtype}; "
            f"got {tuple(row_keys.shape)} of {row_keys.dtype}"
        )
