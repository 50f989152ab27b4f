"""Combiner attention: full attention whose far tokens are reached through summaries of spans.

Shapes: B batch, H heads, N tokens, D channels per head, s tokens per block (row), n = ceil(N / s) blocks.
Each form lives in its own module: fixed, logsparse, axial, rowmajor. Source: Ren et al. 2021,
https://arxiv.org/abs/2107.05768; equation numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo_combiner import checks
from zoo_combiner.axial import axial_attention
from zoo_combiner.fixed import block_spans, fixed_attention, fixed_attention_in_one_call
from zoo_combiner.grid import Grid, default_block_size, in_line, make_grid
from zoo_combiner.logsparse import logsparse_attention
from zoo_combiner.rowmajor import row_keys_wsum, row_values, rowmajor_attention


def combiner_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plan: str = "fixed",
    block_size: int | None = None,
    causal: bool = True,
    key_mask: Tensor | None = None,
    pooling: str = "max",
    span_qk: tuple[Tensor, Tensor] | None = None,
    row_summary: str = "none",
    row_keys: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    impl: str = "auto",
) -> Tensor:
    """Attention over all tokens (all earlier ones, if causal) in less than quadratic time and memory.

    Args:
        q, k, v: (B, H, N, D).
        plan: how the tokens that a query does not see directly fall into spans: "fixed", "logsparse",
            "axial_rowmajor", "axial_vertical", "axial_horizontal", or "axial_mixture" (the last two in one
            softmax, as the authors' code has it).
        block_size: tokens per block or row; `None`: the power of two nearest to sqrt(N).
        key_mask: bool (B, N), True = keep; other tokens are in no span and never seen. Positions count all.
        pooling: how a span's query and key are made from its tokens', "max" or "mean". "none": spans are not
            summarised; of each only one token is seen, the last (row-major: the one in the query's column),
            in the other axial plans none. That is sparse attention of the same pattern, to compare with.
        span_qk: what they are made from instead of q and k, two tensors (B, H, N, D); for DeepSets
            relu(q W_q) and relu(k W_k). The row-major plan pools nothing.
        row_summary: what the row-major plan takes as key of a row: "none", the key of its token in the same
            column; "wsum", the keys of the row weighted as its values are; "proj", "wsum_proj": `row_keys`.
        row_keys: (B, n, s, H, D), those keys.
        scale: factor of all scores; `None`: 1 / sqrt(D).
        dropout_p: dropout of the joint weights, whenever it is not 0.
        impl: "einsum", plain operations; "sdpa", one call of torch's attention ("fixed" only); "auto",
            torch's attention kernel where it helps, which keeps no weights.

    Returns:
        (B, H, N, D); zeros for a query that may see nothing.

    Raises:
        ValueError: arguments that do not fit each other; which, what was given and what would be right.
    """
    checks.queries_keys_values(q, k, v)
    checks.options(
        plan=plan, block_size=block_size, pooling=pooling, scale=scale, dropout_p=dropout_p, impl=impl
    )
    tokens = q.shape[2]
    columns = default_block_size(tokens) if block_size is None else min(block_size, tokens)
    if key_mask is not None:
        checks.mask_fits(key_mask, q)
    if span_qk is not None:
        checks.span_features(span_qk, q)
    if plan == "axial_rowmajor":
        checks.rows_fit(
            q, columns=columns, causal=causal, key_mask=key_mask, row_summary=row_summary, row_keys=row_keys
        )
    if key_mask is not None:  # whatever absent tokens hold, even NaN, is not looked at
        q, k, v = (x.masked_fill(~key_mask[:, None, :, None], 0.0) for x in (q, k, v))
    dtype = v.dtype
    span_qk = (q, k) if span_qk is None else span_qk
    fused = impl != "einsum"
    if plan == "logsparse":
        return logsparse_attention(
            q,
            k,
            v,
            causal=causal,
            key_mask=key_mask,
            pooling=pooling,
            span_qk=span_qk,
            scale=scale,
            dropout_p=dropout_p,
            fused=fused,
        ).to(dtype)
    grid = make_grid(
        q,
        k,
        v,
        columns=columns,
        causal=causal,
        key_mask=key_mask,
        pooling=pooling,
        span_qk=span_qk,
        scale=scale,
    )
    if impl == "sdpa" or (plan == "fixed" and fused and q.device.type != "cpu"):
        out = fixed_attention_in_one_call(grid, block_spans(grid.asked()), dropout_p=dropout_p)
    elif plan == "fixed":
        out = fixed_attention(grid, block_spans(grid.asked()), dropout_p=dropout_p, fused=fused)
    elif plan == "axial_rowmajor":
        keys, values, valid = _row_summaries(grid.asked(), row_summary=row_summary, row_keys=row_keys)
        out = rowmajor_attention(grid, keys, values, valid=valid, dropout_p=dropout_p, fused=fused)
    else:
        out = axial_attention(grid, plan=plan, dropout_p=dropout_p, fused=fused)
    return in_line(out, tokens).to(dtype)


def combiner_mixture(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plans: Sequence[str],
    weights: Sequence[float] | None = None,
    block_size: int | None = None,
    causal: bool = True,
    key_mask: Tensor | None = None,
    pooling: str = "max",
    span_qk: tuple[Tensor, Tensor] | None = None,
    row_summary: str = "none",
    row_keys: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """The paper's mixture: the mean of the attention of several plans over the same q, k, v (section 3.3).

    weights: of the plans, above 0 and with sum 1; `None`: all alike. Else as `combiner_attention`;
    `block_size` goes to the plans that have one.
    """
    if not plans or isinstance(plans, str):
        raise ValueError(f"plans must be a list of at least one plan, got {plans!r}")
    if weights is None:
        weights = [1 / len(plans)] * len(plans)
    if len(weights) != len(plans) or min(weights) <= 0 or abs(sum(weights) - 1) > 1e-6:
        raise ValueError(
            f"weights must be {len(plans)} numbers above 0 with sum 1, one for each plan; got {list(weights)}"
        )
    outputs = [
        weight
        * combiner_attention(
            q,
            k,
            v,
            plan=plan,
            block_size=None if plan == "logsparse" else block_size,
            causal=causal,
            key_mask=key_mask,
            pooling=pooling,
            span_qk=span_qk,
            row_summary=row_summary,
            row_keys=row_keys,
            scale=scale,
            dropout_p=dropout_p,
        )
        for plan, weight in zip(plans, weights, strict=True)
    ]
    return torch.stack(outputs).sum(0)


def implied_attention(
    q: Tensor,
    k: Tensor,
    *,
    plan: str = "fixed",
    block_size: int | None = None,
    causal: bool = True,
    key_mask: Tensor | None = None,
    pooling: str = "max",
    span_qk: tuple[Tensor, Tensor] | None = None,
    row_summary: str = "none",
    row_keys: Tensor | None = None,
    scale: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """The attention matrix A that a plan amounts to, (B, H, N, N): to look at and to test with.

    Its rows sum to 1 and reach all that the query may see. Found by attending to one-hot values, so memory is
    quadratic. Arguments and errors as in `combiner_attention`.
    """
    if impl == "sdpa":
        raise ValueError("impl 'sdpa' keeps no attention weights; use impl 'einsum' or 'auto' to see them")
    checks.queries_keys_values(q, k, k)
    tokens, channels = q.shape[2:]
    one_hot = torch.eye(tokens, -(-tokens // channels) * channels, dtype=q.dtype, device=q.device)
    columns = [
        combiner_attention(
            q,
            k,
            values.expand_as(q),
            plan=plan,
            block_size=block_size,
            causal=causal,
            key_mask=key_mask,
            pooling=pooling,
            span_qk=span_qk,
            row_summary=row_summary,
            row_keys=row_keys,
            scale=scale,
            impl=impl,
        )
        for values in one_hot.split(channels, 1)  # (N, D) each
    ]
    return torch.cat(columns, -1)[..., :tokens]


def _row_summaries(
    rows: Grid, *, row_summary: str, row_keys: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys and values of rows by column, (B, H, n, s, D), and which are there, (B, 1, n) or (B, 1, n, s)."""
    if rows.pooling == "none":
        return rows.k, rows.v, rows.valid
    if row_keys is not None:
        keys = row_keys.permute(0, 3, 1, 2, 4)[:, :, : rows.rows]
    else:
        keys = row_keys_wsum(rows) if row_summary == "wsum" else rows.k
    return keys, row_values(rows), None if rows.valid is None else rows.valid.any(-1)
