"""Softmax attention: `core/softmax`, dense or in a sliding window, and its streaming form.

B batch, N queries, M keys, H heads, d head width, W window, D = H d.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.config import SoftmaxConfig
from zoo.layers.init import init_linear
from zoo.layers.norm import make_norm
from zoo.layers.positions import Rotary, position_ids
from zoo.layers.streams import check_state

#: Windows narrower than this share blocks of this many queries: fewer, larger products.
MIN_BLOCK = 32


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    mask: Tensor | None = None,
    dropout_prob: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. (1)) that is told what a query may see.

    Query i stands beside key i + (M - N): keys may reach further back than queries. Causal: it sees no later
    key. Window W: it sees keys nearer than W places, itself included; then time and memory are linear in N.

    Args:
        q: (B, H, N, d).
        k, v: (B, H, M, d), M >= N.
        mask: bool (B, M), True = keep; other keys are never seen.

    Returns:
        (B, H, N, d), zeros for a query that sees no key, and bool (B or 1, N), which queries see one
        (`None`: all do).
    """
    n, m = q.shape[2], k.shape[2]
    if window is not None and window < m and n > 1:
        return _attend_blocked(q, k, v, causal=causal, window=window, mask=mask, dropout_prob=dropout_prob)
    allowed: Tensor | None = None  # bool (B or 1, N, M)
    reach = m if window is None else window
    # A length may be symbolic (torch.export): what holds for every length is asked first.
    if (causal and (mask is not None or (n < m and n > 1))) or reach < m:
        allowed = _band(n, m, ahead=m - n, reach=reach, causal=causal, device=q.device).unsqueeze(0)
    if mask is not None:
        allowed = mask.unsqueeze(1) if allowed is None else allowed & mask.unsqueeze(1)
    is_causal = bool(causal and allowed is None and n == m)
    return _softmax_attention(q, k, v, allowed, is_causal=is_causal, dropout_prob=dropout_prob)


