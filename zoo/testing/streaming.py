"""Streams: `initial_state(batch)` and `step(x, state) -> (y, state)` against the parallel form."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.testing.measure import CLOSE, SAME, require, require_close
from zoo.testing.subject import Subject

STEPS = (1, 3, 7)
#: Tokens seen when the state is measured.
SEEN = (16, 64, 256, 1024)
#: Tokens per step meanwhile; and then all in one step.
PIECE = 16
#: What the state may grow by between the last two: with four times the tokens.
GROWTH = {"constant": 1.0, "window": 1.0, "logarithmic": 1.6, "linear": 4.4}


def check_streams(subject: Subject) -> None:
    module: Any = subject.build(causal=True)
    for n in subject.lengths(23, 140):
        x = subject.sample(2, n, dtype=torch.float64)
        with torch.no_grad():
            parallel = subject.run(module, x)
            for size in STEPS:
                pieces, _ = _feed(module, x, module.initial_state(2), [size] * (n // size + 1))
                require_close(pieces, parallel, CLOSE, f"{n} tokens in steps of {size}, against all at once")


def check_streams_on(subject: Subject) -> None:
    module: Any = subject.build(causal=True)
    for n in subject.lengths(150):
        x = subject.sample(2, n, dtype=torch.float64)
        with torch.no_grad():
            parallel = subject.run(module, x)
            for prefix in (2, 16, 33, 100):
                sizes = [prefix, 1, 7, 3, 1, *([11] * n)]
                pieces, _ = _feed(module, x, module.initial_state(2), sizes)
                what = f"{prefix} tokens, then steps of 1, 7, 3, 1, 11, ..., against all at once"
                require_close(pieces, parallel, CLOSE, what)


def check_state_pure(subject: Subject) -> None:
    module: Any = subject.build(causal=True)
    n = subject.lengths(12)[-1]
    half = max(n // 2, 1)
    x, other = (subject.sample(2, n, seed=seed, dtype=torch.float64) for seed in (0, 1))
    with torch.no_grad():
        _, state = module.step(x[:, :half], module.initial_state(2))
        before = [t.clone() for t in _tensors(state)]
        first, _ = module.step(x[:, half:], state) if half < n else (x, None)
        module.step(other, module.initial_state(2))  # another stream in between
        for old, new in zip(before, _tensors(state), strict=True):
            require(torch.equal(old, new), "step() changed the state that it was given; return a new one")
        if half < n:
            again, _ = module.step(x[:, half:], state)
            require_close(again, first, SAME, "the same step from the same state, after another stream")


def check_state_size(subject: Subject) -> None:
    claim = subject.claims.state
    seen = subject.lengths(*(4 * n if claim == "window" else n for n in SEEN))
    module: Any = subject.build(causal=True, max_tokens=seen[-1])
    for piece in (PIECE, seen[-1]):
        sizes = {n: _state_size(subject, module, n, piece=piece) for n in seen}
        how = "all at once" if piece > PIECE else f"{piece} at a time"
        measured = ", ".join(f"{size} after {n}" for n, size in sizes.items())
        said = f"the state is claimed {claim!r}, but keeps alive (bytes): {measured} tokens, {how}"
        *_, before, last = [0, *sizes.values()]
        if claim == "constant":
            require(len(set(sizes.values())) == 1, f"{said}. A view keeps all of what it looks at: clone it")
        else:
            require(
                last <= GROWTH[claim] * max(before, 1) or len(seen) < len(SEEN),
                f"{said}. Four times the tokens may give {GROWTH[claim]} times the bytes",
            )


def _state_size(subject: Subject, module: Any, n: int, *, piece: int) -> int:
    """Bytes of the state after n tokens, in steps of `piece` tokens, the first one shorter."""
    x = subject.sample(1, n, dtype=torch.float64)
    with torch.no_grad():
        _, state = _feed(module, x, module.initial_state(1), [n % piece, *([piece] * (n // piece))])
    return _bytes(state)


def _feed(module: Any, x: Tensor, state: Any, sizes: Sequence[int]) -> tuple[Tensor, Any]:
    """x in pieces of these sizes, until one of the two ends."""
    pieces, start = [], 0
    for size in filter(None, sizes):
        piece = x[:, start : start + size]
        if piece.shape[1] == 0:
            break
        y, state = module.step(piece, state)
        pieces.append(y)
        start += size
    return torch.cat(pieces, 1), state


def _tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor in a state, however it is nested."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _tensors(value)
    elif dataclasses.is_dataclass(state):
        yield from _tensors([getattr(state, field.name) for field in dataclasses.fields(state)])


def _bytes(state: Any) -> int:
    """Memory that the state keeps alive: whole storages, for a view holds all of what it looks at."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(state)}
    return sum(storages.values())
