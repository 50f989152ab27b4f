"""Attention beside a memory: one softmax over persistent tokens and what a token may see of the sequence.

B streams, N queries, M keys, H heads, d channels of each, P persistent tokens, W window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.attention import KVCache
from zoo.layers.init import EMBEDDING_STD, init_linear
from zoo.layers.positions import Rotary, position_ids

#: Windows narrower than this share blocks of this many queries.
MIN_BLOCK = 32

#: Queries (..., N, d), keys (..., M, d), values (..., M, d), and bool (..., N, M), True = sees; `None`: all.
Part = tuple[Tensor, Tensor, Tensor, Tensor | None]


def attend_jointly(parts: Sequence[Part]) -> Tensor:
    """Softmax attention over all parts together, (..., N, d); every query must see something.

    Each part has queries of its own: those turned by their positions for keys that have one, plain ones for
    persistent tokens, which stand nowhere.
    """
    scores = []
    for q, k, _, sees in parts:
        score = q @ k.mT / q.shape[-1] ** 0.5
        scores.append(score if sees is None else score.masked_fill(~sees, float("-inf")))
    weights = torch.cat(scores, -1).softmax(-1).split([s.shape[-1] for s in scores], -1)
    seen = [weight @ v for weight, (_, _, v, _) in zip(weights, parts, strict=True)]
    return torch.stack(seen).sum(0) if len(seen) > 1 else seen[0]


def before(n: int, m: int, *, device: torch.device, window: int | None = None) -> Tensor:
    """Which of m keys the last n of as many tokens may see, bool (N, M): itself and what came before."""
    back = torch.arange(n, device=device)[:, None] + (m - n) - torch.arange(m, device=device)
    return (back >= 0) if window is None else (back >= 0) & (back < window)


class Projections(nn.Module):
    """Queries, keys and values in heads, and the persistent tokens, P learned vectors (eq. 19)."""

    def __init__(self, *, width: int, heads: int, persistent: int, rotary: Rotary | None) -> None:
        super().__init__()
        self.heads = heads
        self.rotary = rotary
        self.qkv = init_linear(nn.Linear(width, 3 * width, bias=False))
        self.persistent = nn.Parameter(torch.empty(persistent, width)) if persistent else None
        if self.persistent is not None:
            nn.init.trunc_normal_(self.persistent, std=EMBEDDING_STD)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, N, D) -> q, k, v (B, H, N, d)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens that ask nothing, x: (B, N, D) -> (B, H, N, d) each."""
        weight = self.qkv.weight[x.shape[-1] :]
        k, v = F.linear(x, weight).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v

    def turn(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (B, H, N, d) turned by its positions (B or 1, N), where there is a rotary module."""
        return x if self.rotary is None else self.rotary(x, positions)


class WindowAttention(Projections):
    """Causal attention in a sliding window, persistent tokens seen by all (figure 3b); not projected."""

    def __init__(
        self, *, width: int, heads: int, persistent: int, rotary: Rotary | None, window: int
    ) -> None:
        super().__init__(width=width, heads=heads, persistent=persistent, rotary=rotary)
        self.window = window

    def attend(
        self, x: Tensor, first: tuple[Tensor, Tensor] | None, cache: KVCache | None = None
    ) -> tuple[Tensor, KVCache]:
        """x: (B, N, D) after what the cache holds -> (B, N, D) and the new cache of at most W - 1 tokens.

        first: keys and values of what all see, (B or 1, H, P, d) each.
        """
        plain, k, v = self(x)
        n = x.shape[1]
        positions = position_ids(None, n, device=x.device)
        keep: Tensor | None = None
        seen = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        if cache is not None:
            seen = cache.position
            positions = positions + seen.unsqueeze(1)
            k = torch.cat((cache.keys, self.turn(k, positions).to(cache.keys.dtype)), 2)
            v = torch.cat((cache.values, v.to(cache.values.dtype)), 2)
            keep = None if cache.keep is None else F.pad(cache.keep, (0, n), value=True)
        else:
            k = self.turn(k, positions)
        y = _attend_window(plain, self.turn(plain, positions), k, v, first, window=self.window, keep=keep)
        old = max(0, k.shape[2] - (self.window - 1))
        k, v = k[:, :, old:].clone(), v[:, :, old:].clone()  # else the view keeps the rest alive
        keep = None if keep is None or bool(keep[:, old:].all()) else keep[:, old:].clone()
        return y.transpose(1, 2).flatten(2), KVCache(k, v, seen + n, keep)

    def empty(self, batch_size: int) -> KVCache:
        """What is cached before the first token."""
        width = self.qkv.in_features
        none = self.qkv.weight.new_zeros(batch_size, self.heads, 0, width // self.heads)
        return KVCache(none, none, torch.zeros(batch_size, dtype=torch.int64, device=none.device))


def _attend_window(
    plain: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: tuple[Tensor, Tensor] | None,
    *,
    window: int,
    keep: Tensor | None,
) -> Tensor:
    """plain, q: (B, H, N, d), k, v: (B, H, M, d) up to the last query, keep: bool (B, M) -> (B, H, N, d)."""
    n, m = q.shape[2], k.shape[2]
    size = min(max(window, MIN_BLOCK), n)
    if n <= size or window >= m:
        sees = before(n, m, device=q.device, window=window)
        if keep is not None:
            sees = sees & keep[:, None, None, :]
        parts: list[Part] = [(q, k, v, sees)]
        return attend_jointly(parts if first is None else [(plain, *first, None), *parts])
    blocks = -(-n // size)
    span = window - 1 + size  # keys of a block
    left, right = window - 1 - (m - n), blocks * size - n
    if keep is None:
        keep = torch.ones(1, m, dtype=torch.bool, device=q.device)
    keys, values = (F.pad(t, (0, 0, left, right)).unfold(2, span, size).mT for t in (k, v))
    kept = F.pad(keep, (left, right), value=False).unfold(1, span, size)  # (B or 1, n/size, span)
    sees = before(size, span, device=q.device, window=window) & kept[:, None, :, None, :]
    # The queries that fill the last block see nothing of their own: let them see themselves.
    own = torch.arange(size, device=q.device)[:, None] + window - 1 == torch.arange(span, device=q.device)
    in_blocks = [F.pad(t, (0, 0, 0, right)).unflatten(2, (blocks, size)) for t in (plain, q)]
    parts = [(in_blocks[1], keys, values, sees | own)]
    if first is not None:
        shared = [t.unsqueeze(2) for t in first]
        parts = [(in_blocks[0], shared[0], shared[1], None), *parts]
    return attend_jointly(parts).flatten(2, 3)[:, :, :n]


class Gate(nn.Module):
    """y (x) m of eq. (25) and (28): both normed with learned weights, SiLU, their product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.memory_norm = nn.RMSNorm(width, eps=1e-6)

    def forward(self, y: Tensor, read: Tensor) -> Tensor:
        """y, read: (B, N, D) -> (B, N, D)."""
        dtype = self.memory_norm.weight.dtype  # under autocast y comes in half precision
        gated = self.attention_norm(y.to(dtype)) * F.silu(self.memory_norm(read.to(dtype)))
        return gated.to(y.dtype)
