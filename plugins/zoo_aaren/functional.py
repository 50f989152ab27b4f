"""Attention of one fixed query over every prefix of a sequence, as pure functions.

Shapes: B batch, H heads, N tokens, D channels per head. With scores s and values v,

    m_k = max_{j<=k} s_j,  u_k = sum_{j<=k} e^{s_j - m_k},  w_k = sum_{j<=k} e^{s_j - m_k} v_j,
    o_k = w_k / u_k

Feng et al., "Attention as an RNN", arXiv 2405.13956, sections 3.1 (recurrence) and 3.2 (prefix scan).
Sums run in float32 (float64 for float64 inputs). NaN and +inf propagate, NaN to earlier positions too.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from zoo.layers.precision import full_precision, sum_dtype
from zoo_aaren import checks
from zoo_aaren.chunked import CHUNK, NEG_INF, chunked_scan
from zoo_aaren.native import native_scan, obstacle

Impl = Literal["auto", "native", "dense", "blocked", "tree", "loop"]


class AarenState(NamedTuple):
    """All that later outputs need of the tokens so far; its size does not grow with them.

    m: largest score (B, H), -inf before the first token. u: sum of weights (B, H). w: weighted sum of values
    (B, H, D). `m` only stabilises: it carries no gradient, `u` and `w` do.
    """

    m: Tensor
    u: Tensor
    w: Tensor

    @classmethod
    def empty(
        cls,
        batch_size: int,
        heads: int,
        channels: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> AarenState:
        """The state before the first token, the identity of `aaren_combine`."""
        # The paper starts at m = 0; then scores far below 0 underflow to 0 / 0.
        m = torch.full((batch_size, heads), NEG_INF, dtype=dtype, device=device)
        return cls(m, torch.zeros_like(m), m.new_zeros(batch_size, heads, channels))

    def detach(self) -> AarenState:
        """The same state, cut off from the past: truncated backpropagation through time."""
        return AarenState(self.m.detach(), self.u.detach(), self.w.detach())

    def output(self) -> Tensor:
        """The attention over everything in the state, (B, H, D); zeros for an empty one."""
        return self.w / self.u.masked_fill(self.u == 0, 1.0).unsqueeze(-1)


def aaren_combine(left: tuple[Tensor, Tensor, Tensor], right: tuple[Tensor, Tensor, Tensor]) -> AarenState:
    """The summary of two disjoint sets of tokens, associative and commutative (section 3.2).

    Each side is (m, u, w) with m, u of shape (...) and w (..., D). An empty side has m = -inf, u = 0, w = 0.
    """
    m = torch.maximum(left[0], right[0]).detach()
    finite = m.masked_fill(m == NEG_INF, 0.0)  # e^{-inf - (-inf)} is to be 0, not NaN
    a, b = (left[0] - finite).exp(), (right[0] - finite).exp()
    u = left[1] * a + right[1] * b
    return AarenState(m, u, left[2] * a.unsqueeze(-1) + right[2] * b.unsqueeze(-1))


def aaren_step(
    score: Tensor, value: Tensor, state: AarenState, *, valid: Tensor | None = None
) -> tuple[Tensor, AarenState]:
    """One token in constant time and memory (the recurrent cell of section 3.1).

    score: (B, H); value: (B, H, D); valid: bool (B,), False leaves that row's state as it is.
    Returns the output (B, H, D) over all tokens so far, and the new state.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together.
    """
    checks.step_inputs(score, value, state, valid)
    if valid is not None:
        score = score.masked_fill(~valid.unsqueeze(-1), NEG_INF)
        value = value.masked_fill(~valid[:, None, None], 0)
    dtype = sum_dtype(score.dtype, value.dtype)
    state = aaren_combine(state, _leaves(score.to(dtype), value.to(dtype)))
    return state.output().to(value.dtype), state


def aaren_pool(scores: Tensor, values: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """Attention over all tokens, the last prefix: (B, H, N) and (B, H, N, D) -> (B, H, D).

    key_mask: bool (B, N) or (B, H, N), True = keep. A row without tokens gives zeros.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together.
    """
    checks.scan_inputs(scores, values, key_mask)
    dtype = values.dtype
    scores, values = _prepare(scores, values, key_mask)
    if scores.shape[-1] == 0:
        return values.sum(-2).to(dtype)
    m = scores.detach().amax(-1, keepdim=True)
    weights = (scores - m.masked_fill(m == NEG_INF, 0.0)).exp()  # (B, H, N)
    with full_precision(scores.device):
        w = torch.matmul(weights.unsqueeze(-2), values).squeeze(-2)  # (B, H, D)
    return AarenState(m.squeeze(-1), weights.sum(-1), w).output().to(dtype)


@overload
def aaren_scan(
    scores: Tensor,
    values: Tensor,
    *,
    key_mask: Tensor | None = ...,
    state: AarenState | None = ...,
    reverse: bool = ...,
    block_size: int | None = ...,
    impl: Impl = ...,
    return_state: Literal[False] = ...,
    check_finite: bool = ...,
) -> Tensor: ...


@overload
def aaren_scan(
    scores: Tensor,
    values: Tensor,
    *,
    key_mask: Tensor | None = ...,
    state: AarenState | None = ...,
    reverse: bool = ...,
    block_size: int | None = ...,
    impl: Impl = ...,
    return_state: Literal[True],
    check_finite: bool = ...,
) -> tuple[Tensor, AarenState]: ...


def aaren_scan(
    scores: Tensor,
    values: Tensor,
    *,
    key_mask: Tensor | None = None,
    state: AarenState | None = None,
    reverse: bool = False,
    block_size: int | None = None,
    impl: Impl = "auto",
    return_state: bool = False,
    check_finite: bool = False,
) -> Tensor | tuple[Tensor, AarenState]:
    """Attention over every prefix: (B, H, N) and (B, H, N, D) -> (B, H, N, D).

    key_mask: bool (B, N) or (B, H, N), True = keep. The output at a masked token repeats the last prefix;
        before any kept token it is exactly zero.
    state: what came before, as returned with `return_state`; detach it to cut the gradient there.
    reverse: suffixes instead of prefixes (an extension of the paper); `state` is then what comes after.
    block_size: tokens per chunk of `impl="blocked"`; the default suits CPUs.
    impl: how, never what. "native": a loop in C, on CPU, where there is a compiler. "blocked": products
        within chunks and a scan over their totals, linear in N. "dense": one chunk, quadratic. "tree":
        odd-even scan with `aaren_combine`. "loop": one `aaren_step` per token. "auto": "native" where it can
        be and no `block_size` is given, else "blocked". The first three have a backward of their own,
        differentiable again; for forward-mode derivatives use "tree".
    check_finite: refuse NaN and +inf scores instead of letting them propagate.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, an unknown `impl`,
            `block_size` below 1, NaN or +inf scores under `check_finite`, "native" where it cannot be.
    """
    checks.scan_inputs(scores, values, key_mask)
    checks.scan_options(impl, block_size)
    if check_finite:
        checks.finite_scores(scores, key_mask)
    batch, heads, tokens, channels = values.shape
    out_dtype = values.dtype
    scores, values = _prepare(scores, values, key_mask)
    if state is None:
        state = AarenState.empty(batch, heads, channels, dtype=scores.dtype, device=scores.device)
    else:
        checks.state_fits(state, scores, values)
    if reverse:
        scores, values = scores.flip(-1), values.flip(-2)
    if impl == "tree":
        out, state = _tree_scan(scores, values, state)
    elif impl == "loop":
        out, state = _loop_scan(scores, values, state)
    else:
        rows = (state.m.flatten(0, 1), state.u.flatten(0, 1), state.w.flatten(0, 1))
        scores, values = scores.flatten(0, 1), values.flatten(0, 1)
        if impl == "native" or (impl == "auto" and block_size is None and not obstacle(values)):
            checks.native(obstacle(values))
            out, rows = native_scan(scores, values, rows)
        else:
            chunk = tokens if impl == "dense" else block_size or CHUNK
            out, rows = chunked_scan(scores, values, rows, chunk)
        out = out.unflatten(0, (batch, heads))
        state = AarenState(*(part.unflatten(0, (batch, heads)) for part in rows))
    out = (out.flip(-2) if reverse else out).to(out_dtype)
    return (out, state) if return_state else out


def _prepare(scores: Tensor, values: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both in the dtype of the sums, masked tokens turned into the identity: score -inf, value 0."""
    if key_mask is not None:
        absent = ~(key_mask if key_mask.dim() == 3 else key_mask.unsqueeze(1))  # (B, 1 or H, N)
        scores, values = scores.masked_fill(absent, NEG_INF), values.masked_fill(absent.unsqueeze(-1), 0)
    dtype = sum_dtype(scores.dtype, values.dtype)
    return scores.to(dtype), values.to(dtype)


