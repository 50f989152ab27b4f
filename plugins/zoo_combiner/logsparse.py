"""Combiner-Logsparse: of the past as many spans as its length has binary digits, each twice the one after it.

B batch, H heads, N tokens, P = 2^levels >= N places, D channels. A node of level l holds the 2^l tokens whose
numbers agree but for the last l bits; P / 2^l of them, in pairs of siblings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_combiner.span import last
NEG_INF=float('-inf')


class Nodes(NamedTuple):
    """Summaries of a level's nodes: keys, values (B, H, P / 2^l, D); valid bool (B, 1, P / 2^l) or all."""

    keys: Tensor
    values: Tensor
    valid: Tensor | None


def logsparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    key_mask: Tensor | None,
    pooling: str,
    span_qk: tuple[Tensor, Tensor],
    dropout_p: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """q (scaled), k, v: (B, H, N, D), key_mask: bool (B, N) -> (B, H, N, D).

    Token i sees itself, and at each level l the sibling of its node; causal: where that comes before it,
    which is where bit l of i is set. So [0, i) falls into spans as i into powers of two.
    """
    tokens = q.shape[2]
    places = 2 ** (tokens - 1).bit_length()
    if key_mask is None and not causal and places > tokens:
        key_mask = torch.ones(1, tokens, dtype=torch.bool, device=q.device)
    valid = None if key_mask is None else F.pad(key_mask, (0, places - tokens), value=False).unsqueeze(1)
    q, k, v, pool_q, pool_k = (F.pad(x, (0, 0, 0, places - tokens)) for x in (q, k, v, *span_qk))
    levels = _levels(k, v, pool_q, pool_k, valid, pooling=pooling)
    scores = [
        _masked((q * k).sum(-1), valid),
        *(_sibling_scores(q, nodes, causal=causal) for nodes in levels),
    ]
    weights = _softmax(torch.stack(scores, -1))  # (B, H, P, levels + 1)
    if dropout_p:
        weights = F.dropout(weights, dropout_p)
    own, *others = weights.to(v.dtype).unbind(-1)
    out = own.unsqueeze(-1) * v
    for weight, nodes in zip(others, levels, strict=True):
        out = _with_siblings(out, weight, nodes)
    return out[:, :, :tokens]


def _levels(
    k: Tensor,
    v: Tensor,
    pool_q: Tensor,
    pool_k: Tensor,
    valid: Tensor | None,
    *,
    pooling: str,
) -> list[Nodes]:
    """The summaries of every level, from single tokens on."""
    levels: list[Nodes] = []
    pooled = Pooled.of(pool_q, pool_k, valid, pooling)
    size = 1
    while 2 * size <= k.shape[2]:
        members_k, members_v = (
            k.unflatten(2, (-1, size)),
            v.unflatten(2, (-1, size)),
        )  # (B, H, nodes, size, D)
        members = None if valid is None else valid.unflatten(2, (-1, size))  # (B, 1, nodes, size)
        some = None if members is None else members.any(-1)
        if size == 1 or pooling == "none":  # a single token stands for itself
            levels.append(Nodes(last(members_k, members), last(members_v, members), some))
        else:
            pooled = pooled.pairwise()
            query, key = pooled.finished()
            local = _masked((members_k @ query.unsqueeze(-1)).squeeze(-1), members)  # (B, H, nodes, size)
            law = _softmax(local).to(v.dtype)
            levels.append(Nodes(key, (law.unsqueeze(-2) @ members_v).squeeze(-2), some))
        size *= 2
    return levels


class Pooled(NamedTuple):
    """Queries and keys pooled over nodes, (B, H, nodes, D): their sums for means, else their maxima.

    present: how many tokens a node holds, (B, 1, nodes, 1); `None`: as many as it has places.
    """

    queries: Tensor
    keys: Tensor
    present: Tensor | None
    size: int
    pooling: str

    @classmethod
    def of(cls, queries: Tensor, keys: Tensor, valid: Tensor | None, pooling: str) -> Pooled:
        if valid is None:
            return cls(queries, keys, None, 1, pooling)
        absent = ~valid.unsqueeze(-1)
        empty = 0.0 if pooling == "mean" else NEG_INF
        return cls(
            queries.masked_fill(absent, empty), keys.masked_fill(absent, empty), (~absent).long(), 1, pooling
        )

    def pairwise(self) -> Pooled:
        """One level up."""

        def join(x: Tensor) -> Tensor:
            pairs = x.unflatten(2, (-1, 2))
            return pairs.sum(3) if self.pooling == "mean" else pairs.amax(3)

        present = None if self.present is None else self.present.unflatten(2, (-1, 2)).sum(3)
        return Pooled(join(self.queries), join(self.keys), present, 2 * self.size, self.pooling)

    def finished(self) -> tuple[Tensor, Tensor]:
        """The pooled query and key of each node, 0 where it holds nothing."""
        if self.pooling == "mean":
            count = self.size if self.present is None else self.present.clamp_min(1)
            return self.queries / count, self.keys / count
        if self.present is None:
            return self.queries, self.keys
        return self.queries.masked_fill(self.present == 0, 0.0), self.keys.masked_fill(self.present == 0, 0.0)


def _siblings(x: Tensor) -> Tensor:
    """Each node's sibling: (B, H, nodes, *) -> the same with neighbours exchanged."""
    return x.unflatten(2, (-1, 2)).flip(3).flatten(2, 3)


def _sibling_scores(q: Tensor, nodes: Nodes, *, causal: bool) -> Tensor:
    """Scores of every token and the sibling of its node, (B, H, P); -inf where there is nothing to see."""
    count = nodes.keys.shape[2]
    scores = (q.unflatten(2, (count, -1)) @ _siblings(nodes.keys).unsqueeze(-1)).squeeze(-1)
    hidden = torch.zeros(count, 1, dtype=torch.bool, device=q.device)  # (nodes, 1)
    if causal:
        hidden[::2] = True  # the sibling of a left node comes after it
    if nodes.valid is not None:
        hidden = hidden | ~_siblings(nodes.valid).unsqueeze(-1)
    return scores.masked_fill(hidden, NEG_INF).flatten(2)


def _with_siblings(out: Tensor, weight: Tensor, nodes: Nodes) -> Tensor:
    """out (B, H, P, D) plus what each token takes from its sibling, by weight (B, H, P); one product."""
    size = out.shape[2] // nodes.values.shape[2]
    values = _siblings(nodes.values).reshape(-1, 1, out.shape[3])  # (B H nodes, 1, D)
    weight = weight.reshape(-1, size, 1)
    return torch.baddbmm(out.reshape(-1, size, out.shape[3]), weight, values).view(out.shape)


def _masked(scores: Tensor, valid: Tensor | None) -> Tensor:
    return scores if valid is None else scores.masked_fill(~valid, NEG_INF)


def _softmax(scores: Tensor) -> Tensor:
    """Softmax in float32 at least; zeros where all scores are -inf."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    nothing = (scores == NEG_INF).all(-1, keepdim=True)
    return scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