def weights_by_values(attend: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """The attention weights behind a map that is linear in the values, whichever way it computes it.

    Asks it with unit vectors in place of the values, d tokens at a time: N / d calls. For tools that look.

    Args:
        attend: values (B, H, N, d) -> (B, H, N, d).
        values: (B, H, N, d), whose shape and type are taken.

    Returns:
        (B, H, N, N).
    """
    n, d = values.shape[2:]
    one = torch.eye(n, dtype=values.dtype, device=values.device)
    columns = [F.pad(some, (0, d - some.shape[1])) for some in one.split(d, dim=1)]  # (N, d) each
    return torch.cat([attend(some.expand_as(values).contiguous()) for some in columns], -1)[..., :n]


def _attend_blocked(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: int, mask: Tensor | None, dropout_prob: float
) -> tuple[Tensor, Tensor]:
    """The window form: blocks of queries, each with the keys that its first to last query can see."""
    b, n, m = q.shape[0], q.shape[2], k.shape[2]
    size = min(max(window, MIN_BLOCK), n)
    blocks = -(-n // size)
    before, after = window - 1, 0 if causal else window - 1
    span = before + size + after  # keys of a block
    # Padding (cutting, where negative): block 0 starts with the first key it can see, the last one is full.
    left = before - (m - n)
    right = blocks * size - n + after
    if mask is None:
        mask = torch.ones(1, m, dtype=torch.bool, device=q.device)
    keys, values = (
        F.pad(t, (0, 0, left, right)).unfold(2, span, size) for t in (k, v)
    )  # (B, H, n/size, d, span)
    seen = F.pad(mask, (left, right), value=False).unfold(1, span, size)  # (B or 1, n/size, span)
    band = _band(size, span, ahead=before, reach=window, causal=causal, device=q.device)  # (size, span)
    allowed = (seen.unsqueeze(2) & band).expand(b, -1, -1, -1)  # (B, n/size, size, span)
    out, sees = _softmax_attention(
        F.pad(q, (0, 0, 0, blocks * size - n)).unflatten(2, (blocks, size)).transpose(1, 2).flatten(0, 1),
        keys.permute(0, 2, 1, 4, 3).flatten(0, 1),  # (B n/size, H, span, d)
        values.permute(0, 2, 1, 4, 3).flatten(0, 1),
        allowed.flatten(0, 1),
        is_causal=False,
        dropout_prob=dropout_prob,
    )
    assert sees is not None  # because `allowed` was given
    out = out.unflatten(0, (b, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :n]
    return out, sees.unflatten(0, (b, blocks)).flatten(1)[:, :n]


def _softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, *, is_causal: bool, dropout_prob: float
) -> tuple[Tensor, Tensor | None]:
    """`F.scaled_dot_product_attention` with zeros for queries that may see nothing, on every backend."""
    if allowed is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_prob, is_causal=is_causal), None
    sees = allowed.any(-1)  # (B or 1, N)
    # A row without keys would be 0/0: let it see all and drop what it says.
    safe = (allowed | ~sees.unsqueeze(-1)).unsqueeze(1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=safe, dropout_p=dropout_prob)
    return out.masked_fill(~sees[:, None, :, None], 0.0), sees.expand(-1, q.shape[2])


def _band(n: int, m: int, *, ahead: int, reach: int, causal: bool, device: torch.device) -> Tensor:
    """Which key each query may see, bool (N, M): query i stands beside key i + ahead."""
    back = (
        torch.arange(n, device=device)[:, None] + ahead - torch.arange(m, device=device)
    )  # distance to the key
    return (back < reach) & (back > (-1 if causal else -reach))


class KVCache(NamedTuple):
    """What causal streams remember: keys and values (B, H, M, d), tokens that each has seen, int64 (B,).

    keep: bool (B, M), False where a stream has seen fewer tokens than its neighbours; `None`: nowhere.
    """

    keys: Tensor
    values: Tensor
    position: Tensor
    keep: Tensor | None = None

    def put_rows(self, index: Tensor, other: KVCache) -> KVCache:
        """The cache with the rows `index`, int64 (R,), replaced by the R streams of `other`, of any age."""
        tokens = max(self.keys.shape[2], other.keys.shape[2])
        index = index.to(self.keys.device)
        pairs = zip(_padded(self, tokens), _padded(other, tokens), strict=True)
        keys, values, position, keep = (ours.index_copy(0, index, theirs) for ours, theirs in pairs)
        if bool(keep.all()):
            return KVCache(keys, values, position)
        first = (
            int(keep.any(0).int().argmax()) if bool(keep.any()) else tokens
        )  # what no stream needs any more
        keys, values, keep = keys[:, :, first:].clone(), values[:, :, first:].clone(), keep[:, first:].clone()
        return KVCache(keys, values, position, keep)


def _padded(cache: KVCache, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys, values, position and keep with so many places, the new ones in front and not kept."""
    keep = cache.keep
    if keep is None:
        keep = torch.ones(len(cache.keys), cache.keys.shape[2], dtype=torch.bool, device=cache.keys.device)
    more = tokens - cache.keys.shape[2]
    keys, values = (F.pad(t, (0, 0, more, 0)) for t in (cache.keys, cache.values))
    return keys, values, cache.position, F.pad(keep, (more, 0), value=False)


class SoftmaxAttention(nn.Module):
    """Multi-head attention of every token on all others, on earlier ones, or on those in a window."""

    def __init__(
        self,
        config: SoftmaxConfig,
        *,
        width: int,
        heads: int,
        causal: bool,
        max_tokens: int | None = None,
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"core/softmax: heads must divide width, got {heads} heads and width {width}")
        self.config = config
        self.heads = heads
        self.causal = causal
        self.qkv = init_linear(nn.Linear(width, 3 * width, bias=config.bias))
        self.out = init_linear(nn.Linear(width, width, bias=config.bias))
        self.query_norm, self.key_norm = (
            # Henry et al. 2020, "Query-Key Normalization"; with "layer" as in Dehghani et al. 2023 (ViT-22B).
            nn.Identity() if config.qk_norm == "none" else make_norm(config.qk_norm, width=width // heads)
            for _ in range(2)
        )
        self.rotary = rotary

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), mask: bool (B, N), True = keep -> (B, N, D)."""
        q, k, v = self._project(x, position_ids(mask, x.shape[1], device=x.device))
        return self._attend(q, k, v, mask=mask)

    def initial_state(self, batch_size: int) -> KVCache:
        """The state before the first token.

        Raises:
            ValueError: the layer is not causal.
        """
        if not self.causal:
            raise ValueError("core/softmax streams only when built with causal=True: it sees later tokens")
        width = self.out.in_features
        empty = self.out.weight.new_zeros(batch_size, self.heads, 0, width // self.heads)
        return KVCache(empty, empty, torch.zeros(batch_size, dtype=torch.int64, device=empty.device))

    def step(self, x: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        """x: the next C >= 1 tokens (B, C, D) -> (B, C, D) and the new state; equals `forward` on all tokens.

        With a window W the cache holds at most W - 1 tokens.

        Raises:
            ValueError: the state is of another number of streams, another width or another type.
        """
        batch, n = x.shape[:2]
        one = (batch, self.heads, None, self.out.in_features // self.heads)
        shapes = {"keys": one, "values": one, "position": (batch,)}
        check_state(state, KVCache, shapes, dtype=self.out.weight.dtype)
        q, k, v = self._project(x, state.position.unsqueeze(1) + position_ids(None, n, device=x.device))
        k, v = torch.cat((state.keys, k), 2), torch.cat((state.values, v), 2)
        keep = None if state.keep is None else F.pad(state.keep, (0, n), value=True)
        y = self._attend(q, k, v, mask=keep)
        if self.config.window is not None:
            first = max(0, k.shape[2] - (self.config.window - 1))
            k, v = k[:, :, first:].clone(), v[:, :, first:].clone()  # else the view keeps the rest alive
            keep = None if keep is None or bool(keep[:, first:].all()) else keep[:, first:].clone()
        return y, KVCache(k, v, state.position + n, keep)

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, H, N, d) each."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.query_norm(q), self.key_norm(k)
        if self.rotary is not None:
            q, k = self.rotary(q, positions), self.rotary(k, positions)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        out, sees = attend(
            q,
            k,
            v,
            causal=self.causal,
            window=self.config.window,
            mask=mask,
            dropout_prob=self.config.dropout_prob if self.training else 0.0,
        )
        y = self.out(out.transpose(1, 2).flatten(2))  # (B, N, D)
        return y if sees is None else y.masked_fill(~sees.unsqueeze(-1), 0.0)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, causal={self.causal}, window={self.config.window}"
