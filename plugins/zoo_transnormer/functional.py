"""Linear attention with a constant decay per head, and what TransNormer puts around it, as pure functions.

Shapes: B batch, H heads, T tokens, D channels of queries and keys, E of values. With lambda = e^(-slope),

    S_t = lambda S_{t-1} + k_t v_t^T,    o_t = q_t S_t        (the token itself is included, undecayed)

which in parallel is O = ((Q K^T) . M) V, M_ts = lambda^(t-s) for s <= t, else 0: no softmax, no denominator.
Sources: TransNormer, arXiv 2210.10340; TransNormerLLM, 2307.14995; Lightning Attention-2 ("LA2"), 2401.04658;
TNL, 2405.17381. Sums and states are float32 (float64 for float64 inputs), whatever the inputs are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.padding import front_order, kept_in_front, put_back
from zoo.layers.precision import full_precision, sum_dtype
from zoo_transnormer import backend as backends
from zoo_transnormer import checks
from zoo_transnormer.backend import Backend
from zoo_transnormer.chunked import chunked_attention
from zoo_transnormer.decay import decay_slopes as decay_slopes
from zoo_transnormer.native import native_attention

#: The parallel form holds (T, T) weights; longer inputs are refused.
PARALLEL_TOKENS = 4096


def lightning_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    *,
    chunk_size: int = 64,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Causal linear attention with decay, in time and memory linear in T, both ways (LA2, Alg. 1 and 2).

    Args:
        q, k: (B, H, T, D); v: (B, H, T, E). T may be 0.
        slopes: (H,) or (B, H), at least 0, constants.
        chunk_size: tokens per chunk; how, never what.
        scale: factor of the scores. There is no 1 / sqrt(D) unless you give it.
        initial_state: what came before, (B, H, D, E) in float32, as returned; it gets a gradient.
        output_final_state: return the state after each row's last kept token, else `None`.
        key_padding_mask: bool (B, T), True = keep, padding anywhere. Padding is not seen and decays nothing;
            outputs there are zeros.
        cu_seqlens: int (S + 1,), rising from 0 to T: S sequences lie one after the other in a single row.
            States are then (S, H, D, E).
        backend: "torch" is ours in tensor operations, "native" ours in C, on CPU where there is a compiler,
            and "fla" the Triton kernel of `pip install archzoo[fla]`; where one of these cannot be, "torch"
            computes, with one warning. "auto": "fla" on CUDA and "native" on CPU where they can be.

    Returns:
        The outputs (B, H, T, E) in v's type, and the final state or `None`. They have first derivatives only;
        for second ones use `lightning_attention_parallel`.

    Raises:
        ValueError, TypeError: shapes, types, devices, slopes or options that do not fit.
    """
    checks.attention_inputs(q, k, v)
    checks.slopes_fit(slopes, q)
    checks.options(chunk_size, backend)
    lengths: list[int] | None = None
    if cu_seqlens is not None:
        if key_padding_mask is not None:
            raise ValueError(
                "give cu_seqlens or key_padding_mask, not both: packed sequences have no padding"
            )
        lengths = checks.packed_lengths(cu_seqlens, q)
    if initial_state is not None:
        checks.state_fits(initial_state, q, v, rows=None if lengths is None else len(lengths))
    out_dtype = v.dtype
    chosen = backends.chosen(q, v, slopes, backend=backend, padded=key_padding_mask is not None)
    if chosen == "fla":
        out, state = backends.attention(q, k, v, slopes, scale, initial_state, cu_seqlens)
        return out.to(out_dtype), state if output_final_state else None
    form = native_attention if chosen == "native" else chunked_attention
    if lengths is not None:
        out, state = _packed(form, q, k, v, slopes, scale, initial_state, lengths, chunk_size)
    elif key_padding_mask is not None:
        checks.mask_fits(key_padding_mask, q)
        order = front_order(key_padding_mask)
        q, k, v = (kept_in_front(x, key_padding_mask, order, dim=2) for x in (q, k, v))
        out, state = _in_sums(
            form, q, k, v, slopes, scale, initial_state, key_padding_mask.sum(1), chunk_size
        )
        out = put_back(out, key_padding_mask, order, dim=2)
    else:
        out, state = _in_sums(form, q, k, v, slopes, scale, initial_state, None, chunk_size)
    return out, state if output_final_state else None


#: Tensors as in `lightning_attention`, of one type; slopes, state or `None`, lengths (B,) or `None`.
Form = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, int], tuple[Tensor, Tensor]]


