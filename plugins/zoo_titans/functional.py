"""The neural memory of Titans as pure functions: a small network that learns while it reads.

Shapes: B streams, H heads, T tokens, d_k channels of keys and queries, d_v of values. The memory M is a
network without biases, its weights private to each stream and head. With the loss
l(M; k, v) = loss_scale |M(k) - v|^2,

    S_t = eta_t S_{t-1} - theta_t grad l(M_{t'}; k_t, v_t)     eq. (14), surprise
    M_t = (1 - alpha_t) M_{t-1} + S_t                          eq. (13), forgetting
    y_t = M_t(q_t)                                             eq. (15)

where t' is the start of the chunk that t lies in (eq. 16): only the gradient is taken there; decay, momentum
and reading are per token. With chunk = 1 this is the exact recurrence. Behrouz, Zhong, Mirrokni, "Titans:
Learning to Memorize at Test Time", arXiv 2501.00663, section 3.1. Weights and sums are float32 (float64 for
float64 inputs).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor

from zoo.layers.precision import full_precision, sum_dtype
from zoo.layers.streams import put_rows, select_rows
from zoo_titans import checks
from zoo_titans.activation import ACTIVATIONS
from zoo_titans.chunk import Form
from zoo_titans.gates import GateProducts, Gates, gate_products
from zoo_titans.native import obstacle
from zoo_titans.scan import run_chunks
from zoo_titans.state import MemoryState

__all__ = [
    "GateProducts",
    "MemoryState",
    "gate_products",
    "neural_memory_read",
    "neural_memory_scan",
    "neural_memory_update",
]

S = TypeVar("S")
Act = Literal["silu", "gelu"]
Impl = Literal["auto", "native", "chunked", "autograd", "recurrent"]
Read = Literal["after", "before"]


def neural_memory_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    eta: Tensor,
    alpha: Tensor,
    state: MemoryState,
    *,
    chunk: int = 1,
    act: Act = "silu",
    residual: bool = False,
    loss_scale: float = 1.0,
    read: Read = "after",
    limit: float | None = None,
    valid: Tensor | None = None,
    impl: Impl = "auto",
    check_gates: bool = False,
) -> tuple[Tensor, MemoryState]:
    """Learn from every token and read at every token: (B, H, T, d_v), and the memory after the last one.

    Any split of the tokens into calls gives the same outputs and the same state as one call.

    q, k: (B, H, T, d_k); v: (B, H, T, d_v). Keys should have norm 1, see the stability rule in the README.
    theta, eta, alpha: (B, H, T): step, share of momentum kept, share of memory forgotten.
    state: `MemoryState.start(weights, B)`, or what an earlier call gave; detach it to cut the gradient there.
    chunk: tokens that share an anchor, counted from the stream's first.
    act: between the layers of the memory. residual: M(k) = k + network(k).
    loss_scale: 1 as in eq. (12); 0.5 as in the paper's appendix C.
    read: "after" as in eq. (15), y_t = M_t(q_t); "before": y_t = M_{t-1}(q_t).
    limit: soft bound on the Frobenius norm of a token's gradient for each layer; the paper has none.
    valid: bool (B, T), True = keep; other tokens change neither weights nor momentum, but count for chunks.
    impl: how, never what. "native": closed form as a loop in C, on CPU; "chunked": the same in tensor
        operations, with a backward of its own; "autograd": the same, differentiable any number of times;
        "recurrent": token by token, slow and obvious; "auto": "native" where it can be had, else "chunked".
    check_gates: look whether the gates are in their range, which costs a pass.

    Raises:
        ValueError: shapes, types or devices that do not fit together, a state of other streams or of a larger
            chunk, unknown options, gates out of range (`check_gates`), a memory that has exploded, "native"
            where it cannot be had.
    """
    form = Form(act, residual, loss_scale, limit)
    checks.options(chunk, form, read=read, impl=impl)
    checks.tokens_fit(q, k, v, {"theta": theta, "eta": eta, "alpha": alpha}, valid)
    checks.state_fits(state, k, v, form, chunk)
    if impl == "native" and (reason := obstacle(k, sum_dtype(k.dtype))):
        raise ValueError(f"impl 'native' {reason}; 'auto' takes what there is")
    if check_gates:
        checks.gates_in_range(theta, eta, alpha)
    if impl == "recurrent":
        from zoo_titans.reference import neural_memory_recurrent

        return neural_memory_recurrent(
            q, k, v, theta, eta, alpha, state, chunk=chunk, form=form, read=read, valid=valid
        )

    def together(phase: int, state: MemoryState, *x: Tensor) -> tuple[Tensor, MemoryState]:
        kept = x[6] if valid is not None else None
        return scan_in_phase(
            x[0],
            x[1],
            x[2],
            x[3],
            x[4],
            x[5],
            state,
            phase=phase,
            chunk=chunk,
            form=form,
            read=read,
            valid=kept,
            impl=impl,
        )

    more = () if valid is None else (valid,)
    return by_phase(together, state.phase, state, q, k, v, theta, eta, alpha, *more)


def neural_memory_update(
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    eta: Tensor,
    alpha: Tensor,
    state: MemoryState,
    *,
    chunk: int = 1,
    act: Act = "silu",
    residual: bool = False,
    loss_scale: float = 1.0,
    limit: float | None = None,
    valid: Tensor | None = None,
) -> MemoryState:
    """Learn from every token without reading: the state that `neural_memory_scan` gives.

    Raises:
        ValueError: as `neural_memory_scan`.
    """
    form = Form(act, residual, loss_scale, limit)
    checks.options(chunk, form)
    checks.tokens_fit(None, k, v, {"theta": theta, "eta": eta, "alpha": alpha}, valid)
    checks.state_fits(state, k, v, form, chunk)

    def together(phase: int, state: MemoryState, *x: Tensor) -> tuple[Tensor, MemoryState]:
        kept = x[5] if valid is not None else None
        return scan_in_phase(
            None, x[0], x[1], x[2], x[3], x[4], state, phase=phase, chunk=chunk, form=form, valid=kept
        )

    more = () if valid is None else (valid,)
    return by_phase(together, state.phase, state, k, v, theta, eta, alpha, *more)[1]


def neural_memory_read(q: Tensor, state: MemoryState, *, act: Act = "silu", residual: bool = False) -> Tensor:
    """y = M(q) without learning, q: (B, H, T, d_k) -> (B, H, T, d_v) (eq. 15).

    Raises:
        ValueError: queries that do not fit the memory, an unknown activation.
    """
    checks.options(1, Form(act, residual))
    checks.layers_fit(state.weights)
    if q.dim() != 4 or q.shape[:2] != state.weights[0].shape[:2]:
        raise ValueError(
            f"expected q (B, H, T, d_k) with (B, H) {tuple(state.weights[0].shape[:2])}, got {tuple(q.shape)}"
        )
    checks.channels_fit(state.weights, q.shape[-1], None, Form(act, residual))
    return read_weights(q, state.weights, act=act, residual=residual)


def read_weights(q: Tensor, weights: tuple[Tensor, ...], *, act: str, residual: bool) -> Tensor:
    """The memory with these weights, without checks."""
    with full_precision(q.device):
        x = q.to(weights[0].dtype)
        first = x
        for depth, weight in enumerate(weights):
            x = x @ weight
            if depth < len(weights) - 1:
                x = ACTIVATIONS[act].value(x)
        return (x + first if residual else x).to(q.dtype)


def scan_in_phase(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    eta: Tensor,
    alpha: Tensor,
    state: MemoryState,
    *,
    phase: int,
    chunk: int,
    form: Form,
    read: str = "after",
    valid: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, MemoryState]:
    """`neural_memory_scan` where all streams have seen `phase` tokens of their chunk, without checks."""
    batch, heads, tokens, _ = k.shape
    out_dtype = v.dtype if q is None else q.dtype
    if tokens == 0:
        return v.new_zeros(v.shape), state
    dtype = sum_dtype(k.dtype)
    queries = k[:, :, :0] if q is None else q
    told = [t.to(dtype) for t in (queries, k, v)]  # (B, H, T, d)
    gates = [t.to(dtype) for t in (alpha, eta, theta)]  # (B, H, T)
    kept = None if valid is None else valid.unsqueeze(1).expand(-1, heads, -1)
    stacks = [
        torch.cat((w, s), 2).flatten(0, 1) for w, s in zip(state.weights, state.momentum, strict=True)
    ]  # (R, 2 n, m)
    anchor = [w.flatten(0, 1) for w in state.anchor]
    outputs = []
    with full_precision(k.device):
        for start, count, length in _pieces(tokens, phase, chunk):
            here = functools.partial(_cut, start=start, count=count, length=length)
            a, e, t = (here(gate) for gate in gates)
            x, keys, values = (here(part) for part in told)
            y, after = run_chunks(
                x,
                keys,
                values,
                Gates(a, e, t, None if kept is None else here(kept)),
                stacks,
                anchor if phase else [],
                form,
                before=read == "before",
                impl=impl,
            )
            outputs.append(y.unflatten(0, (batch, heads)).flatten(2, 3))
            if phase == 0 and length < chunk:  # a chunk begins and does not end here
                anchor = [_halves(stack)[0] for stack in stacks]
            phase = (phase + length) % chunk
            stacks = after
    # Copies: a view would keep all of what it looks at alive.
    halves = [[h.unflatten(0, (batch, heads)).clone() for h in _halves(stack)] for stack in stacks]
    weights, momentum = (tuple(parts) for parts in zip(*halves, strict=True))
    held = weights if phase == 0 else [w.unflatten(0, (batch, heads)) for w in anchor]
    checks.not_exploded(weights, k, v, theta, eta, chunk, form)
    new = MemoryState(weights, momentum, tuple(w.clone() for w in held), torch.full_like(state.phase, phase))
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
    return y.to(out_dtype), new


def by_phase(
    run: Callable[..., tuple[Tensor, S]], phase: Tensor, state: S, *tensors: Tensor
) -> tuple[Tensor, S]:
    """`run(phase, state, *tensors)` for all streams, those of one phase together.

    phase: int64 (B,); `run` takes it as a number, and gives outputs (B, ...) and the new state.
    """
    known = not (torch.compiler.is_compiling() or phase.is_meta)
    phases = sorted(set(phase.tolist())) if known else [0]
    if len(phases) <= 1:
        return run(phases[0] if phases else 0, state, *tensors)
    whole: Tensor | None = None
    for number in phases:
        rows = (phase == number).nonzero().squeeze(1)
        y, new = run(number, select_rows(state, rows), *(t[rows] for t in tensors))
        whole = y.new_zeros(len(phase), *y.shape[1:]) if whole is None else whole
        whole = whole.index_copy(0, rows, y)
        state = put_rows(state, rows, new)
    assert whole is not None
    return whole, state


def _pieces(tokens: int, phase: int, chunk: int) -> list[tuple[int, int, int]]:
    """(first token, chunks, tokens of each): the rest of a chunk, whole chunks, the start of one."""
    first = min(chunk - phase, tokens) if phase else 0
    whole = (tokens - first) // chunk
    rest = tokens - first - whole * chunk
    pieces = ((0, 1, first), (first, whole, chunk), (tokens - rest, 1, rest))
    return [piece for piece in pieces if piece[1] and piece[2]]


def _cut(x: Tensor, *, start: int, count: int, length: int) -> Tensor:
    """(B, H, T, ...) -> (R, n, C, ...), or (R, n, 0, ...) where x has no tokens at all."""
    if x.shape[2] == 0:
        return x.new_zeros(x.shape[0] * x.shape[1], count, *x.shape[2:])
    if count * length < x.shape[2]:
        x = x[:, :, start : start + count * length]
    return x.unflatten(2, (count, length)).flatten(0, 1)


def _halves(stack: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and momentum of a layer: (R, 2 n, m) -> (R, n, m) each."""
    weights, momentum = stack.chunk(2, dim=1)
    return weights, momentum
