"""Padding and several documents in one row, as rows of their own.

B rows, N tokens, R documents, L tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.layers.padding import front_order, kept_in_front, put_back


def by_document(
    run: Callable[[Tensor], Tensor], x: Tensor, mask: Tensor | None, starts: Tensor | None
) -> Tensor:
    """`run` on every document by itself, x: (B, N, D) -> (B, N, D); zeros at padding.

    run: causal, so that padding on the right of a document changes nothing.
    mask: bool (B, N), True = keep. starts: bool (B, N), True at the first token of a document.

    Raises:
        ValueError: a mask or starts of another shape or type.
    """
    for name, given in (("mask", mask), ("starts", starts)):
        if given is not None and (given.dtype != torch.bool or given.shape != x.shape[:2]):
            raise ValueError(
                f"{name} must be bool {tuple(x.shape[:2])}, got {given.dtype} {tuple(given.shape)}"
            )
    if starts is None:
        if mask is None:
            return run(x)
        order = front_order(mask)
        return put_back(run(kept_in_front(x, mask, order)), mask, order)
    places, kept = _places(starts, mask)
    if places.numel() == 0:
        return torch.zeros_like(x)
    apart = x.flatten(0, 1)[places].masked_fill(~kept.unsqueeze(-1), 0.0)  # (R, L, D)
    y = run(apart)
    whole = y.new_zeros(x.shape[0] * x.shape[1], y.shape[-1])
    return whole.index_copy(0, places[kept], y[kept]).unflatten(0, x.shape[:2])


def _places(starts: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where the tokens of each document lie in the rows laid end to end, and what is no padding: (R, L)."""
    tokens = starts.shape[1]
    row = torch.arange(len(starts), device=starts.device).unsqueeze(1)
    document = row * (tokens + 1) + starts.long().cumsum(1)  # what comes before the first start is one, too
    flat = torch.arange(starts.numel(), device=starts.device)
    if mask is not None:
        flat = flat[mask.flatten()]
    _, which, lengths = torch.unique_consecutive(
        document.flatten()[flat], return_inverse=True, return_counts=True
    )
    longest = int(lengths.max()) if len(lengths) else 0
    within = torch.arange(len(flat), device=flat.device) - (lengths.cumsum(0) - lengths)[which]
    places = flat.new_zeros(len(lengths), longest)
    places[which, within] = flat
    kept = torch.zeros(places.shape, dtype=torch.bool, device=flat.device)
    kept[which, within] = True
    return places, kept
