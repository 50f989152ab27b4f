"""Landmark attention the slow and obvious way; the fast forms are tested against it.

Shapes: B batch, H heads, T queries, S keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo_landmark.layers import LandmarkAttention, LandmarkTokens


def landmark_weights(
    scores: Tensor,
    is_landmark: Tensor,
    hidden: Tensor | None = None,
    query_offset: int | None = None,
    empty_block: str = "drop",
) -> Tensor:
    """Section 3.1 query by query, in float64: groups, a softmax in each, products.

    scores: (B, H, T, S); is_landmark: bool (B, S); hidden: bool, spreads over the scores -> (B, H, T, S).
    """
    scores = scores.double()
    batch, heads, queries, keys = scores.shape
    offset = keys - queries if query_offset is None else query_offset
    hide = torch.zeros(scores.shape, dtype=torch.bool) if hidden is None else hidden.expand(scores.shape)
    rows = [
        _row(scores[b, h, i], is_landmark[b].tolist(), hide[b, h, i].tolist(), offset + i, empty_block)
        for b in range(batch)
        for h in range(heads)
        for i in range(queries)
    ]
    return torch.stack(rows).view(scores.shape) if rows else scores


def _row(scores: Tensor, is_landmark: list[bool], hidden: list[bool], query: int, empty_block: str) -> Tensor:
    """The weights of one query, which stands at key `query`: scores (S,) -> (S,)."""
    section, count = [], 0  # of each key: how many landmarks stand before it
    for landmark in is_landmark:
        section.append(count)
        count += landmark
    own = section[query]
    groups: dict[int, list[int]] = {own: []}  # the visible tokens of each section
    gates: dict[int, int] = {}  # its landmark, if visible; that of the own section is ignored
    for j in range(query + 1):
        if hidden[j]:
            continue
        if not is_landmark[j]:
            groups.setdefault(section[j], []).append(j)
        elif section[j] != own:
            gates[section[j]] = j
    if empty_block == "drop":
        gates = {number: j for number, j in gates.items() if groups.get(number)}
    weights = torch.zeros_like(scores)
    mine = groups[own] + list(gates.values())  # the own group
    if not mine:
        return weights
    shares = scores[mine].softmax(0)  # S_ij
    tokens = len(groups[own])
    weights = weights.index_put((torch.tensor(groups[own], dtype=torch.int64),), shares[:tokens])
    for number, gate in zip(gates, shares[tokens:], strict=True):
        if block := groups.get(number):
            weights = weights.index_put((torch.tensor(block),), scores[block].softmax(0) * gate)
    return weights


def tokens(module: LandmarkTokens, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """`landmark/tokens`, query by query. x: (B, N, D) -> (B, N, D), zeros where `mask` is False."""
    return _layer(module, x, mask, own=False)


def landmark(module: LandmarkAttention, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """`landmark/landmark`, query by query. x: (B, N, D) -> (B, N, D), zeros where `mask` is False."""
    return _layer(module, x, mask, own=True)


def _layer(module: Any, x: Tensor, mask: Tensor | None, *, own: bool) -> Tensor:
    keep = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
    rows = []
    for example, kept in zip(x, keep, strict=True):
        row = torch.zeros_like(example)
        count = int(kept.sum())
        if count:
            packed = torch.cat((example[kept], torch.zeros_like(example[count:])))
            q, k, v = (
                t.unflatten(-1, (module.heads, -1)).transpose(0, 1)
                for t in module.qkv(packed).chunk(3, dim=-1)
            )  # (H, N, d)
            at = list(range(count))  # the places of the kept tokens
            if own:
                k, v = _own_landmarks(module, k, v)
                at = [i + i // (module.size - 1) for i in at]
            mixed = torch.stack([_head(module, at, q, k, v[h], h) for h in range(module.heads)], 1)
            row = row.index_put((kept.nonzero().squeeze(1),), module.out(mixed.flatten(1)))
        rows.append(row)
    return torch.stack(rows)


def _head(module: LandmarkTokens, at: list[int], q: Tensor, k: Tensor, v: Tensor, head: int) -> Tensor:
    """One head's outputs for its queries, which stand at these places.

    q: (H, n, d) and k: (H, M, d) of all heads, which may choose blocks together; v: (M, d). M: all places.
    """
    size = module.size
    scale = q.shape[2] ** -0.5
    found = []
    for i, place in enumerate(at):
        block = place // size
        near = 0 if module.training else max(0, block - module.config.window)
        oldest = 0 if module.config.max_blocks is None else max(0, near - module.config.max_blocks)
        older = list(range(oldest, near))
        base, slots = len(older), {b: s for s, b in enumerate(older)}
        top_k = module.config.top_k
        if top_k is not None and len(older) > top_k:
            base = top_k + 1
            mine = base * size + place - near * size
            together = range(module.heads) if module.config.select == "token" else (head,)
            chances = [_chances(module, q[h, i], k[h], older, mine, top_k) for h in together]
            slots = _fetch(torch.stack(chances).amax(0).tolist(), older, top_k)
        mine = base * size + place - near * size  # where the query thinks it stands
        fetched = [j for b in slots for j in range(b * size, (b + 1) * size)]
        beside = list(range(near * size, place + 1))
        keys = fetched + beside
        where = [slots[j // size] * size + j % size for j in fetched]
        where += [base * size + j - near * size for j in beside]
        scores = _turn(module, k[head, keys], where) @ _turn(module, q[head, i : i + 1], [mine])[0] * scale
        marks = [j % size == size - 1 for j in keys]
        weights = _row(scores, marks, [False] * len(keys), len(keys) - 1, "drop")
        found.append(weights @ v[keys])
    return torch.stack(found)


def _chances(module: LandmarkTokens, q: Tensor, k: Tensor, older: list[int], mine: int, top_k: int) -> Tensor:
    """How well the landmark of each older block fits one head's query (d,), against the others: (blocks,)."""
    size = module.size
    recent = older[len(older) - top_k :]
    keys = k[[b * size + size - 1 for b in older]]
    where = [(recent.index(b) + 1 if b in recent else 0) * size + size - 1 for b in older]
    scores = _turn(module, keys, where) @ _turn(module, q[None], [mine])[0]
    return (scores * q.shape[0] ** -0.5).softmax(0)


