"""Landmark attention as functions of tensors (Mohtashami and Jaggi 2023, section 3.1).

B batch, H heads, T queries, S keys, d channels per head. The keys between two landmarks, with the landmark
that ends them, are a section (a block in the paper). A query sees the keys of its own section directly, and
those of an earlier section through the landmark of it, whose weight multiplies theirs.

Instead of a softmax in groups, an ordinary softmax over adjusted scores, which is the same:
    l_ij = s_ij                                     j in the section of i
    l_ij = s_ij - LSE_{m in block(j)} s_im + s_ip   otherwise, p the landmark of j's block
so that no group is ever scattered into buckets, and there is no limit to their number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.layers.precision import full_precision, sum_dtype
from zoo_landmark import checks
from zoo_landmark.blocked import blocked_attention
from zoo_landmark.grid import insert_landmarks, landmark_mask, remove_landmarks, shift_labels

__all__ = [
    "grouped_softmax",
    "insert_landmarks",
    "landmark_attention",
    "landmark_log_weights",
    "landmark_softmax",
    "remove_landmarks",
    "section_ids",
    "shift_labels",
]

NEG_INF = float("-inf")


def section_ids(is_landmark: Tensor) -> Tensor:
    """The number of each key's section: how many landmarks stand before it. bool (B, S) -> int64 (B, S)."""
    if is_landmark.dtype != torch.bool:
        raise ValueError(f"is_landmark must be bool, True where a landmark stands; got {is_landmark.dtype}")
    return is_landmark.cumsum(-1) - is_landmark.long()


def grouped_softmax(scores: Tensor, group_ids: Tensor, hidden: Tensor | None = None) -> Tensor:
    """The paper's sigma_G: a softmax within each group of the last dimension.

    scores: (..., S); group_ids: int (..., S), -1 = in no group, weight 0; hidden: bool, True = weight 0.
    Groups without a visible key have weights 0. Returns (..., S).

    Raises:
        ValueError: shapes that do not spread over the scores', or ids that are no whole numbers from -1 on.
    """
    if group_ids.is_floating_point() or group_ids.dtype == torch.bool:
        raise ValueError(f"group_ids must be whole numbers, got {group_ids.dtype}")
    ids = _spread(group_ids, scores, "group_ids")
    gone = ids < 0
    if hidden is not None:
        gone = gone | _spread(hidden, scores, "hidden")
    if ids.numel() and int(ids.min()) < -1:
        raise ValueError(f"group_ids must be at least -1 (in no group), got {int(ids.min())}")
    ids = ids.clamp_min(0)
    totals = _section_lse(scores.masked_fill(gone, NEG_INF), ids)
    return (scores - totals.gather(-1, ids)).masked_fill(gone, NEG_INF).exp()


def landmark_log_weights(
    scores: Tensor, is_landmark: Tensor, hidden: Tensor | None, query_sections: Tensor
) -> Tensor:
    """The adjusted scores l_ij, whose softmax is landmark attention; -inf for what is not seen.

    Args:
        scores: (B, H, T, S), scaled.
        is_landmark: bool (B, S).
        hidden: bool (B or 1, H or 1, T or 1, S), True = not seen. Later keys are hidden by the caller.
            A section whose landmark is hidden is seen from within only.
        query_sections: int64 (B, T), the section of each query, as `section_ids` counts.

    Returns:
        (B, H, T, S).

    Raises:
        ValueError: shapes that do not fit.
    """
    checks.score_inputs(scores, is_landmark, hidden)
    adjusted, _ = _adjusted(scores, is_landmark, hidden, query_sections)
    return adjusted


def landmark_softmax(
    scores: Tensor,
    is_landmark: Tensor,
    hidden: Tensor | None = None,
    query_offset: int | None = None,
    empty_block: str = "drop",
) -> Tensor:
    """The weights of landmark attention; causal: no query sees a later key.

    Args:
        scores: (B, H, T, S), scaled.
        is_landmark: bool (B, S).
        hidden: bool (B or 1, H or 1, T or 1, S), True = not seen (padding).
        query_offset: query i stands at key `query_offset + i`; by default the queries are the last keys.
        empty_block: what becomes of a landmark without a visible key in its block: "drop" hides it, so that
            rows sum to 1; "keep" lets its weight go to waste, as the authors' code does.

    Returns:
        (B, H, T, S): 0 for landmarks; rows sum to 1, and to 0 for a query that sees nothing.

    Raises:
        ValueError: shapes that do not fit.
    """
    checks.score_inputs(scores, is_landmark, hidden)
    checks.empty(empty_block)
    queries, keys = scores.shape[2:]
    start = checks.offset(query_offset, queries, keys)
    later = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).triu(start + 1)
    hidden = later if hidden is None else later | hidden
    sections = section_ids(is_landmark)[:, start : start + queries]
    adjusted, wasted = _adjusted(scores, is_landmark, hidden, sections)
    if empty_block == "keep":
        adjusted = torch.cat((adjusted, wasted), -1)
    nothing = (adjusted == NEG_INF).all(-1, keepdim=True)
    weights = adjusted.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
    return weights[..., :keys]


