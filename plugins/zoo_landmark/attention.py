"""Attention on places, tokens and landmarks, whatever the projections: what the mixers and a LLaMA share.

B batch, H heads, M places, d channels per head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo_landmark.cache import Blocks, LandmarkCache, Turn, turned
from zoo_landmark.config import FetchConfig
from zoo_landmark.functional import landmark_attention
from zoo_landmark.stream import LandmarkState, advance, attend_from, empty_state


class PlacesAttention(nn.Module):
    """In training a query sees all earlier blocks. In evaluation and in streams it sees the `window` blocks
    before its own, and fetches `top_k` of the older ones; the two agree while there are no more than these.
    """

    def __init__(self, config: FetchConfig, *, heads: int, turn: Turn) -> None:
        super().__init__()
        self.heads = heads
        self.size = config.block + 1
        self.config = config
        self.turn = turn

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, values: Tensor | None = None) -> Tensor:
        """All places of a sequence, (B, H, M, d) each, keys turned by their place in the block.

        values: what is mixed in place of v.
        """
        v = v if values is None else values
        config, total = self.config, q.shape[2]
        fetched = self._limit
        # So far every block is near or fetched: one pass, at true places.
        exact = total if self.training or fetched is None else (config.window + fetched + 1) * self.size
        if exact >= total:
            return self._attend_exactly(q, k, v)
        head = self._attend_exactly(*(t[:, :, :exact] for t in (q, k, v)))
        cache = self._cache(None)
        complete = total // self.size * self.size
        cache.extend(k[:, :, :complete], v[:, :, :complete])
        tail = attend_from(
            self._scaled(q[:, :, exact:]),
            k,
            v,
            start=exact,
            first=0,
            cache=cache,
            dropped=0,
            window=config.window,
        )
        return torch.cat((head, tail), 2)

    def _attend_exactly(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        at = torch.arange(q.shape[2], device=q.device)
        q, k = turned(q, self.turn, at), turned(k, self.turn, at - at % self.size)
        return landmark_attention(q, k, v, block_len=self.config.block)

    def _advance(
        self, q: Tensor, k: Tensor, v: Tensor, state: LandmarkState, age: int
    ) -> tuple[Tensor, LandmarkState]:
        window = self.config.window
        return advance(self._scaled(q), k, v, state, age=age, make_cache=self._cache, window=window)

    @property
    def _limit(self) -> int | None:
        """How many blocks are fetched at most, `None`: all."""
        config = self.config
        return config.max_blocks if config.top_k is None else config.top_k

    def _cache(self, blocks: Blocks | None) -> LandmarkCache:
        config = self.config
        return LandmarkCache(
            block_len=config.block,
            top_k=config.top_k,
            max_blocks=config.max_blocks,
            select=config.select,
            offload="cpu" if config.offload else None,
            turn=self.turn,
            blocks=blocks,
        )

    def _empty(self, like: Tensor) -> LandmarkState:
        """The state before the first place. like: (B, H, 0, d)."""
        return empty_state(like, offload=self.config.offload, size=self.size)

    def _within(self, phase: int, count: int, device: torch.device) -> Tensor:
        """Where in their blocks the next places are, (N,)."""
        return (phase + torch.arange(count, device=device)) % self.size

    def _scaled(self, q: Tensor) -> Tensor:
        return q / math.sqrt(q.shape[-1])