def _leaves(scores: Tensor, values: Tensor) -> AarenState:
    """Each token as a summary of its own: (s, 1, v), and (-inf, 0, 0) for an absent one."""
    m = scores.detach()
    u = (scores - m.masked_fill(m == NEG_INF, 0.0)).exp()  # 1 or 0; the gradient of a score enters here
    return AarenState(m, u, u.unsqueeze(-1) * values)


def _loop_scan(scores: Tensor, values: Tensor, state: AarenState) -> tuple[Tensor, AarenState]:
    outputs = []
    for score, value in zip(scores.unbind(-1), values.unbind(-2), strict=True):
        out, state = aaren_step(score, value, state)
        outputs.append(out)
    return (torch.stack(outputs, -2) if outputs else values), state


def _tree_scan(scores: Tensor, values: Tensor, state: AarenState) -> tuple[Tensor, AarenState]:
    leaves = _leaves(scores, values)
    m, u, w = (torch.cat([s.unsqueeze(2), leaf], 2) for s, leaf in zip(state, leaves, strict=True))
    prefixes = _tree_prefixes(AarenState(m, u, w))
    last = AarenState(*(part[:, :, -1].clone() for part in prefixes))  # a view would keep them all alive
    return AarenState(*(part[:, :, 1:] for part in prefixes)).output(), last


def _tree_prefixes(leaves: AarenState) -> AarenState:
    """Inclusive prefixes along dimension 2: combine neighbours, scan the pairs, fill in between."""
    count = leaves.m.shape[2]
    if count == 1:
        return leaves
    even, odd = _every_other(leaves, 0), _every_other(leaves, 1)
    pairs = _tree_prefixes(aaren_combine(AarenState(*(part[:, :, : count // 2] for part in even)), odd))
    before = AarenState(*(part[:, :, : (count - 1) // 2] for part in pairs))
    between = aaren_combine(before, AarenState(*(part[:, :, 1:] for part in even)))
    merged = []
    for leaf, at_even, at_odd in zip(leaves, between, pairs, strict=True):
        result = torch.empty_like(leaf)
        result[:, :, 0], result[:, :, 2::2], result[:, :, 1::2] = leaf[:, :, 0], at_even, at_odd
        merged.append(result)
    return AarenState(*merged)


def _every_other(leaves: AarenState, start: int) -> AarenState:
    return AarenState(*(part[:, :, start::2] for part in leaves))