def _in_sums(
    form: Form,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    scale: float,
    state: Tensor | None,
    lengths: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """In the type of the sums. lengths: int (B,), tokens that are there.

    A conversion to the same type would take longer, in short steps, than asking.
    """
    dtype, out_dtype = sum_dtype(q.dtype, k.dtype, v.dtype), v.dtype
    q, k, v, slopes = (x if x.dtype == dtype else x.to(dtype) for x in (q, k, v, slopes))
    if scale != 1.0:
        q = q * scale
    out, state = form(q, k, v, slopes, state, lengths, chunk_size)
    return out if out_dtype == dtype else out.to(out_dtype), state


def _packed(
    form: Form,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    scale: float,
    state: Tensor | None,
    lengths: list[int],
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Each sequence by itself. `split`, unlike slices, has one gradient for all of them: linear in T."""
    states = [None] * len(lengths) if state is None else state.split(1)
    outs, finals = [], []
    parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), states, strict=True)
    for q1, k1, v1, before in parts:
        out, final = _in_sums(form, q1, k1, v1, slopes, scale, before, None, chunk_size)
        outs.append(out)
        finals.append(final)
    return torch.cat(outs, 2), torch.cat(finals)


def lightning_attention_parallel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    *,
    scale: float = 1.0,
    key_padding_mask: Tensor | None = None,
) -> Tensor:
    """The definition, O = ((Q K^T) . M) V: quadratic in T, for tests and second derivatives.

    Shapes as in `lightning_attention`; padding decays nothing.

    Raises:
        ValueError, TypeError: as there, and more than 4096 tokens.
    """
    checks.attention_inputs(q, k, v)
    checks.slopes_fit(slopes, q)
    tokens = q.shape[2]
    if tokens > PARALLEL_TOKENS:
        raise ValueError(
            f"the parallel form takes at most {PARALLEL_TOKENS} tokens, got {tokens}; use lightning_attention"
        )
    dtype = sum_dtype(q.dtype, k.dtype, v.dtype)
    keep = torch.ones(1, tokens, dtype=torch.bool, device=q.device)
    if key_padding_mask is not None:
        checks.mask_fits(key_padding_mask, q)
        keep = key_padding_mask
    place = keep.cumsum(1)  # (B or 1, T)
    distance = (place.unsqueeze(2) - place.unsqueeze(1)).unsqueeze(1)  # (B or 1, 1, T, T)
    seen = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).tril()
    seen = seen & keep[:, None, None, :] & keep[:, None, :, None]  # (B or 1, 1, T, T)
    rates = slopes.to(dtype)[..., None, None]
    decay = torch.where(seen, (-rates * distance.clamp_min(0)).exp(), 0.0)
    with full_precision(q.device):
        weights = scale * (q.to(dtype) @ k.to(dtype).mT) * decay
        values = v.masked_fill(~keep[:, None, :, None], 0.0).to(dtype)
        return (weights.masked_fill(~seen, 0.0) @ values).to(v.dtype)


def lightning_attention_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    initial_state: Tensor | None = None,
    *,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Token by token (TransNormerLLM, Alg. 2): the outputs (B, H, T, E) and the state. Slow, for tests.

    Raises:
        ValueError, TypeError: as in `lightning_attention`.
    """
    checks.attention_inputs(q, k, v)
    dtype = sum_dtype(q.dtype, k.dtype, v.dtype)
    state = initial_state
    if state is None:
        state = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1], dtype=dtype)
    outputs = []
    for q1, k1, v1 in zip(q.unbind(2), k.unbind(2), v.unbind(2), strict=True):
        out, state = lightning_attention_step(q1, k1, v1, slopes, state, scale=scale)
        outputs.append(out)
    return (torch.stack(outputs, 2) if outputs else torch.zeros_like(v)), state


