"""What the functions accept, and what they say otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

IMPLS = ("auto", "native", "dense", "blocked", "tree", "loop")


def scan_inputs(scores: Tensor, values: Tensor, key_mask: Tensor | None) -> None:
    """scores (B, H, N), values (B, H, N, D), key_mask bool (B, N) or (B, H, N)."""
    if scores.dim() != 3 or values.dim() != 4 or scores.shape != values.shape[:3]:
        raise ValueError(
            "expected scores (B, H, N) and values (B, H, N, D), "
            f"got {tuple(scores.shape)} and {tuple(values.shape)}"
        )
    _floats(scores=scores, values=values)
    if key_mask is None:
        return
    batch, heads, tokens = scores.shape
    if key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask must be bool (True = keep), got {key_mask.dtype}")
    if key_mask.shape not in ((batch, tokens), (batch, heads, tokens)):
        raise ValueError(
            f"key_mask must be {(batch, tokens)} or {(batch, heads, tokens)} to fit the scores, "
            f"got {tuple(key_mask.shape)}"
        )
    _same_device(scores=scores, key_mask=key_mask)


def step_inputs(
    score: Tensor, value: Tensor, state: tuple[Tensor, Tensor, Tensor], valid: Tensor | None
) -> None:
    """score (B, H), value (B, H, D), valid bool (B,), and a state that fits them."""
    if score.dim() != 2 or value.dim() != 3 or score.shape != value.shape[:2]:
        raise ValueError(
            "a step takes one token: expected score (B, H) and value (B, H, D), "
            f"got {tuple(score.shape)} and {tuple(value.shape)}; for several tokens use aaren_scan"
        )
    _floats(score=score, value=value)
    state_fits(state, score, value)
    if valid is not None and (valid.dtype != torch.bool or valid.shape != score.shape[:1]):
        raise ValueError(
            f"valid must be bool {tuple(score.shape[:1])}, got {valid.dtype} {tuple(valid.shape)}"
        )


def state_fits(state: tuple[Tensor, Tensor, Tensor], scores: Tensor, values: Tensor) -> None:
    """The state's m, u (B, H) and w (B, H, D) against scores (B, H, ...) and values (B, H, ..., D)."""
    if not (isinstance(state, tuple) and len(state) == 3 and all(isinstance(x, Tensor) for x in state)):
        raise ValueError(f"state must be an AarenState (m, u, w), got a {type(state).__name__}")
    lead, width = tuple(scores.shape[:2]), values.shape[-1]
    dtype = torch.promote_types(torch.promote_types(scores.dtype, values.dtype), torch.float32)
    for name, part, shape in zip("muw", state, (lead, lead, (*lead, width)), strict=True):
        if tuple(part.shape) != shape:
            raise ValueError(f"state.{name} must be {shape} for these inputs, got {tuple(part.shape)}")
        if part.dtype != dtype:
            raise ValueError(f"state.{name} must be {dtype} for these inputs, got {part.dtype}")
        _same_device(scores=scores, **{f"state.{name}": part})


def scan_options(impl: str, block_size: int | None) -> None:
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {', '.join(IMPLS)}, got {impl!r}")
    if block_size is not None and (not isinstance(block_size, int) or block_size < 1):
        raise ValueError(f"block_size must be a whole number of at least 1, got {block_size!r}")


def native(obstacle: str) -> None:
    if obstacle:
        raise ValueError(f'impl="native" {obstacle}; impl="auto" takes it where it can be had')


def finite_scores(scores: Tensor, key_mask: Tensor | None) -> None:
    """Refuse NaN and +inf where a token is kept; -inf is an absent token."""
    bad = scores.isnan() | scores.isposinf()
    if key_mask is not None:
        bad &= key_mask if key_mask.dim() == 3 else key_mask.unsqueeze(1)
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{int(bad.sum())} scores are NaN or +inf, the first at (batch, head, token) {first}"
        )


def _floats(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {tensor.dtype}")
    (first, one), (second, other) = tensors.items()
    if (one.dtype == torch.float64) != (other.dtype == torch.float64):
        raise ValueError(
            f"{first} and {second} must both be float64 or neither, got {one.dtype} and {other.dtype}"
        )
    _same_device(**tensors)


def _same_device(**tensors: Tensor) -> None:
    if len({tensor.device for tensor in tensors.values()}) > 1:
        found = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"tensors must be on one device, got {found}")
