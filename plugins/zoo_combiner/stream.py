"""Decoding: what a causal stream must remember in each form, and the next tokens from it.

B batch, H heads, C new tokens, t tokens seen, s tokens per block or row, m finished ones, D channels.
Streams of different ages may stand side by side: `seen`, int64 (B,), says how many tokens each has seen, and
so what of the state is its own; `of_age` cuts that out, and `step` takes streams of one age.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers import of_any_age
from zoo_combiner.axial import axial_attention, sides_of, whole_sides
from zoo_combiner.fixed import Spans, block_spans, fixed_attention
from zoo_combiner.grid import Grid, in_line, make_grid
from zoo_combiner.logsparse import logsparse_attention
from zoo_combiner.rowmajor import rowmajor_attention
from zoo_combiner.span import local_attention, pool

#: Makes what spans are pooled from out of queries and keys.
Features = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
#: Makes the keys and values of rows out of the rows and the layer's inputs, (B, rows s, width).
Summarise = Callable[[Grid, Tensor], tuple[Tensor, Tensor]]


@of_any_age
class FixedCombinerCache(NamedTuple):
    """The open block, queries included, (B, H, < s, D); a key and a value per finished block, (B, H, m, D).

    A token costs s + m products, and memory grows by two vectors per block: s times slower than a KV cache.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    span_keys: Tensor
    span_values: Tensor
    seen: Tensor

    def of_age(self, age: int, block_size: int) -> FixedCombinerCache:
        done, is_open = divmod(age, block_size)
        return FixedCombinerCache._make(_cut(self, (is_open,) * 3 + (done,) * 2))

    def step(
        self, q: Tensor, k: Tensor, v: Tensor, *, block_size: int, pooling: str, features: Features
    ) -> tuple[Tensor, FixedCombinerCache]:
        """The next tokens, (B, H, C, D) each -> their outputs (B, H, C, D) and the new cache."""
        seen = self.keys.shape[2]
        new, q, k, v = q, _cat(self.queries, q), _cat(self.keys, k), _cat(self.values, v)
        done = k.shape[2] // block_size
        grid = make_grid(q, k, v, columns=block_size, causal=True, pooling=pooling, span_qk=features(q, k))
        spans = Spans(self.span_keys, self.span_values)
        if done:
            fresh = block_spans(grid.part(0, done))
            spans = Spans(_cat(spans.keys, fresh.keys), _cat(spans.values, fresh.values))
        if new.shape[2] == 1:  # the spans from before: a block is no span for its own last token
            out = _one_query(new, _cat(k, self.span_keys), _cat(v, self.span_values))
        else:
            out = fixed_attention(grid, spans, first=self.span_keys.shape[2])
            out = in_line(out, k.shape[2])[:, :, seen:]
        q, k, v = (_from(x, done * block_size) for x in (q, k, v))
        return out, FixedCombinerCache(q, k, v, spans.keys, spans.values, self.seen + new.shape[2])


@of_any_age
class RowCache(NamedTuple):
    """The open row (inputs (B, 1, < s, width), queries, keys, values), and of each finished row a key and a
    value per column, (B, H, m, s, D): two vectors per token, like a KV cache, but s + m products.
    """

    inputs: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    row_keys: Tensor
    row_values: Tensor
    seen: Tensor

    def of_age(self, age: int, block_size: int) -> RowCache:
        done, is_open = divmod(age, block_size)
        return RowCache._make(_cut(self, (is_open,) * 4 + (done,) * 2))

    def step(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, *, block_size: int, summarise: Summarise
    ) -> tuple[Tensor, RowCache]:
        """The next tokens, x (B, C, width) and q, k, v (B, H, C, D) -> (B, H, C, D) and the new cache."""
        seen, new = self.keys.shape[2], q
        inputs = _cat(self.inputs, x.unsqueeze(1))
        q, k, v = _cat(self.queries, q), _cat(self.keys, k), _cat(self.values, v)
        done = k.shape[2] // block_size
        grid = make_grid(q, k, v, columns=block_size, causal=True, span_qk=(q, k))
        keys, values = self.row_keys, self.row_values
        if done:
            fresh_keys, fresh_values = summarise(grid.part(0, done), inputs[:, 0, : done * block_size])
            keys, values = _cat(keys, fresh_keys), _cat(values, fresh_values)
        if new.shape[2] == 1:
            column = self.row_keys[:, :, :, seen], self.row_values[:, :, :, seen]  # (B, H, m, D) each
            out = _one_query(new, _cat(k, column[0]), _cat(v, column[1]))
        else:
            out = rowmajor_attention(grid, keys, values, first=self.row_keys.shape[2])
            out = in_line(out, k.shape[2])[:, :, seen:]
        inputs, q, k, v = (_from(t, done * block_size) for t in (inputs, q, k, v))
        return out, RowCache(inputs, q, k, v, keys, values, self.seen + new.shape[2])