def lightning_attention_step(
    q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor, *, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One token in constant time and memory. q, k: (B, H, D), v: (B, H, E), state: (B, H, D, E).

    Returns the output (B, H, E) and the new state; the old one stays as it was.

    Raises:
        ValueError, TypeError: as in `lightning_attention`.
    """
    checks.step_inputs(q, k, v)
    checks.slopes_fit(slopes, q)
    checks.state_fits(state, q, v)
    rates = slopes.to(state.dtype)[..., None, None]
    keys, values = k.to(state.dtype).unsqueeze(-1), v.to(state.dtype).unsqueeze(-2)
    state = torch.addcmul((-rates).exp() * state, keys, values)
    with full_precision(q.device):
        out = (scale * q.to(state.dtype)).unsqueeze(-2) @ state
    return out.squeeze(-2).to(v.dtype), state


def linear_attention_bidirectional(
    q: Tensor, k: Tensor, v: Tensor, *, key_padding_mask: Tensor | None = None
) -> Tensor:
    """Q (K^T V), every token sees every other: linear in T, no decay, no denominator (TransNormer, eq. 14).

    Shapes as in `lightning_attention`; outputs at padding are zeros.

    Raises:
        ValueError, TypeError: shapes, types or devices that do not fit.
    """
    checks.attention_inputs(q, k, v)
    dtype = sum_dtype(q.dtype, k.dtype, v.dtype)
    out_dtype = v.dtype
    q, k, v = (x.to(dtype) for x in (q, k, v))
    if key_padding_mask is not None:
        checks.mask_fits(key_padding_mask, q)
        q, k, v = (x.masked_fill(~key_padding_mask[:, None, :, None], 0.0) for x in (q, k, v))
    with full_precision(q.device):
        return (q @ (k.mT @ v)).to(out_dtype)


def diag_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block: int = 64,
    kind: Literal["softmax", "relu"] = "softmax",
    *,
    causal: bool,
    key_padding_mask: Tensor | None = None,
) -> Tensor:
    """Attention within blocks of `block` tokens that do not overlap (TransNormer, section 4.2): linear in T.

    Scores are scaled by 1 / sqrt(D). "softmax": the weights of a query sum to 1 (T2). "relu": its scores, cut
    at 0, are the weights (T1; normalise what comes out). Blocks count kept tokens; what is masked is masked
    before the softmax. Shapes as in `lightning_attention`; outputs at padding are zeros.

    Raises:
        ValueError, TypeError: shapes, types, devices or options that do not fit.
    """
    checks.attention_inputs(q, k, v)
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    if kind not in ("softmax", "relu"):
        raise ValueError(f"kind must be softmax or relu, got {kind!r}")
    if key_padding_mask is not None:
        mask = key_padding_mask
        checks.mask_fits(mask, q)
        order = front_order(mask)
        q, k, v = (kept_in_front(x, mask, order, dim=2) for x in (q, k, v))
        return put_back(_blocks(q, k, v, block, kind, causal, mask.sum(1)), mask, order, dim=2)
    return _blocks(q, k, v, block, kind, causal, None)


def _blocks(
    q: Tensor, k: Tensor, v: Tensor, block: int, kind: str, causal: bool, lengths: Tensor | None
) -> Tensor:
    """lengths: int (B,), how many tokens of a row are there, in front; `None`: all."""
    tokens, scale = q.shape[2], q.shape[-1] ** -0.5
    if tokens == 0:
        return torch.zeros_like(v)
    block = min(block, tokens)
    count = -(-tokens // block)
    q, k, v = (F.pad(x, (0, 0, 0, count * block - tokens)).unflatten(2, (count, block)) for x in (q, k, v))
    place = torch.arange(block, device=q.device)
    ends = torch.full((1,), tokens, device=q.device) if lengths is None else lengths
    there = torch.arange(count * block, device=q.device) < ends.unsqueeze(-1)  # (B or 1, n block)
    seen = there.view(-1, 1, count, 1, block)  # by key
    if causal:
        seen = seen & (place <= place[:, None])
    if kind == "relu":
        out = (F.relu(scale * (q @ k.mT)) * seen) @ v
    else:
        # A block of padding alone would be 0 / 0: let it see all, nobody reads it.
        seen = seen | ~seen.any(-1, keepdim=True)
        if torch.compiler.is_exporting():  # ONNX has attention of four dimensions: blocks stand beside heads
            q, k, v, seen = (x.expand(-1, q.shape[1], *x.shape[2:]).flatten(1, 2) for x in (q, k, v, seen))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out = out.unflatten(1, (-1, count)) if out.dim() == 4 else out
    return out.flatten(2, 3)[:, :, :tokens]


def srms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, in float32, without weights (TransNormerLLM).

    x: (..., D) -> (..., D). A row of zeros stays zero.
    """
    dtype = sum_dtype(x.dtype)
    return F.rms_norm(x.to(dtype), (x.shape[-1],), eps=eps).to(x.dtype)


def lrpe(x: Tensor, theta: Tensor, offset: int | Tensor = 0) -> Tensor:
    """Linearised relative positions (TNL, LRPE-d): [x cos(n theta), x sin(n theta)] at position n.

    On queries and keys alike: their product becomes sum_j q_j k_j cos(theta_j (t - s)), a function of the
    distance. Angles are float32: in bfloat16 positions are exact to 256 only.

    x: (B, H, T, D), theta: (H, D), offset: position of the first token, an int or int (B,)
    -> (B, H, T, 2 D).

    Raises:
        ValueError: theta does not fit x.
    """
    if theta.shape != (x.shape[1], x.shape[3]):
        raise ValueError(
            f"theta must be {(x.shape[1], x.shape[3])} for x {tuple(x.shape)}, got {tuple(theta.shape)}"
        )
    dtype = sum_dtype(x.dtype, theta.dtype)
    start = torch.as_tensor(offset, device=x.device)
    places = (torch.arange(x.shape[2], device=x.device) + start.unsqueeze(-1)).to(dtype)  # (B, T) or (T,)
    angle = places.unsqueeze(-2).unsqueeze(-1) * theta.to(dtype).unsqueeze(1)  # ([B,] H, T, D)
    wide = x.to(dtype)
    return torch.cat((wide * angle.cos(), wide * angle.sin()), -1).to(x.dtype)
