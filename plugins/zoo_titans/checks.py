"""What the functions accept, and what they say otherwise. B streams, H heads, T tokens, C of a chunk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo_titans.activation import ACTIVATIONS

if TYPE_CHECKING:
    from zoo_titans.chunk import Form
    from zoo_titans.state import MemoryState

IMPLS = ("auto", "native", "chunked", "autograd", "recurrent")
READS = ("after", "before")
#: No weight of a memory that works is near this.
LARGEST = 1e6


def gates_fit(alpha: Tensor, eta: Tensor, theta: Tensor, valid: Tensor | None) -> None:
    """alpha, eta, theta: (..., C) floats, C >= 1; valid: bool (..., C)."""
    if not alpha.shape == eta.shape == theta.shape or alpha.dim() < 1 or alpha.shape[-1] < 1:
        raise ValueError(
            "expected alpha, eta and theta of one shape (..., C) with at least one token, got "
            f"{tuple(alpha.shape)}, {tuple(eta.shape)} and {tuple(theta.shape)}"
        )
    _floats(alpha=alpha, eta=eta, theta=theta)
    if valid is not None and (valid.dtype != torch.bool or valid.shape != alpha.shape):
        raise ValueError(
            f"valid must be bool {tuple(alpha.shape)}, True = keep, got {valid.dtype} {tuple(valid.shape)}"
        )


def tokens_fit(
    q: Tensor | None, k: Tensor, v: Tensor, gates: dict[str, Tensor], valid: Tensor | None
) -> None:
    """q, k: (B, H, T, d_k), v: (B, H, T, d_v), gates: (B, H, T) each, valid: bool (B, T)."""
    shapes = {name: tuple(t.shape) for name, t in (("q", q), ("k", k), ("v", v)) if t is not None}
    if k.dim() != 4 or v.dim() != 4 or v.shape[:3] != k.shape[:3] or (q is not None and q.shape != k.shape):
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected q, k (B, H, T, d_k) and v (B, H, T, d_v), got {found}")
    for name, gate in gates.items():
        if gate.shape != k.shape[:3]:
            raise ValueError(
                f"{name} must be {tuple(k.shape[:3])}, one for each token and head, got {tuple(gate.shape)}"
            )
    _floats(**({} if q is None else {"q": q}), k=k, v=v, **gates)
    batch, tokens = k.shape[0], k.shape[2]
    if valid is not None and (valid.dtype != torch.bool or tuple(valid.shape) != (batch, tokens)):
        raise ValueError(
            f"valid must be bool {(batch, tokens)}, True = keep, got {valid.dtype} {tuple(valid.shape)}"
        )


def gates_in_range(theta: Tensor, eta: Tensor, alpha: Tensor) -> None:
    """theta at least 0, eta and alpha in [0, 1]; reads the values, hence only where asked."""
    for name, gate, most in (("theta", theta, float("inf")), ("eta", eta, 1.0), ("alpha", alpha, 1.0)):
        inside = (gate >= 0) & (gate <= most)
        if not bool(inside.all()):
            where = tuple((~inside).nonzero()[0].tolist())
            span = "at least 0" if most == float("inf") else "between 0 and 1"
            raise ValueError(
                f"{name} must be {span}; at (stream, head, token) {where} it is {gate[where].item():g}"
            )


def state_fits(state: MemoryState, k: Tensor, v: Tensor, form: Form, chunk: int) -> None:
    """A memory of k's streams and heads, from d_k to d_v channels."""
    lead, dtype = tuple(k.shape[:2]), torch.float64 if torch.float64 in (k.dtype, v.dtype) else torch.float32
    layers_fit(state.weights)
    if len(state.momentum) != len(state.weights) or len(state.anchor) != len(state.weights):
        raise ValueError(
            f"the state has {len(state.weights)} layers of weights, but {len(state.momentum)} of momentum "
            f"and {len(state.anchor)} of the anchor"
        )
    for name in ("weights", "momentum", "anchor"):
        for index, (part, weight) in enumerate(zip(getattr(state, name), state.weights, strict=True)):
            if part.shape != weight.shape or tuple(part.shape[:2]) != lead:
                raise ValueError(
                    f"state.{name}[{index}] must be of (streams, heads) {lead} and as the weights "
                    f"{tuple(weight.shape)}, got {tuple(part.shape)}"
                )
            if part.dtype != dtype:
                raise ValueError(
                    f"state.{name}[{index}] must be {dtype} for these inputs (half types drift), "
                    f"got {part.dtype}"
                )
            if part.device != k.device:
                raise ValueError(f"state.{name}[{index}] is on {part.device}, but k on {k.device}")
    channels_fit(state.weights, k.shape[-1], v.shape[-1], form)
    if tuple(state.phase.shape) != lead[:1] or state.phase.is_floating_point():
        raise ValueError(
            f"state.phase must be int64 {lead[:1]}, got {state.phase.dtype} {tuple(state.phase.shape)}"
        )
    phase_fits(state.phase, chunk, "state.phase")