def _fetch(chances: list[float], older: list[int], top_k: int) -> dict[int, int]:
    """The blocks that fit best, each with its slot (figure 2 of the paper)."""
    recent = older[len(older) - top_k :]
    best = sorted(sorted(range(len(older)), key=chances.__getitem__)[len(older) - top_k :])
    return {older[n]: rank + (older[n] in recent) for rank, n in enumerate(best)}


def _own_landmarks(module: LandmarkAttention, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (H, n, d) with the layer's landmarks behind each block of tokens."""
    every = module.size - 1
    query = module.landmark_query.view(module.heads, 1, -1)
    keys, values = [], []
    for start in range(0, k.shape[1], every):
        block, said = k[:, start : start + every], v[:, start : start + every]
        keys.append(block)
        values.append(said)
        if block.shape[1] == every:
            read = []
            for head in range(module.heads):
                asked = _turn(module, query[head], [every])[0]
                scores = _turn(module, block[head], list(range(every))) @ asked / k.shape[2] ** 0.5
                read.append(scores.softmax(0) @ said[head])
            made = module.landmark_key(torch.cat(read)).view(module.heads, 1, -1)
            keys.append(made)
            values.append(torch.zeros_like(made))
    return torch.cat(keys, 1), torch.cat(values, 1)


def _turn(module: LandmarkTokens, x: Tensor, where: list[int]) -> Tensor:
    """x: (n, d) turned by places."""
    return x if module.turn is None else module.turn(x[None, None], torch.tensor([where]))[0, 0]
