"""Prefix attention in two levels: matrix products inside chunks, a scan over chunk totals between them.

Shapes: R rows (batch times heads), N tokens, D channels, C tokens per chunk, n = N / C chunks.

All weights have the form e^{s_j - m_i}, j <= i, with the running maximum m, so that no exponent is ever
positive and any size of score is safe. Within a chunk they are a small (C, C) matrix; what came before a
chunk enters through one carried sum. The maxima only stabilise, hence carry no gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.precision import full_precision

#: Tokens per chunk, and totals per chunk in the scan over totals; the fastest of those tried on CPU (README).
CHUNK = 16
TOTALS_PER_CHUNK = 40

NEG_INF = float("-inf")
LOG2_E = 1 / math.log(2)


def chunked_scan(
    scores: Tensor, values: Tensor, state: tuple[Tensor, Tensor, Tensor], chunk: int
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Softmax attention of one query over every prefix, after the tokens summed up in `state`.

    scores: (R, N), `-inf` where a token is not there; values: (R, N, D), both float32 or both float64.
    state: (m, u, w), (R,), (R,) and (R, D). Returns the outputs (R, N, D) and the state after the last token.
    """
    tokens = scores.shape[1]
    if scores.numel() == 0:
        return values, state
    scores, values = scores.contiguous(), values.contiguous()
    chunk = min(chunk, tokens)
    padding = -tokens % chunk
    if padding:  # absent tokens at the end change neither outputs nor state
        scores = F.pad(scores, (0, padding), value=NEG_INF)
        values = F.pad(values, (0, 0, 0, padding))
    out, m, u, w, _ = _ChunkedScan.apply(scores, values, *state, chunk)
    return out[:, :tokens], (m, u, w)


class _ChunkedScan(torch.autograd.Function):
    """`_forward` with a backward that stores no (C, C) weights but computes them again.

    A gradient that is itself to be differentiated goes through the plain operations instead.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, values: Tensor, m: Tensor, u: Tensor, w: Tensor, chunk: int) -> Any:
        with full_precision(scores.device):
            return _forward(scores, values, m, u, w, chunk)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        out, last_m, _, _, denominator = output
        ctx.mark_non_differentiable(last_m, denominator)
        ctx.save_for_backward(*inputs[:5], out, denominator)
        ctx.chunk = inputs[5]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grad_out, _, grad_u, grad_w, _ = grads
        scores, values, m, u, w, out, denominator = ctx.saved_tensors
        with full_precision(out.device):
            if torch.is_grad_enabled():

                def plain(s: Tensor, v: Tensor, m: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, ...]:
                    out, _, u, w, _ = _forward(s, v, m, u, w, ctx.chunk)
                    return out, u, w

                pull_back = torch.func.vjp(plain, scores, values, m, u, w)[1]
                return *pull_back((grad_out, grad_u, grad_w)), None
            gradients = _backward(
                scores, values, m, u, w, out, denominator, grad_out, grad_u, grad_w, ctx.chunk
            )
            return *gradients, None


def _forward(
    scores: Tensor, values: Tensor, m: Tensor, u: Tensor, w: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs (R, N, D), the state after the last token, and the denominators (R, n, C)."""
    rows, tokens, width = values.shape
    levels, weights, decay = _weights_of_chunks(scores, m, chunk)  # (R, n+1), (R, n, C, C), (R, n, C)
    blocks = values.reshape(-1, chunk, width)  # (R n, C, D)

    # A chunk's totals are what its last token sees of it; u rides along as one more column of w.
    last = weights[:, :, -1]  # (R, n, C)
    total_w = torch.bmm(last.reshape(-1, 1, chunk), blocks).reshape(rows, -1, width)
    totals = torch.cat([total_w, last.sum(-1, keepdim=True)], -1)  # (R, n, D+1)
    leaves = torch.cat([torch.cat([w, u.unsqueeze(-1)], -1).unsqueeze(1), totals], 1)  # (R, n+1, D+1)
    prefixes = prefix_sums(levels, leaves)  # (R, n+1, D+1)
    carried_w, carried_u = prefixes[:, :-1, :-1], prefixes[:, :-1, -1]  # (R, n, D), (R, n)

    denominator = weights.sum(-1) + decay * carried_u.unsqueeze(-1)  # (R, n, C)
    denominator = denominator.masked_fill(denominator == 0, 1.0)  # no token yet: the output is 0 / 1
    share = (decay / denominator).reshape(-1, chunk, 1)
    out = share * carried_w.reshape(-1, 1, width)  # (R n, C, D)
    out.baddbmm_((weights / denominator.unsqueeze(-1)).flatten(0, 1), blocks)
    # Copies: a view would keep all the prefixes alive for as long as the state.
    last_m, last_u, last_w = levels[:, -1].clone(), prefixes[:, -1, -1].clone(), prefixes[:, -1, :-1].clone()
    return out.reshape(rows, tokens, width), last_m, last_u, last_w, denominator


