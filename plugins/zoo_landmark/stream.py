"""Landmark attention of queries on blocks near and fetched, and what a stream remembers.

B streams, H heads, T queries, L places per block, d channels, m near blocks, k fetched ones.

The law, which holds for whole sequences and for streams cut anyhow: a query sees its own block, the `window`
blocks before it at their true distances, and those of all older blocks that it fetches (`LandmarkCache`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers import of_any_age
from zoo.layers.precision import full_precision, sum_dtype
from zoo_landmark.cache import Blocks, LandmarkCache, Retrieved, turned_apart

NEG_INF = float("-inf")


@of_any_age
class LandmarkState(NamedTuple):
    """What streams remember, each of its own age.

    blocks: those that have left the window.
    keys (turned by their place in the block), values: (B, H, R, d), the places since.
    position: places that each stream has seen, landmarks included, int64 (B,); how much of the others is its
        own follows from it.
    """

    blocks: Blocks
    keys: Tensor
    values: Tensor
    position: Tensor

    def of_age(self, places: int, *, size: int, window: int, max_blocks: int | None) -> LandmarkState:
        """The state of streams that have all seen so many places, without room for older ones.

        Raises:
            ValueError: it holds less than such streams have, as those of a layer with another window do.
        """
        gone = max(0, places // size - window)
        stored = gone if max_blocks is None else min(gone, max_blocks)
        recent = places - gone * size
        held = (self.blocks.landmarks.shape[2], self.keys.shape[2])
        if held[0] < stored or held[1] < recent:
            raise ValueError(
                f"after {places} places the state holds {stored} blocks and {recent} recent places in this "
                f"layer, got {held[0]} and {held[1]}: it is of one with another window or max_blocks"
            )
        blocks = Blocks(*(t[:, :, :stored] for t in self.blocks))
        return LandmarkState(blocks, self.keys[:, :, :recent], self.values[:, :, :recent], self.position)


def attend_from(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    start: int,
    first: int,
    cache: LandmarkCache,
    dropped: int,
    window: int,
) -> Tensor:
    """Attention of the queries at the places `start`, `start + 1`, ...: (B, H, T, d) -> (B, H, T, d).

    Args:
        q: scaled, without positions.
        keys (turned by their place in the block), values: (B, H, R, d), all places from block `first` on.
        cache: the blocks from `dropped` to at least the last that has left the window.
    """
    size, stop = cache.size, start + q.shape[2]
    outputs = []
    with full_precision(q.device):
        for block in range(start // size, -(-stop // size)):
            low, high = max(start, block * size), min(stop, (block + 1) * size)
            nearest = max(0, block - window)
            near = slice((nearest - first) * size, high - first * size)
            outputs.append(
                _attend_block(
                    q[:, :, low - start : high - start],
                    torch.arange(low, high, device=q.device) - block * size,
                    keys[:, :, near],
                    values[:, :, near],
                    cache,
                    until=nearest - dropped,
                )
            )
    return torch.cat(outputs, 2).to(q.dtype)


def _attend_block(
    q: Tensor, places: Tensor, keys: Tensor, values: Tensor, cache: LandmarkCache, *, until: int
) -> Tensor:
    """Attention of queries of one block. keys, values: (B, H, R, d), the near places, their block last."""
    size, queries, dtype = cache.size, q.shape[2], sum_dtype(q.dtype)
    missing = -keys.shape[2] % size  # of the own block, not written yet
    near, mine = (F.pad(t.to(dtype), (0, 0, 0, missing)).unflatten(2, (-1, size)) for t in (keys, values))
    count = near.shape[2]
    fetched = cache.retrieve(q, places=places, gap=count - 1, until=until)
    if fetched is not None:
        fetched = fetched._replace(keys=fetched.keys.to(dtype), values=fetched.values.to(dtype))
    behind = 0 if fetched is None else cache.base(min(until, cache.max_blocks or until))
    # As they look on blocks 0, 1, 2, ... blocks back.
    distances = list(range(count + behind))
    looks = turned_apart(q.to(dtype), cache.turn, places, distances, size)  # (B, H, D, T, d)
    scores = looks[:, :, :count].flip(2) @ near.mT  # (B, H, m, T, L)
    scores = scores.transpose(2, 3)
    if fetched is not None:
        scores = torch.cat((_scores_of(looks, fetched, count + behind - 1), scores), 3)
    weights = _gated(scores, places)  # (B, H, T, k + m, L)
    out = weights[:, :, :, -count:].flatten(3) @ mine.flatten(2, 3)
    if fetched is None:
        return out
    far = weights[:, :, :, :-count]
    if fetched.values.shape[2] == 1:  # shared
        return out + far.flatten(3) @ fetched.values.squeeze(2).flatten(2, 3)
    return out + (far.flatten(3).unsqueeze(3) @ fetched.values.flatten(3, 4)).view(
        *out.shape[:2], queries, -1
    )


def _scores_of(looks: Tensor, fetched: Retrieved, far: int) -> Tensor:
    """Scores of fetched keys, (B, H, T, k, L); slot 0 is seen `far` blocks back, by the last of the looks."""
    width, queries = looks.shape[-1], looks.shape[3]
    back = (far - fetched.slots).expand(-1, -1, queries, -1)  # (B, H, T, k)
    chosen = looks.transpose(2, 3).gather(3, back.unsqueeze(-1).expand(*back.shape, width))
    if fetched.keys.shape[2] == 1:  # shared: one product per block
        return (chosen.transpose(2, 3) @ fetched.keys.squeeze(2).mT).transpose(2, 3)
    return (fetched.keys @ chosen.unsqueeze(-1)).squeeze(-1)


def _gated(scores: Tensor, places: Tensor) -> Tensor:
    """Weights from scores by block, (B, H, T, n, L), the last block the queries' own: section 3.1.

    A softmax in each block, times one over the own tokens and the landmarks of the other blocks.
    """
    size = scores.shape[-1]
    at = torch.arange(size, device=scores.device)
    landmark = at == size - 1
    later = (at > places.unsqueeze(1)) | landmark  # (T, L)
    own = scores[..., -1, :].masked_fill(later, NEG_INF)  # (B, H, T, L)
    others = scores[..., :-1, :].masked_fill(landmark, NEG_INF)
    inner = torch.cat((others, own.unsqueeze(-2)), -2).softmax(-1)
    gates = torch.cat((scores[..., :-1, -1], own.logsumexp(-1, keepdim=True)), -1).softmax(-1)
    return inner * gates.unsqueeze(-1)


def advance(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    state: LandmarkState,
    *,
    age: int,
    make_cache: Callable[[Blocks], LandmarkCache],
    window: int,
) -> tuple[Tensor, LandmarkState]:
    """The next places of streams of one age: outputs (B, H, T, d) and the new state. As `attend_from`."""
    cache = make_cache(state.blocks)
    size = cache.size
    state = state.of_age(age, size=size, window=window, max_blocks=cache.max_blocks)
    cache.blocks = state.blocks
    first = max(0, age // size - window)
    dropped = first - len(cache)
    keys, values = torch.cat((state.keys, keys), 2), torch.cat((state.values, values), 2)
    stop = age + q.shape[2]
    leaving = (max(0, stop // size - window) - first) * size
    cache.extend(keys[:, :, :leaving], values[:, :, :leaving])
    out = attend_from(q, keys, values, start=age, first=first, cache=cache, dropped=dropped, window=window)
    cache.trim()
    assert cache.blocks is not None  # there were some in the state
    # Clones: a view would keep alive what has left.
    keys, values = keys[:, :, leaving:].clone(), values[:, :, leaving:].clone()
    return out, LandmarkState(cache.blocks, keys, values, state.position + q.shape[2])


def empty_state(like: Tensor, *, offload: bool, size: int) -> LandmarkState:
    """The state before the first place. like: (B, H, 0, d)."""
    stored = like.unsqueeze(3).expand(-1, -1, -1, size, -1)
    stored = stored.cpu() if offload else stored
    position = torch.zeros(like.shape[0], dtype=torch.int64, device=like.device)
    return LandmarkState(Blocks(stored, stored, like), like, like, position)