@of_any_age
class AxialCache(NamedTuple):
    """All queries, keys and values (B, H, t, D), and of finished rows what lies left and right of each place,
    (B, H, m, s, D) each, where the plan sees rows through summaries; else of no row.

    A step works on whole rows: about as many products as a KV cache needs, with 1.5 to 3.5 times its memory.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    before_keys: Tensor
    before_values: Tensor
    after_keys: Tensor
    after_values: Tensor
    seen: Tensor

    def of_age(self, age: int, block_size: int) -> AxialCache:
        return AxialCache._make(_cut(self, (age,) * 3 + (age // block_size,) * 4))

    def step(
        self, q: Tensor, k: Tensor, v: Tensor, *, plan: str, block_size: int, pooling: str, features: Features
    ) -> tuple[Tensor, AxialCache]:
        """The next tokens, (B, H, C, D) each -> their outputs (B, H, C, D) and the new cache.

        plan: as `axial_attention`, or "axial_average", the mean of vertical and horizontal.
        """
        seen, count = self.keys.shape[2], q.shape[2]
        q, k, v = _cat(self.queries, q), _cat(self.keys, k), _cat(self.values, v)
        grid = make_grid(q, k, v, columns=block_size, causal=True, pooling=pooling, span_qk=features(q, k))
        done, first = k.shape[2] // block_size, seen // block_size
        sides: Sequence[Tensor] = self[3:7]
        if plan != "axial_vertical" and pooling != "none" and done > first:
            fresh = sides_of(grid.part(first, done))
            added = (fresh.before_keys, fresh.before_values, fresh.after_keys, fresh.after_values)
            sides = [_cat(old, new) for old, new in zip(sides, added, strict=True)]
        plans = ("axial_vertical", "axial_horizontal") if plan == "axial_average" else (plan,)
        mixed = [axial_attention(grid, plan=one, first=first, row_sides=whole_sides(*sides)) for one in plans]
        out = in_line(torch.stack(mixed).mean(0), k.shape[2] - first * block_size)
        return out[:, :, seen - first * block_size :], AxialCache._make([q, k, v, *sides, self.seen + count])


@of_any_age
class LogsparseCache(NamedTuple):
    """All queries, keys and values (B, H, t, D), and a key and a value per binary digit of t that is set.

    Summaries cannot be merged from smaller ones, for the pooled query weighs all members anew: hence the
    queries. A token costs log2 t products, and on average as many again to make new summaries.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    span_keys: Tensor
    span_values: Tensor
    seen: Tensor

    def of_age(self, age: int) -> LogsparseCache:
        return LogsparseCache._make(_cut(self, (age,) * 3 + (age.bit_count(),) * 2))

    def step(
        self, q: Tensor, k: Tensor, v: Tensor, *, pooling: str, features: Features
    ) -> tuple[Tensor, LogsparseCache]:
        """The next tokens, (B, H, C, D) each -> their outputs (B, H, C, D) and the new cache.

        Many tokens at once are cheaper in parallel with all earlier ones.
        """
        new = q.shape[2]
        if new > _FEW:
            q, k, v = _cat(self.queries, q), _cat(self.keys, k), _cat(self.values, v)
            out = logsparse_attention(
                q, k, v, causal=True, key_mask=None, pooling=pooling, span_qk=features(q, k)
            )
            spans = _binary_spans(q, k, v, pooling, features)
            return out[:, :, -new:], LogsparseCache(q, k, v, *spans, self.seen + new)
        cache, outputs = self, []
        for one in zip(*(x.split(1, 2) for x in (q, k, v)), strict=True):
            out, cache = cache._one(*one, pooling=pooling, features=features)
            outputs.append(out)
        return torch.cat(outputs, 2), cache

    def _one(
        self, q: Tensor, k: Tensor, v: Tensor, *, pooling: str, features: Features
    ) -> tuple[Tensor, LogsparseCache]:
        out = _one_query(q, _cat(self.span_keys, k), _cat(self.span_values, v))
        q, k, v = _cat(self.queries, q), _cat(self.keys, k), _cat(self.values, v)
        tokens = k.shape[2]
        size = tokens & -tokens  # the new node, which replaces as many as it has halves
        kept = (tokens - size).bit_count()
        key, value = _span(q[:, :, -size:], k[:, :, -size:], v[:, :, -size:], pooling, features)
        keys, values = _cat(self.span_keys[:, :, :kept], key), _cat(self.span_values[:, :, :kept], value)
        return out, LogsparseCache(q, k, v, keys, values, self.seen + 1)


#: Up to this many new tokens are taken one by one.
_FEW = 4


def _binary_spans(q: Tensor, k: Tensor, v: Tensor, pooling: str, features: Features) -> tuple[Tensor, Tensor]:
    """The summaries of [0, t), cut as t is into powers of two: keys and values (B, H, digits set, D)."""
    tokens, start = k.shape[2], 0
    keys, values = [], []
    for level in reversed(range(tokens.bit_length())):
        size = 1 << level
        if tokens & size:
            span = slice(start, start + size)
            key, value = _span(q[:, :, span], k[:, :, span], v[:, :, span], pooling, features)
            keys.append(key)
            values.append(value)
            start += size
    return torch.cat(keys, 2), torch.cat(values, 2)


def _span(q: Tensor, k: Tensor, v: Tensor, pooling: str, features: Features) -> tuple[Tensor, Tensor]:
    """The summary of one span, (B, H, size, D) -> key and value (B, H, 1, D); a token stands for itself."""
    if k.shape[2] == 1:
        return k, v
    if pooling == "none":
        return k[:, :, -1:], v[:, :, -1:]
    pool_q, pool_k = (pool(x, None, pooling).unsqueeze(2) for x in features(q, k))
    value = local_attention(*(x.unsqueeze(2) for x in (pool_q, k, v)), valid=None).squeeze(2)
    return pool_k, value


def _one_query(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain attention of one token, q (B, H, 1, D), on tokens and summaries."""
    return F.scaled_dot_product_attention(q, k, v)


def _cut(parts: Sequence[Tensor], places: Sequence[int]) -> list[Tensor]:
    """The first places of each part (B, H, n, *), and the last part as it is."""
    return [*(x[:, :, :n] for x, n in zip(parts[:-1], places, strict=True)), parts[-1]]


def _cat(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat((old, new), 2)


def _from(x: Tensor, start: int) -> Tensor:
    """What is left of an open block; a copy, for a view would keep the rest alive."""
    return x[:, :, start:].clone()
