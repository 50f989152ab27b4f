"""Streams: `initial_state(batch)` and `step(x, state) -> (y, state)` against the parallel form."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.layers.streams import detach_state, load_state, put_rows, save_state, select_rows
from zoo.testing.check import ConformanceError
from zoo.testing.measure import CLOSE, SAME, difference, require, require_close
from zoo.testing.subject import WIDTHS, Subject, subject_of

STEPS = (1, 3, 7)
#: How far outputs may be off that come from a float32 state, relative to the largest.
COARSE = 1e-3
#: A longer stream, fed in steps of its own.
LONG, LONG_STEP = 300, 37
#: Bytes that a number outside of any tensor counts for.
NUMBER = 8
#: Tokens seen when the state is measured.
SEEN = (16, 64, 256, 1024)
#: Tokens per step meanwhile; and then all in one step.
PIECE = 16
#: What the state may grow by between the last two: with four times the tokens.
GROWTH = {"constant": 1.0, "window": 1.0, "logarithmic": 1.6, "linear": 4.4}


def check_streams(subject: Subject) -> None:
    module: Any = subject.build(causal=True)
    for n in subject.lengths(61) if subject.variant else subject.lengths(23, 140):
        x = subject.sample(2, n, dtype=torch.float64)
        with torch.no_grad():
            parallel = subject.run(module, x)
            for size in STEPS:
                pieces, _ = _feed(module, x, module.initial_state(2), [size] * (n // size + 1))
                require_close(pieces, parallel, CLOSE, f"{n} tokens in steps of {size}, against all at once")
    if subject.variant:
        return
    n = subject.lengths(LONG)[-1]
    module = subject.build(causal=True, max_tokens=LONG)
    x = subject.sample(2, n, dtype=torch.float64)
    with torch.no_grad():
        pieces, _ = _feed(module, x, module.initial_state(2), [LONG_STEP] * (n // LONG_STEP + 1))
        what = f"{n} tokens in steps of {LONG_STEP}, against all at once"
        require_close(pieces, subject.run(module, x), CLOSE, what)


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
        before = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in _leaves(state)]
        first, _ = module.step(x[:, half:], state) if half < n else (x, None)
        module.step(other, module.initial_state(2))  # another stream in between
        after = list(_leaves(state))
        same = len(before) == len(after) and all(map(_same, before, after))
        require(same, "step() changed the state that it was given; return a new one")
        if half < n:
            again, _ = module.step(x[:, half:], state)
            require_close(again, first, SAME, "the same step from the same state, after another stream")


def check_state_rows(subject: Subject) -> None:
    module: Any = subject.build(causal=True)
    n = subject.lengths(23)[-1]
    half = max(n // 2, 1)
    x = subject.sample(3, n + 1, dtype=torch.float64)
    before, after = x[:, :half], x[:, half:n] if half < n else x[:, n:]
    with torch.no_grad():
        _, state = module.step(before, module.initial_state(3))
        expected, _ = module.step(after, state)
        rows = torch.tensor([2, 0])
        some, _ = module.step(after[rows], select_rows(state, rows))
        require_close(some, expected[rows], CLOSE, "two of three streams, selected and swapped")
        with TemporaryDirectory() as folder:
            save_state(state, Path(folder) / "state.safetensors")
            loaded = load_state(Path(folder) / "state.safetensors", like=module.initial_state(1))
        again, _ = module.step(after, detach_state(loaded))
        require_close(again, expected, SAME, "a state that was saved, loaded and detached")
        try:
            mixed = put_rows(state, torch.tensor([1]), module.initial_state(1))
        except ValueError:
            return  # streams of different ages cannot stand side by side, and it says so
        got, _ = module.step(after, mixed)
        expected[1:2], _ = module.step(after[1:2], module.initial_state(1))
        require_close(got, expected, CLOSE, "three streams of which one started anew")


class Stranger(NamedTuple):
    """A state that no component has."""

    past: Tensor


def check_state_foreign(subject: Subject) -> None:
    module: Any = subject.build(causal=True)
    x = subject.sample(2, subject.lengths(5)[-1], dtype=torch.float64)
    expected, own = module.step(x, module.initial_state(2))
    for what, state, words in _foreign(subject, module, own):
        try:
            with torch.no_grad():
                y, _ = module.step(x, state)
        except (ValueError, ZooError) as error:
            said = str(error)
            missing = [word for word in ("state", *words) if word not in said]
            require(not missing, f"{what} is refused without naming {' and '.join(missing)}: {said}")
        except Exception as error:
            raise ConformanceError(
                f"{what} ends in {type(error).__name__}: {error}; raise a ValueError that says what was "
                "given and what was expected (zoo.layers.check_state)"
            ) from error
        else:
            # It may make a state of another type its own.
            taken = what.startswith("a float32") and y.dtype == x.dtype and difference(y, expected) < COARSE
            require(taken, f"{what} is taken without a word (zoo.layers.check_state refuses it)")


def _foreign(subject: Subject, module: Any, own: Any) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """States that are not those of `module`, what they are, and words that the refusal must have."""
    garbage: list[Any] = [None, (), {}, 7, "state", Stranger(torch.zeros(2, 4)), Stranger(torch.zeros(2))]
    for nonsense in garbage:
        named = () if isinstance(nonsense, type(own)) else (type(nonsense).__name__,)
        yield f"{nonsense!r} for a state", nonsense, named
    for kind, name in (("mixer", "core/softmax"), ("model", "core/transformer")):
        if subject.catalogue.has(kind, name) and name != subject.spec.id:
            other = subject_of(subject.catalogue.get(kind, name), subject.catalogue)
            yield f"a state of {kind} {name}", _state_of(other, 2), ()
    for streams in (1, 3):
        yield f"a state of {streams} streams for 2", _state_of(subject, streams), ("2", str(streams))
    yield "a float32 state for a float64 module", _state_of(subject, 2, dtype=torch.float32), ("float32",)
    sizes = [{"width": width} for width in WIDTHS if width > subject.width][:1]
    sizes += [{"heads": 2}] if subject.spec.kind == "mixer" else []
    for size in sizes:
        try:
            state = _state_of(subject.resized(**size), 2)
        except ValueError:  # it cannot be built with this width
            continue
        given = ", ".join(f"{name} {value}" for name, value in size.items())
        if _form(state) != _form(own):  # else it could be its own
            yield f"a state of a module of {given}", state, ()


def _form(state: Any) -> list[Any]:
    """What a state looks like, whatever its numbers."""
    return [(t.shape, t.dtype) if isinstance(t, Tensor) else type(t) for t in _leaves(state)]


def _state_of(subject: Subject, streams: int, dtype: torch.dtype = torch.float64) -> Any:
    module: Any = subject.build(causal=True, dtype=dtype)
    x = subject.sample(streams, subject.lengths(5)[-1], dtype=dtype)
    with torch.no_grad():
        return module.step(x, module.initial_state(streams))[1]


def check_state_size(subject: Subject) -> None:
    claim = subject.claims.state
    wanted = SEEN[:-1] if subject.variant else SEEN
    seen = subject.lengths(*(4 * n if claim == "window" else n for n in wanted))
    module: Any = subject.build(causal=True, max_tokens=seen[-1])
    for piece in (PIECE, seen[-1]):
        sizes = {n: _state_size(subject, module, n, piece=piece) for n in seen}
        how = "all at once" if piece > PIECE else f"{piece} at a time"
        measured = ", ".join(f"{size} after {n}" for n, size in sizes.items())
        said = f"the state is claimed {claim!r}, but keeps alive (bytes): {measured} tokens, {how}"
        *earlier, last = sizes.values()
        before = max(earlier, default=0)  # a block that is begun anew holds less than one that is nearly full
        if claim == "constant":
            require(len(set(sizes.values())) == 1, f"{said}. A view keeps all of what it looks at: clone it")
        else:
            require(
                last <= GROWTH[claim] * max(before, 1) or len(seen) < len(wanted),
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


def _leaves(state: Any) -> Iterator[Any]:
    """Every tensor and number in a state, however it is nested.

    Raises:
        ConformanceError: the state holds something else, which nobody could measure.
    """
    if isinstance(state, (Tensor, Number)):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _leaves(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _leaves(value)
    elif dataclasses.is_dataclass(state):
        yield from _leaves([getattr(state, field.name) for field in dataclasses.fields(state)])
    else:
        require(
            state is None,
            f"the state holds a {type(state).__module__}.{type(state).__qualname__}; a state is tensors in "
            "tuples, NamedTuples, lists, mappings, dataclasses, None or numbers",
        )


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor):
        return isinstance(new, Tensor) and torch.equal(old, new)
    return not isinstance(new, Tensor) and bool(old == new)


def _bytes(state: Any) -> int:
    """Memory that the state keeps alive: whole storages, for a view holds all of what it looks at."""
    leaves = list(_leaves(state))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) + NUMBER * (len(leaves) - len(tensors))