def phase_fits(phase: Tensor, chunk: int, name: str) -> None:
    """No stream has seen as many tokens of its chunk as chunks have."""
    if torch.compiler.is_compiling() or phase.is_meta:
        return  # values are not known here
    if bool((phase >= chunk).any()):
        raise ValueError(
            f"{name} must stay below chunk={chunk}, got {phase.tolist()}: "
            "the state was made with a larger chunk"
        )


def layers_fit(weights: Sequence[Tensor]) -> None:
    """One layer or more, (B, H, n_in, n_out) each, the output of one the input of the next."""
    shapes = [tuple(w.shape) for w in weights]
    chained = all(one[-1] == two[-2] for one, two in itertools.pairwise(shapes) if len(two) == 4)
    if not shapes or any(len(shape) != 4 for shape in shapes) or not chained:
        raise ValueError(
            f"a memory is one or more layers (B, H, n_in, n_out), each going on from the last, got {shapes}"
        )


def channels_fit(weights: Sequence[Tensor], d_k: int, d_v: int | None, form: Form) -> None:
    """The first layer takes keys, the last gives values."""
    first, last = weights[0].shape[-2], weights[-1].shape[-1]
    if d_k != first:
        raise ValueError(f"keys and queries have {d_k} channels, but the memory takes {first}")
    if d_v is not None and d_v != last:
        raise ValueError(f"values have {d_v} channels, but the memory gives {last}")
    if form.residual and first != last:
        raise ValueError(f"residual adds keys to values: {first} channels must be as many as {last}")


def options(chunk: int, form: Form, *, read: str = "after", impl: str = "auto") -> None:
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 token, got {chunk}")
    if form.act not in ACTIVATIONS:
        raise ValueError(f"act must be one of {', '.join(ACTIVATIONS)}, got {form.act!r}")
    if not form.loss_scale > 0:
        raise ValueError(f"loss_scale must be above 0, got {form.loss_scale}")
    if form.limit is not None and not form.limit > 0:
        raise ValueError(f"limit must be above 0, or None for no limit, got {form.limit}")
    if read not in READS:
        raise ValueError(f"read must be one of {', '.join(READS)}, got {read!r}")
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {', '.join(IMPLS)}, got {impl!r}")


def not_exploded(
    weights: Sequence[Tensor], k: Tensor, v: Tensor, theta: Tensor, eta: Tensor, chunk: int, form: Form
) -> None:
    """Refuse a memory that has diverged, with the rule that it breaks."""
    if torch.compiler.is_compiling() or weights[0].is_meta or weights[0].numel() == 0:
        return  # values are not known here
    with torch.no_grad():
        largest = torch.stack([w.abs().amax() for w in weights]).amax().item()
        if largest <= LARGEST:
            return
        for name, tensor in (("k", k), ("v", v), ("theta", theta), ("eta", eta)):
            bad = int((~tensor.isfinite()).sum())
            if bad:
                raise ValueError(
                    f"{name} holds {bad} values that are NaN or infinite: they end in the memory"
                )
        step, inertia = theta.max().item(), eta.max().item()
        span = min(chunk, k.shape[2])
        runs = float(span) if inertia >= 1 else (1 - inertia**span) / (1 - inertia)
    raise ValueError(
        f"the memory has exploded: its largest weight is {largest:.3g}. With keys of norm 1, learning is "
        "sure to be stable where 2 loss_scale theta chunk (1 - eta^chunk) / (1 - eta) is 1 or less; here it "
        f"is up to {2 * form.loss_scale * step * span * runs:.3g} (loss_scale {form.loss_scale:g}, theta "
        f"{step:.3g}, eta {inertia:.3g}, chunk {span}; largest key norm {k.norm(dim=-1).max().item():.3g}). "
        "Make theta, eta or chunk smaller, or bound each token's gradient with limit"
    )


def _floats(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {tensor.dtype}")
    if len({tensor.dtype == torch.float64 for tensor in tensors.values()}) > 1:
        found = ", ".join(f"{name} {tensor.dtype}" for name, tensor in tensors.items())
        raise ValueError(f"all inputs must be float64 or none, got {found}")
    if len({tensor.device for tensor in tensors.values()}) > 1:
        found = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"tensors must be on one device, got {found}")