def _backward(
    scores: Tensor,
    values: Tensor,
    m: Tensor,
    u: Tensor,
    w: Tensor,
    out: Tensor,
    denominator: Tensor,
    grad_out: Tensor,
    grad_u: Tensor,
    grad_w: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of scores, values, m, u, w.

    With p_ij the softmax weight of token j at position i and g the gradient of the outputs,
    dv_j = sum_{i>=j} p_ij g_i and ds_j = sum_{i>=j} p_ij (g_i v_j - g_i o_i): prefix sums run backwards.
    """
    rows, tokens, width = values.shape
    levels, weights, decay = _weights_of_chunks(scores, m, chunk)
    share = (decay / denominator).reshape(-1, 1, chunk)
    attention = weights / denominator.unsqueeze(-1)  # p_ij, (R, n, C, C)
    grad_blocks = grad_out.reshape(-1, chunk, width)
    grad_dot_out = _dot(grad_out, out).reshape(-1, chunk, 1)  # (R n, C, 1)

    grad_carried = torch.cat([torch.bmm(share, grad_blocks), -torch.bmm(share, grad_dot_out)], -1)
    grad_state = torch.cat([grad_w, grad_u.unsqueeze(-1)], -1).unsqueeze(1)
    grad_prefixes = torch.cat([grad_carried.reshape(rows, -1, width + 1), grad_state], 1)  # (R, n+1, D+1)
    grad_leaves = suffix_sums(levels, grad_prefixes)
    grad_total_w, grad_total_u = grad_leaves[:, 1:, :-1], grad_leaves[:, 1:, -1:]  # (R, n, D), (R, n, 1)

    last = weights[:, :, -1]  # (R, n, C)
    # A chunk's totals are one more output behind it, with the weights of its last token.
    every = torch.cat([attention, last.unsqueeze(2)], 2).flatten(0, 1)  # (R n, C+1, C)
    above = torch.cat([grad_blocks.unflatten(0, (rows, -1)), grad_total_w.unsqueeze(2)], 2).flatten(0, 1)
    grad_values = torch.bmm(every.mT, above).reshape(rows, tokens, width)
    grad_ones = last * grad_total_u - (attention * grad_dot_out.unflatten(0, (rows, -1))).sum(2)
    grad_scores = _dot(grad_values, values) + grad_ones.flatten(1)

    first_w, first_u = grad_leaves[:, 0, :-1], grad_leaves[:, 0, -1]
    return grad_scores, grad_values, (first_w * w).sum(-1) + first_u * u, first_u, first_w


def _weights_of_chunks(scores: Tensor, m: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """The maxima before and after each chunk (R, n+1), e^{s_j - m_i} within chunks (R, n, C, C),
    and what each position keeps of the sums carried into its chunk (R, n, C)."""
    maxima = torch.maximum(_running_maxima(scores.detach(), chunk), m.detach().unsqueeze(1))  # (R, N)
    levels = torch.cat([m.unsqueeze(1), maxima[:, chunk - 1 :: chunk]], 1)
    finite = _finite(maxima).unflatten(1, (-1, chunk))
    weights = _causal_weights(scores.unflatten(1, (-1, chunk)), finite)
    return levels, weights, _exp_(levels.detach()[:, :-1].unsqueeze(-1) - finite)


def _running_maxima(scores: Tensor, chunk: int) -> Tensor:
    """m_i = max_{j <= i} s_j, (R, N) -> (R, N); N is a multiple of C."""
    if not torch.compiler.is_exporting():
        return scores.cummax(1).values
    # ONNX has no running maximum: that of each chunk by itself, and of all chunks before it.
    chunks = scores.unflatten(1, (-1, chunk))
    inside = (chunks.unsqueeze(2) + _future(chunks, chunk)).amax(-1)  # (R, n, C)
    last = inside[:, :, -1]
    until = (last.unsqueeze(1) + _future(last, last.shape[1])).amax(-1)  # (R, n)
    before = F.pad(until[:, :-1], (1, 0), value=NEG_INF)
    return torch.maximum(inside, before.unsqueeze(-1)).flatten(1)


def _future(like: Tensor, tokens: int) -> Tensor:
    """(C, C): -inf at (i, j) where j comes after i, else 0."""
    return like.new_full((tokens, tokens), NEG_INF).triu(1)


def prefix_sums(levels: Tensor, leaves: Tensor) -> Tensor:
    """y_c = sum_{l <= c} e^{levels_l - levels_c} x_l, (R, n, E), for levels (R, n) that never fall."""
    chunks = _chunks_of_leaves(levels, leaves)
    if chunks is None:
        return _causal_weights(levels, _finite(levels.detach())) @ leaves
    weights, decay, last, blocks = chunks  # (R, k, C, C), (R, k, C), (R, k), (R, k, C, E)
    totals = (weights[:, :, -1:] @ blocks).squeeze(2)  # (R, k, E)
    carried = F.pad(prefix_sums(last, totals)[:, :-1], (0, 0, 1, 0))  # exclusive
    y = weights @ blocks + decay.unsqueeze(-1) * carried.unsqueeze(2)
    return y.flatten(1, 2)[:, -levels.shape[1] :]


def suffix_sums(levels: Tensor, leaves: Tensor) -> Tensor:
    """x_l = sum_{c >= l} e^{levels_l - levels_c} y_c: the transpose of `prefix_sums`."""
    chunks = _chunks_of_leaves(levels, leaves)
    if chunks is None:
        return _causal_weights(levels, _finite(levels)).mT @ leaves
    weights, decay, last, blocks = chunks
    totals = (decay.unsqueeze(2) @ blocks).squeeze(2)
    totals = F.pad(totals[:, 1:], (0, 0, 0, 1))
    x = weights.mT @ blocks + weights[:, :, -1].unsqueeze(-1) * suffix_sums(last, totals).unsqueeze(2)
    return x.flatten(1, 2)[:, -levels.shape[1] :]


def _chunks_of_leaves(levels: Tensor, leaves: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Weights, decay, last level and leaves by chunk (absent leaves in front); None if one chunk will do."""
    count = levels.shape[1]
    if count <= TOTALS_PER_CHUNK:
        return None
    padding = -count % TOTALS_PER_CHUNK
    levels = F.pad(levels, (padding, 0), value=NEG_INF).unflatten(1, (-1, TOTALS_PER_CHUNK))
    leaves = F.pad(leaves, (0, 0, padding, 0)).unflatten(1, (-1, TOTALS_PER_CHUNK))
    finite = _finite(levels.detach())
    last = levels.detach()[:, :, -1]
    before = F.pad(last[:, :-1], (1, 0), value=NEG_INF)
    return _causal_weights(levels, finite), _exp_(before.unsqueeze(-1) - finite), last, leaves


def _causal_weights(scores: Tensor, maxima: Tensor) -> Tensor:
    """e^{s_j - m_i} for j <= i, else 0: (..., C) and (..., C) -> (..., C, C)."""
    tokens = scores.shape[-1]
    future = _future(scores, tokens)  # there s_j - m_i may be large, and half of it at most the largest float
    halves = (scores / 2).unsqueeze(-2) - (maxima / 2).unsqueeze(-1)
    return _exp_(halves.add_(future), times=2)


def _exp_(exponents: Tensor, *, times: float = 1) -> Tensor:
    """e^(times x), in place."""
    # As a power of 2: where e^x is nearly 0, as often here, torch's exp on CPU takes ten times as long.
    return exponents.mul_(times * LOG2_E).exp2_()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(a * b).sum(-1) of tensors (R, N, D), without memory for all the products."""
    return torch.bmm(a.reshape(-1, 1, a.shape[-1]), b.reshape(-1, b.shape[-1], 1)).reshape(a.shape[:-1])


def _finite(maxima: Tensor) -> Tensor:
    """Maxima to subtract: where there is no token yet, -inf - (-inf) would be NaN."""
    return maxima.masked_fill(maxima == NEG_INF, 0.0)
