"""What the functions accept, and what they say otherwise. B batch, H heads, T queries, S keys, d channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IMPLS = ("auto", "dense", "blocked", "reference")
EMPTY = ("drop", "keep")


def block_length(block_len: int) -> None:
    if block_len < 1:
        raise ValueError(f"block_len must be at least 1, the tokens between two landmarks; got {block_len}")


def landmarks(is_landmark: Tensor, shape: Sequence[int]) -> None:
    """bool, of this shape."""
    if is_landmark.dtype != torch.bool:
        raise ValueError(f"is_landmark must be bool, True where a landmark stands; got {is_landmark.dtype}")
    if tuple(is_landmark.shape) != tuple(shape):
        raise ValueError(f"is_landmark must be {tuple(shape)}, got {tuple(is_landmark.shape)}")


def hidden_keys(hidden: Tensor, wanted: Sequence[int]) -> None:
    """bool, and it spreads over scores (B, H, T, S)."""
    if hidden.dtype != torch.bool:
        raise ValueError(f"hidden must be bool, True where a key is not seen; got {hidden.dtype}")
    shape, wanted = tuple(hidden.shape), tuple(wanted)
    fits = len(shape) == 4 and all(one in (1, other) for one, other in zip(shape, wanted, strict=True))
    if not fits:
        raise ValueError(f"hidden must be (B or 1, H or 1, T or 1, S) within {wanted}, got {shape}")


def score_inputs(scores: Tensor, is_landmark: Tensor, hidden: Tensor | None) -> None:
    if scores.dim() != 4:
        raise ValueError(f"scores must be (B, H, T, S), got {tuple(scores.shape)}")
    landmarks(is_landmark, (scores.shape[0], scores.shape[3]))
    if hidden is not None:
        hidden_keys(hidden, scores.shape)


def offset(query_offset: int | None, queries: int, keys: int) -> int:
    """The place of the first query among the keys; by default the queries are the last ones."""
    found = keys - queries if query_offset is None else query_offset
    if not 0 <= found <= keys - queries:
        raise ValueError(
            f"query_offset must lie within 0..{keys - queries} for {queries} queries and {keys} keys, "
            f"got {found}"
        )
    return found


def empty(empty_block: str) -> None:
    if empty_block not in EMPTY:
        raise ValueError(f"empty_block must be one of {', '.join(EMPTY)}, got {empty_block!r}")


def attention_inputs(
    q: Tensor, k: Tensor, v: Tensor, is_landmark: Tensor | None, block_len: int | None, impl: str
) -> None:
    """q (B, H, T, d); k and v (B, H, S, d), S >= T; landmarks given at least one way."""
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {', '.join(IMPLS)}, got {impl!r}")
    fits = (
        q.dim() == k.dim() == v.dim() == 4
        and q.shape[:2] == k.shape[:2]
        and k.shape[:3] == v.shape[:3]
        and q.shape[3] == k.shape[3]
        and q.shape[2] <= k.shape[2]
    )
    if not fits:
        raise ValueError(
            "expected q (B, H, T, d), k (B, H, S, d) and v (B, H, S, d') with S >= T, "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(f"q, k and v must be of one floating type, got {q.dtype}, {k.dtype} and {v.dtype}")
    if not q.device == k.device == v.device:
        raise ValueError(f"q, k and v must be on one device, got {q.device}, {k.device} and {v.device}")
    if is_landmark is None and block_len is None:
        raise ValueError("where are the landmarks? Give is_landmark, bool (B, S), or block_len")
    if block_len is not None:
        block_length(block_len)
    if is_landmark is not None:
        landmarks(is_landmark, (k.shape[0], k.shape[2]))


def corpus(tokens: Tensor, landmark_id: int, every: int, phase: int) -> None:
    """Ids (B, N) without the landmark's, to get one after every `every`."""
    if tokens.dim() != 2 or tokens.is_floating_point():
        raise ValueError(f"tokens must be ids (B, N), got {tokens.dtype} {tuple(tokens.shape)}")
    if every < 1:
        raise ValueError(f"every must be at least 1, the tokens between two landmarks; got {every}")
    if not 0 <= phase < every:
        raise ValueError(
            f"phase, the tokens since the last landmark, must lie within 0..{every - 1}, got {phase}"
        )
    if bool((tokens == landmark_id).any()):
        raise ValueError(f"tokens hold the landmark's id {landmark_id} already: take one that no token has")


SELECT = ("token_head", "token", "head")


def cache_options(
    block_len: int, top_k: int | None, max_blocks: int | None, select: str, offload: str | None
) -> None:
    block_length(block_len)
    if top_k is not None and top_k < 0:
        raise ValueError(f"top_k must be at least 0, or None for all blocks; got {top_k}")
    if max_blocks is not None and max_blocks < max(1, top_k or 0):
        raise ValueError(f"max_blocks must be at least 1 and at least top_k={top_k}, got {max_blocks}")
    if select not in SELECT:
        raise ValueError(f"select must be one of {', '.join(SELECT)}, got {select!r}")
    if offload not in (None, "cpu"):
        raise ValueError(f"offload must be 'cpu' or None, got {offload!r}")


def blocks(keys: Tensor, values: Tensor, size: int, cached: Sequence[Tensor] | None) -> None:
    """Whole blocks (B, H, m L, d) that fit those cached, (B, H, n, L, d) each."""
    if keys.dim() != 4 or keys.shape[:3] != values.shape[:3] or keys.shape[2] % size:
        raise ValueError(
            f"expected keys and values (B, H, m * {size}, d), whole blocks with their landmarks, "
            f"got {tuple(keys.shape)} and {tuple(values.shape)}"
        )
    if cached is not None:
        query(keys, cached[2])


def query(q: Tensor, landmarks: Tensor) -> None:
    """Streams, heads, channels and type of (B, H, T, d) against the cached landmarks' (B, H, n, d)."""
    given = (q.shape[0], q.shape[1], q.shape[3], q.dtype)
    cached = (landmarks.shape[0], landmarks.shape[1], landmarks.shape[3], landmarks.dtype)
    if given != cached:
        raise ValueError(f"the cache is of (streams, heads, channels, type) {cached}, but these are {given}")
