"""Blocks that went by, and which of them a query fetches (Mohtashami and Jaggi 2023, section 3.2).

B streams, H heads, T queries, n blocks of L places each (the last one a landmark), d channels, k fetched.

Rotary positions turn a query and a key by their places; only the difference counts. So keys are turned by
their place within the block alone, once, and a query is turned by its distance from the block that it is
compared with: k + 1 turned queries stand for all the places that fetched blocks can be given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.layers.precision import sum_dtype
from zoo_landmark import checks

#: Turns (B, H, N, d) by places, int (B or 1, N), as `zoo.layers.Rotary` does; `None`: no positions.
Turn = Callable[[Tensor, Tensor], Tensor] | None
Select = Literal["token_head", "token", "head"]


class Blocks(NamedTuple):
    """Keys, turned by their place in the block, and values (B, H, n, L, d); the landmarks' keys (B, H, n, d).

    With offload the first two lie in CPU memory.
    """

    keys: Tensor
    values: Tensor
    landmarks: Tensor


class Retrieved(NamedTuple):
    """The blocks that queries fetch, in order of age.

    keys (as in `Blocks`), values: (B, H, T or 1, k, L, d): 1 where all queries share them.
    slots: which of the places 0..k for blocks each is given, int64 (B, H, T or 1, k).
    chosen: which of the cached blocks they are, of the same shape.
    """

    keys: Tensor
    values: Tensor
    slots: Tensor
    chosen: Tensor


class LandmarkCache:
    """Blocks of streams of one age.

    Places are stingy (figure 2): however many blocks there are, queries stand at most k + 1 blocks behind the
    beginning. Of n > k blocks the last k have the slots 1..k, all older ones share slot 0; the r-th of the
    fetched ones, by age, then gets slot r, and slot r + 1 if it is one of the last k, so that an empty slot
    parts old from recent. With n <= k all are fetched, at their true places.
    """

    def __init__(
        self,
        *,
        block_len: int,
        top_k: int | None,
        max_blocks: int | None = None,
        select: Select = "token_head",
        offload: Literal["cpu"] | None = None,
        turn: Turn = None,
        blocks: Blocks | None = None,
    ) -> None:
        """Every argument as in `LandmarkConfig`; `select="head"`: one choice for all queries of a call, which
        thereby see a little of each other.

        Raises:
            ValueError: a number out of range, or an unknown choice.
        """
        checks.cache_options(block_len, top_k, max_blocks, select, offload)
        self.size = block_len + 1
        self.top_k = top_k
        self.max_blocks = max_blocks
        self.select = select
        self.offload = offload
        self.turn = turn
        self.blocks = blocks

    def __len__(self) -> int:
        """The number of blocks."""
        return 0 if self.blocks is None else self.blocks.landmarks.shape[2]

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Add complete blocks, landmarks last, and drop the oldest beyond `max_blocks`.

        keys: without positions, (B, H, m L, d); values: (B, H, m L, d).

        Raises:
            ValueError: no whole number of blocks, or tensors that do not fit those cached.
        """
        checks.blocks(keys, values, self.size, self.blocks)
        within = torch.arange(keys.shape[2], device=keys.device) % self.size
        self.extend(turned(keys, self.turn, within), values)
        self.trim()

    def extend(self, keys: Tensor, values: Tensor) -> None:
        """As `append`, for keys that are turned by their place in the block; drops nothing."""
        if keys.shape[2] == 0 and self.blocks is not None:
            return
        keys, values = (t.unflatten(2, (t.shape[2] // self.size, self.size)) for t in (keys, values))
        fresh = Blocks(self._store(keys), self._store(values), keys[:, :, :, -1])
        old = self.blocks
        self.blocks = (
            fresh if old is None else Blocks(*(torch.cat(pair, 2) for pair in zip(old, fresh, strict=True)))
        )

    def trim(self) -> None:
        """Drop the oldest blocks beyond `max_blocks`."""
        if self.blocks is not None and self.max_blocks is not None and len(self) > self.max_blocks:
            first = len(self) - self.max_blocks
            self.blocks = Blocks(*(t[:, :, first:].clone() for t in self.blocks))  # a view would keep all

    def base(self, count: int | None = None) -> int:
        """How many blocks queries think went by, of `count` (default: all)."""
        count = len(self) if count is None else count
        return count if self.top_k is None or count <= self.top_k else self.top_k + 1

    def start_position(self) -> int:
        """The place of the first key behind the cached blocks, for whoever turns keys by places."""
        return self.base() * self.size

    def retrieve(
        self, q: Tensor, *, places: Tensor, gap: int = 0, until: int | None = None
    ) -> Retrieved | None:
        """The blocks that queries of one block fetch; `None` where there are none.

        Args:
            q: without positions, scaled, (B, H, T, d).
            places: where in their block they stand, int64 (T,).
            gap: blocks between the cached ones and theirs.
            until: only the first so many blocks are looked at.

        Raises:
            ValueError: other streams, heads, channels or another type than those cached.
        """
        if self.blocks is None or self.top_k == 0 or until == 0:
            return None
        checks.query(q, self.blocks.landmarks)
        until = len(self) if until is None else until
        first = 0 if self.max_blocks is None else max(0, until - self.max_blocks)
        count = until - first
        if count == 0:
            return None
        if self.top_k is None or count <= self.top_k:
            slots = torch.arange(count, device=q.device).expand(*q.shape[:2], 1, -1)
            keys, values = (
                t[:, :, first:until].to(q.device, non_blocking=True).unsqueeze(2) for t in self.blocks[:2]
            )
            return Retrieved(keys, values, slots, slots + first)
        k = self.top_k
        scores = self._landmark_scores(q, places, k + 1 + gap, self.blocks.landmarks[:, :, first:until], k)
        index = self._pick(scores, k)
        slots = torch.arange(k, device=q.device) + (index >= count - k)
        index = index + first
        return Retrieved(
            self._fetch(self.blocks.keys, index), self._fetch(self.blocks.values, index), slots, index
        )

    def reset(self) -> None:
        """Forget all blocks."""
        self.blocks = None

    def reorder(self, rows: Tensor) -> None:
        """Keep these streams, int64 (B',), in this order: beam search."""
        if self.blocks is not None:
            self.blocks = Blocks(*(t.index_select(0, rows.to(t.device)) for t in self.blocks))

    def state_dict(self) -> dict[str, Tensor]:
        """The blocks as named tensors; empty where there are none."""
        return {} if self.blocks is None else self.blocks._asdict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """What `state_dict` gave."""
        self.blocks = Blocks(**state) if state else None

    def device_bytes(self) -> int:
        """Bytes that must stay where queries are: with offload, those of the landmarks alone."""
        if self.blocks is None:
            return 0
        kept = self.blocks[2:] if self.offload else self.blocks
        return sum(t.numel() * t.element_size() for t in kept)

    def _store(self, t: Tensor) -> Tensor:
        if self.offload is None:
            return t
        return t.cpu().pin_memory() if t.is_cuda else t

    def _landmark_scores(self, q: Tensor, places: Tensor, far: int, landmarks: Tensor, k: int) -> Tensor:
        """How well each landmark fits each query, (B, H, T, n); slot 0 lies `far` blocks back."""
        dtype = sum_dtype(q.dtype)
        distances = [far - slot for slot in range(k + 1)]
        queries = turned_apart(q.to(dtype), self.turn, places, distances, self.size)
        count, landmarks = landmarks.shape[2], landmarks.to(dtype)
        older = queries[:, :, 0] @ landmarks[:, :, : count - k].mT  # (B, H, T, n - k)
        last = (queries[:, :, 1:] * landmarks[:, :, count - k :].unsqueeze(3)).sum(-1)  # (B, H, k, T)
        return torch.cat((older, last.mT), -1)

    def _pick(self, scores: Tensor, k: int) -> Tensor:
        """The k best of (B, H, T, n), by age: (B, H, T or 1, k). Of equal ones the most recent."""
        scores = scores.detach()
        if self.select == "token":
            scores = scores.softmax(-1).amax(1, keepdim=True)
        elif self.select == "head":
            scores = scores.softmax(-1).amax(2, keepdim=True)
        # Equal landmarks (all are, in the first layer) differ by rounding only, here so and there so:
        # recency counts a little more than that.
        count = scores.shape[-1]
        little = 64 * torch.finfo(scores.dtype).eps * scores.abs().amax(-1, keepdim=True)
        scores = scores + little * torch.arange(count, device=scores.device)
        index = scores.topk(k).indices.sort(-1).values
        return index.expand(-1, self.blocks.landmarks.shape[1] if self.blocks else -1, -1, -1)

    def _fetch(self, stored: Tensor, index: Tensor) -> Tensor:
        """stored: (B, H, n, L, d); index: (B, H, T, k) -> (B, H, T, k, L, d)."""
        batch, heads, count = stored.shape[:3]
        row = torch.arange(batch * heads, device=index.device).view(batch, heads, 1, 1)
        flat = (row * count + index).flatten().to(stored.device)
        found = stored.flatten(0, 2).index_select(0, flat).to(index.device, non_blocking=True)
        return found.unflatten(0, index.shape)


def turned(x: Tensor, turn: Turn, places: Tensor) -> Tensor:
    """x: (B, H, N, d) turned by places (N,)."""
    return x if turn is None else turn(x, places.unsqueeze(0))


def turned_apart(q: Tensor, turn: Turn, places: Tensor, distances: list[int], size: int) -> Tensor:
    """Queries (B, H, T, d) at places (T,) of their block, as they look on blocks so many blocks back.

    Returns (B, H, len(distances), T, d).
    """
    if turn is None:
        return q.unsqueeze(2).expand(-1, -1, len(distances), -1, -1)
    back = torch.tensor(distances, device=q.device) * size
    at = (back.unsqueeze(1) + places).flatten()  # (D T,)
    wide = q.unsqueeze(2).expand(-1, -1, len(distances), -1, -1).flatten(2, 3)
    return turn(wide, at.unsqueeze(0)).unflatten(2, (len(distances), -1))
