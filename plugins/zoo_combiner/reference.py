"""Combiner the slow and obvious way, from the partitions of section 4; the fast forms are tested against it.

Shapes: B batch, H heads, N tokens, D channels per head. Query by query, span by span, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo_combiner.base import Combiner

Partition = tuple[list[int], list[list[int]]]


def partition(plan: str, i: int, tokens: int, block_size: int | None, causal: bool) -> Partition:
    """What query i sees directly, and the spans that it sees through one summary each.

    Together they cover all it may see, each token once ("axial_mixture": what is not direct, twice). For
    "axial_rowmajor" the spans are the other rows, in order.
    """
    if plan == "logsparse":
        return _by_halves(i, tokens, causal)
    assert block_size is not None
    seen = range(i + 1) if causal else range(tokens)
    row, column = divmod(i, block_size)

    def where(row_test: object, column_test: object) -> list[int]:
        """Tokens that are seen in a row and a column: a number, or a function of it, or None for any."""

        def holds(test: object, value: int) -> bool:
            return test is None or (test(value) if callable(test) else test == value)

        return [j for j in seen if holds(row_test, j // block_size) and holds(column_test, j % block_size)]

    rows = range(-(-tokens // block_size))
    if plan in ("fixed", "axial_rowmajor"):
        return where(row, None), _some(where(r, None) for r in rows if r != row)
    direct = where(row, None) + where(lambda r: r != row, column)
    vertical = [
        where(side, c)
        for c in range(block_size)
        if c != column
        for side in (lambda r: r < row, lambda r: r > row)
    ]
    horizontal = [
        where(r, side) for r in rows if r != row for side in (lambda c: c < column, lambda c: c > column)
    ]
    spans = {
        "axial_vertical": vertical,
        "axial_horizontal": horizontal,
        "axial_mixture": vertical + horizontal,
    }
    return sorted(direct), _some(spans[plan])


def _by_halves(i: int, tokens: int, causal: bool) -> Partition:
    direct, spans = [i], []
    for level in range((tokens - 1).bit_length()):
        sibling = (i >> level) ^ 1
        if causal and sibling > (i >> level):
            continue
        members = [j for j in range(sibling << level, (sibling + 1) << level) if j < tokens]
        if level == 0:
            direct += members
        else:
            spans.append(members)
    return sorted(direct), _some(spans)


def _some(spans: object) -> list[list[int]]:
    return [span for span in spans if span]  # type: ignore[attr-defined]


def implied(
    q: Tensor,
    k: Tensor,
    *,
    plan: str,
    block_size: int | None,
    causal: bool,
    keep: Sequence[int] | None = None,
    pooling: str = "max",
    span_qk: tuple[Tensor, Tensor] | None = None,
    row_summary: str = "none",
    row_keys: Mapping[tuple[int, int], Tensor] | None = None,
    scale: float | None = None,
) -> Tensor:
    """The attention matrix of one example, q, k (H, N, D) -> (H, N, N), eq. (4) to (9).

    keep: the tokens that are there, `None`: all. row_keys: (H, D) by row and column.
    """
    heads, tokens, width = q.shape
    there = set(range(tokens) if keep is None else keep)
    scale = width**-0.5 if scale is None else scale
    features_q, features_k = (q, k) if span_qk is None else span_qk
    rows = []
    for i in range(tokens):
        direct, spans = partition(plan, i, tokens, block_size, causal)
        if pooling == "none":  # sparse attention of the same pattern
            direct, spans = sorted(direct + _unabstracted(plan, i, spans, block_size)), []
        direct = [j for j in direct if j in there]
        spans = _some([j for j in span if j in there] for span in spans)
        scores = [scale * torch.einsum("hd,hjd->hj", q[:, i], k[:, direct])]
        laws = []  # what each joint weight spreads to: the direct tokens, then the spans
        for span in spans:
            if plan == "axial_rowmajor":
                assert block_size is not None
                place = span[0] // block_size * block_size + i % block_size  # same column, the span's row
                query, key = q[:, place], k[:, place]
            else:
                query, key = _pool(features_q[:, span], pooling), _pool(features_k[:, span], pooling)
            local = (scale * torch.einsum("hd,hjd->hj", query, k[:, span])).softmax(-1)  # p(j | span)
            if plan == "axial_rowmajor" and row_summary == "wsum":
                key = torch.einsum("hj,hjd->hd", local, k[:, span])
            if plan == "axial_rowmajor" and block_size is not None and row_keys is not None:
                key = row_keys[span[0] // block_size, i % block_size]
            scores.append(scale * torch.einsum("hd,hd->h", q[:, i], key).unsqueeze(-1))
            laws.append(local)
        joint = torch.cat(scores, -1)
        joint = joint.softmax(-1) if joint.shape[-1] else joint  # p(direct j | i) and p(span | i)
        row = q.new_zeros(heads, tokens)
        row[:, direct] = joint[:, : len(direct)]
        for weight, span, local in zip(joint[:, len(direct) :].unbind(-1), spans, laws, strict=True):
            spread = q.new_zeros(heads, tokens)
            spread[:, span] = weight.unsqueeze(-1) * local  # p(span | i) p(j | span)
            row = row + spread
        rows.append(row)
    return torch.stack(rows, 1)


def _unabstracted(plan: str, i: int, spans: list[list[int]], block_size: int | None) -> list[int]:
    """What is seen of spans without summaries: the last token of each; of rows, the one in its column."""
    if plan == "axial_rowmajor" and block_size is not None:
        return [j for span in spans for j in span if j % block_size == i % block_size]
    return [span[-1] for span in spans] if plan in ("fixed", "logsparse") else []


def _pool(x: Tensor, pooling: str) -> Tensor:
    """(H, J, D) -> (H, D)."""
    return x.amax(1) if pooling == "max" else x.mean(1)


def layer(module: Combiner, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """A mixer by its implied matrix, example by example: x (B, N, width), mask bool (B, N), True = keep."""
    rows = []
    for index, example in enumerate(x):
        kept = torch.arange(x.shape[1]) if mask is None else mask[index].nonzero().flatten()
        y = x.new_zeros(x.shape[1:])
        rows.append(y.index_copy(0, kept, _example(module, example[kept])) if len(kept) else y)
    return torch.stack(rows)


def _example(module: Combiner, x: Tensor) -> Tensor:
    """x: (N, width) -> (N, width)."""
    tokens, plan, size = len(x), _plan(module), block_size_of(module)
    keep = range(tokens)
    if plan == "axial_rowmajor" and not module.causal:  # missing places ask as the last token does
        assert size is not None
        x = torch.cat((x, x[-1:].expand(-tokens % size, -1)))
    q, k, v = (
        project(x).unflatten(-1, (module.heads, -1)).transpose(0, 1)
        for project in (module.query, module.key, module.value)
    )  # (H, N, D)
    features = None
    if module.span_query is not None and module.span_key is not None:
        features = module.span_query(q).relu(), module.span_key(k).relu()

    rows_are_summed = plan == "axial_rowmajor" and module.pooling != "none"

    def matrix(plan: str) -> Tensor:
        return implied(
            q,
            k,
            plan=plan,
            block_size=size,
            causal=module.causal,
            keep=keep,
            pooling=module.pooling,
            span_qk=features,
            row_keys=_row_keys(module, x, q, k, v, keep) if rows_are_summed else None,
        )

    plans = ("axial_vertical", "axial_horizontal") if plan == "average" else (plan,)
    weights = torch.stack([matrix(plan) for plan in plans]).mean(0)  # (H, N, N)
    return module.out((weights @ v).transpose(0, 1).flatten(1))[:tokens]


def block_size_of(module: Combiner) -> int | None:
    return getattr(module, "block_size", None)


def _plan(module: Combiner) -> str:
    name = {"CombinerFixed": "fixed", "CombinerLogsparse": "logsparse"}.get(type(module).__name__)
    plan = getattr(module.config, "plan", "")
    return name or (plan if plan == "average" else f"axial_{plan}")


def _row_keys(
    module: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor, keep: Sequence[int]
) -> dict[tuple[int, int], Tensor]:
    """The key of each row for each column, (H, D), token by token (spec of the authors' row summaries)."""
    how, size = module.config.row_summary, module.block_size
    keys = {}
    for place in range(len(x)):
        row = [j for j in keep if j // size == place // size]
        law = (torch.einsum("hd,hjd->hj", q[:, place], k[:, row]) / q.shape[-1] ** 0.5).softmax(-1)
        mixed = torch.einsum("hj,hjd->hd", law, (k if how.startswith("wsum") else v)[:, row])
        if how.endswith("proj"):
            hidden = module.row_keys.norm(module.row_keys.inner(mixed.flatten()) + x[place])
            mixed = module.row_keys.outer(hidden).unflatten(0, (module.heads, -1))
        keys[divmod(place, size)] = k[:, place] if how == "none" else mixed
    return keys