def landmark_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_landmark: Tensor | None = None,
    block_len: int | None = None,
    hidden: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Causal landmark attention; the queries are the last T of S places, positions are in q and k already.

    Args:
        q: (B, H, T, d). k, v: (B, H, S, d).
        is_landmark: bool (B, S); landmarks may stand anywhere, and elsewhere in each row.
        block_len: a landmark after every `block_len` keys, the first block starting with the first key.
        hidden: bool (B or 1, H or 1, T or 1, S), True = not seen (padding).
        impl: "dense" holds (B, H, T, S) tensors; "blocked" needs the regular grid of `block_len`, T = S and
            nothing hidden, and its memory is linear in S but for S * S / block_len; "auto" takes it where it
            can; "reference" is the definition, slow, in float64.

    Returns:
        (B, H, T, d); zeros for a query that sees nothing. Sums run in float32 at least.

    Raises:
        ValueError: shapes or types that do not fit, no landmarks given, or "blocked" for what it cannot do.
    """
    checks.attention_inputs(q, k, v, is_landmark, block_len, impl)
    if hidden is not None:
        checks.hidden_keys(hidden, (*q.shape[:3], k.shape[2]))
    if impl in ("auto", "blocked"):
        why = _why_not_blocked(q, k, is_landmark, block_len, hidden)
        if why is None and block_len is not None:
            return blocked_attention(q, k, v, block_len)
        if impl == "blocked":
            raise ValueError(f"impl 'blocked' {why}; take 'dense' or 'auto'")
    if is_landmark is None:
        assert block_len is not None  # checked above
        is_landmark = landmark_mask(k.shape[2], block_len, device=k.device).expand(k.shape[0], -1)
    if impl == "reference":
        from zoo_landmark.reference import landmark_weights

        scores = q.double() @ k.double().mT / math.sqrt(q.shape[3])
        return (landmark_weights(scores, is_landmark, hidden) @ v.double()).to(q.dtype)
    dtype = sum_dtype(q.dtype)
    with full_precision(q.device):
        scores = (q.to(dtype) / math.sqrt(q.shape[3])) @ k.to(dtype).mT
        return (landmark_softmax(scores, is_landmark, hidden) @ v.to(dtype)).to(q.dtype)


def _why_not_blocked(
    q: Tensor, k: Tensor, is_landmark: Tensor | None, block_len: int | None, hidden: Tensor | None
) -> str | None:
    """Why the blocked form cannot be taken, or `None`."""
    if block_len is None:
        return "needs block_len: a regular grid of landmarks"
    if q.shape[2] != k.shape[2]:
        return f"needs as many queries as keys, got {q.shape[2]} and {k.shape[2]}"
    if hidden is not None:
        return "cannot hide keys"
    if is_landmark is not None:
        off = is_landmark != landmark_mask(k.shape[2], block_len, device=k.device)
        if bool(off.any()):
            row, place = off.nonzero()[0].tolist()
            grid = f"the grid of block_len {block_len}"
            return f"needs landmarks on {grid}, but row {row} leaves it at place {place}"
    return None


def _adjusted(
    scores: Tensor, is_landmark: Tensor, hidden: Tensor | None, query_sections: Tensor
) -> tuple[Tensor, Tensor]:
    """l_ij (B, H, T, S), and the scores of landmarks without a visible key (B, H, T, sections)."""
    batch, heads, queries, keys = scores.shape
    if query_sections.shape != (batch, queries):
        raise ValueError(f"query_sections must be {(batch, queries)}, got {tuple(query_sections.shape)}")
    sections = section_ids(is_landmark)
    count = int(sections.max()) + 1 if keys else 1
    gone = is_landmark[:, None, None, :] if hidden is None else is_landmark[:, None, None, :] | hidden
    ids = sections[:, None, None, :].expand(scores.shape)
    inside = scores.masked_fill(gone, NEG_INF)
    totals = _section_lse(inside, ids, count)  # (B, H, T, n)
    # Each section has one landmark at most: its scores by section, -inf where there is none or it is hidden.
    seen = is_landmark[:, None, None, :] if hidden is None else is_landmark[:, None, None, :] & ~hidden
    last = torch.full((batch, count), -1, dtype=torch.int64, device=scores.device)
    last.scatter_reduce_(1, sections, torch.arange(keys, device=scores.device).expand(batch, -1), "amax")
    last = last[:, None, None, :].expand(batch, heads, queries, count)
    gates = scores.masked_fill(~seen, NEG_INF).gather(-1, last.clamp_min(0))  # (B, H, T, n)
    gates = gates.masked_fill(last < 0, NEG_INF)  # a row with fewer sections
    own = query_sections[:, None, :, None] == torch.arange(count, device=scores.device)  # (B, 1, T, n)
    empty = totals == NEG_INF
    shift = (gates - totals.masked_fill(empty, 0.0)).masked_fill(own, 0.0)
    wasted = gates.masked_fill(~empty | own, NEG_INF)
    return inside + shift.gather(-1, ids), wasted


def _section_lse(scores: Tensor, ids: Tensor, count: int | None = None) -> Tensor:
    """log sum exp of the last dimension by group, (..., S) -> (..., groups); -inf without keys."""
    if count is None:
        count = int(ids.max()) + 1 if ids.numel() else 1
    shape = (*scores.shape[:-1], count)
    top = torch.full(shape, NEG_INF, dtype=scores.dtype, device=scores.device)
    top = top.scatter_reduce(-1, ids, scores.detach(), "amax")
    finite = top.masked_fill(top == NEG_INF, 0.0)
    shifted = (scores - finite.gather(-1, ids)).exp()
    sums = torch.zeros(shape, dtype=scores.dtype, device=scores.device).scatter_add(-1, ids, shifted)
    some = sums > 0
    return sums.masked_fill(~some, 1.0).log().add(finite).masked_fill(~some, NEG_INF)


def _spread(x: Tensor, scores: Tensor, name: str) -> Tensor:
    try:
        return x.expand(scores.shape)
    except RuntimeError:
        raise ValueError(
            f"{name} must spread over the scores {tuple(scores.shape)}, got {tuple(x.shape)}"
        ) from None
