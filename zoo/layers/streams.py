"""States of streams: pick rows, put rows in, cut gradients, save and load. B streams side by side.

A state is what `initial_state(batch_size)` gives and `step` returns: tensors with B first, in (named) tuples,
lists, mappings or dataclasses. A number, or a tensor without dimensions, is shared by all streams.
A state that cannot be joined row by row brings `put_rows(rows, other)` of its own, as the KV cache does;
where it has a place per token, `of_any_age` and `by_age` do the work. Every `step` begins with `check_state`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError

S = TypeVar("S")
#: Sizes of a tensor; `None` for one that grows.
Shape = tuple[int | None, ...]


def check_state(
    state: object, kind: type[Any], shapes: Mapping[str, Shape], *, dtype: torch.dtype | None = None
) -> None:
    """Refuse a state that is not one of this layer for so many streams.

    shapes: of its tensors, streams first, by name: `{"keys": (B, H, None, d)}`, "memory.0" for one within
        another, "" where the state is one tensor. Others are not looked at.
    dtype: of those that hold floating point numbers.

    Raises:
        ValueError: says what was given and what was expected.
    """
    if not isinstance(state, kind):
        raise ValueError(
            f"state must be a {kind.__name__}, as initial_state() and step() of this layer give it, "
            f"got a {type(state).__name__}"
        )
    for name, shape in shapes.items():
        tensor = _part(state, name)
        where = _join("state", name) if name else "state"
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{where} must be a tensor {_written(shape)}, got a {type(tensor).__name__}")
        if tensor.dim() != len(shape) or not all(map(_fits, tensor.shape[1:], shape[1:])):
            raise ValueError(
                f"{where} must be {_written(shape)} in this layer, got {tuple(tensor.shape)}: "
                "the state is of another one"
            )
        if shape and not _fits(tensor.shape[0], shape[0]):
            raise ValueError(
                f"the state is of {tensor.shape[0]} streams, but x holds {shape[0]}; "
                f"begin with initial_state({shape[0]})"
            )
        if dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype:
            raise ValueError(f"{where} must be {dtype} in this layer, got {tensor.dtype}")


def _part(state: Any, name: str) -> Any:
    """What stands under this name, e.g. `layers.0.m`; `None` where nothing does."""
    for key in filter(None, name.split(".")):
        if key.isdigit():
            state = state[int(key)] if isinstance(state, Sequence) and int(key) < len(state) else None
        else:
            state = getattr(state, key, None)
    return state


def _fits(found: int, expected: int | None) -> bool:
    return expected is None or found == expected


def _written(shape: Shape) -> str:
    sizes = ["any" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def select_rows(state: S, rows: Tensor) -> S:
    """The state of some of the streams, in this order: those that go on.

    rows: int64 (R,), or bool (B,), True = keep.

    Raises:
        ValueError: a row that the state does not have.
    """
    size = rows_of(state)
    index = _index(rows, size)
    return _each(state, lambda leaf: leaf.index_select(0, index.to(leaf.device)) if leaf.dim() else leaf)


def put_rows(state: S, rows: Tensor, other: S) -> S:
    """The state with these rows replaced by the streams of `other`, e.g. `initial_state(R)`: they start anew.

    rows: int64 (R,), without repetition, or bool (B,); `other` holds R streams.

    Raises:
        ValueError: no such rows, another number of streams in `other`, or streams that cannot stand side by
            side: their tensors differ in shape or type, or a counter that all streams share differs.
    """
    index = _index(rows, rows_of(state))
    count = rows_of(other)
    if count != len(index):
        raise ValueError(f"there are {len(index)} rows to put in, but the other state holds {count} streams")
    if len(index.unique()) != len(index):
        raise ValueError(f"rows must differ, got {index.tolist()}")
    return _put(state, index, other)


def step_rows(step: Callable[..., tuple[Tensor, S]], x: Tensor, state: S, active: Tensor) -> tuple[Tensor, S]:
    """`step(x, state)` for the active streams only; the others keep their state and give zeros.

    x: (B, C, ...); active: bool (B,), True = has C tokens now.

    Raises:
        ValueError: `active` is not bool (B,), or as `put_rows`.
    """
    if active.dtype != torch.bool or active.shape != x.shape[:1]:
        got = f"{active.dtype} {tuple(active.shape)}"
        raise ValueError(f"active must be bool ({len(x)},), one for each stream, got {got}")
    if bool(active.all()):
        return step(x, state)
    index = active.nonzero().squeeze(1)
    # Without any active stream one is stepped all the same, for the shape of the outputs.
    stepped = index if len(index) else index.new_zeros(1)
    y, new = step(x[stepped], select_rows(state, stepped))
    outputs = y.new_zeros(len(x), *y.shape[1:])
    if len(index) == 0:
        return outputs, state
    return outputs.index_copy(0, index, y), put_rows(state, index, new)


def by_age(
    step: Callable[[Tensor, S, int], tuple[Tensor, S]], x: Tensor, state: S, ages: Tensor
) -> tuple[Tensor, S]:
    """`step(x, state, age)` for the streams of each age in turn. x: (B, C, D), ages: int64 (B,).

    Raises:
        ValueError: as many streams in the state as in x there must be.
    """
    if ages.shape != x.shape[:1]:
        raise ValueError(f"the state is of {ages.numel()} streams, but x holds {len(x)}: {tuple(x.shape)}")
    found = ages.unique().tolist()
    if len(found) < 2:
        return step(x, state, found[0] if found else 0)
    pieces, order = [], []
    for age in found:
        rows = (ages == age).nonzero().squeeze(1)
        y, new = step(x[rows], select_rows(state, rows), age)
        state = put_rows(state, rows, new)
        pieces.append(y)
        order.append(rows)
    return torch.cat(pieces)[torch.cat(order).argsort()], state


def of_any_age(kind: type[S]) -> type[S]:
    """Marks a class of states with a place per token: its `put_rows` is `put_padded`."""
    kind.put_rows = put_padded  # type: ignore[attr-defined]
    return kind


def put_padded(state: S, index: Tensor, other: S) -> S:
    """`put_rows` where tensors (B, H, n, ...) have a place per token: the shorter ones get zeros at the end.

    Which places are a stream's own must follow from something else in the state, as how many tokens each
    stream has seen, int64 (B,).
    """
    if type(state) is not type(other):
        raise ValueError(f"a {type(other).__name__} cannot be put into a {type(state).__name__}")
    others = dict(_leaves(other))
    return _map(state, lambda name, ours: _put_padded(name, ours, index, others[name]))


def _put_padded(name: str, ours: Tensor, index: Tensor, theirs: Tensor) -> Tensor:
    if ours.dim() > 1:
        if len({(t.shape[1], t.shape[3:], t.dtype) for t in (ours, theirs)}) > 1:
            raise ValueError(
                f"{name}: streams of layers of other sizes or types cannot stand side by side: "
                f"{tuple(ours.shape)} {ours.dtype} and {tuple(theirs.shape)} {theirs.dtype}"
            )
        most = max(ours.shape[2], theirs.shape[2])
        ours, theirs = (F.pad(t, (*(0, 0) * (t.dim() - 3), 0, most - t.shape[2])) for t in (ours, theirs))
    return ours.index_copy(0, index.to(ours.device), theirs.to(ours.device))


def detach_state(state: S) -> S:
    """The same state, cut off from the past: truncated backpropagation through time."""
    return _each(state, Tensor.detach)


def rows_of(state: Any) -> int:
    """How many streams a state holds.

    Raises:
        ValueError: its tensors disagree, or none says it.
    """
    sizes = {len(leaf) for _, leaf in _leaves(state) if isinstance(leaf, Tensor) and leaf.dim()}
    if len(sizes) != 1:
        found = f"tensors of {sorted(sizes)} rows" if sizes else "no tensor with rows"
        raise ValueError(f"a state holds tensors with as many rows as streams, got {found}")
    return sizes.pop()


def save_state(state: Any, path: str | Path) -> None:
    """Write a state as safetensors; a file is either complete or not there.

    Raises:
        ZooError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    # Copies: leaves may share memory, which safetensors refuses.
    tensors = {
        name: torch.as_tensor(leaf).detach().clone().contiguous()
        for name, leaf in _leaves(state)
        if leaf is not None
    }
    try:
        save_file(tensors, partial)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise ZooError(f"{path}: cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def load_state(path: str | Path, *, like: S) -> S:
    """Read a state; runs no code.

    like: a state of the same model, e.g. `model.initial_state(1)`: it gives the structure and where tensors
        lie, whatever its number of streams.

    Raises:
        ZooError: no such file, a damaged one, or the state of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ZooError(f"{path}: cannot be read as a state: {error}") from None
    expected = dict(_leaves(like))
    missing = [name for name, leaf in expected.items() if leaf is not None and name not in tensors]
    strange = sorted(tensors.keys() - expected.keys())
    if missing or strange:
        raise ZooError(f"{path}: is the state of another model: {missing} missing, {strange} unexpected")

    def read(name: str, leaf: Any) -> Any:
        found = tensors.get(name)
        if isinstance(leaf, Tensor) and found is not None:
            if found.dtype != leaf.dtype or found.dim() != leaf.dim():
                raise ZooError(
                    f"{path}: {name} is {found.dtype} of {found.dim()} dimensions, "
                    f"expected {leaf.dtype} of {leaf.dim()}"
                )
            return found.to(leaf.device)
        return found.item() if isinstance(leaf, Number) and found is not None else found

    return _map(like, read)


def _index(rows: Tensor, size: int) -> Tensor:
    """Rows as int64 (R,)."""
    if rows.dtype == torch.bool:
        if rows.shape != (size,):
            raise ValueError(f"a bool of rows must be ({size},), one per stream, got {tuple(rows.shape)}")
        return rows.nonzero().squeeze(1)
    if rows.dim() != 1 or rows.is_floating_point():
        raise ValueError(f"rows must be int64 (R,) or bool ({size},), got {rows.dtype} {tuple(rows.shape)}")
    if torch.compiler.is_compiling() or rows.is_meta:  # there are no numbers to look at
        return rows.long()
    if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < size):
        raise ValueError(f"rows must lie within 0..{size - 1}, the streams of the state, got {rows.tolist()}")
    return rows.long()


def _put(state: Any, index: Tensor, other: Any, name: str = "state") -> Any:
    if hasattr(state, "put_rows"):
        return state.put_rows(index, other)
    if type(state) is not type(other):
        raise ValueError(f"{name}: a {type(other).__name__} cannot be put into a {type(state).__name__}")
    if isinstance(state, Tensor) and state.dim():
        if state.shape[1:] != other.shape[1:] or state.dtype != other.dtype:
            ours, theirs = (f"{tuple(t.shape[1:])} {t.dtype}" for t in (state, other))
            raise ValueError(f"{name}: streams of {ours} and of {theirs} cannot stand side by side")
        return state.index_copy(0, index.to(state.device), other.to(state.device))
    if isinstance(state, (Tensor, Number)) or state is None:
        if not bool(state == other):
            raise ValueError(f"{name}: streams share this number, but it is {state} here and {other} there")
        return state
    mine, others = dict(_items(state)), dict(_items(other))
    if list(mine) != list(others):
        raise ValueError(f"{name}: holds {', '.join(mine)}, but the other {', '.join(others)}")
    return _like(state, {key: _put(part, index, others[key], _join(name, key)) for key, part in mine.items()})


def _each(state: S, change: Callable[[Tensor], Tensor]) -> S:
    return _map(state, lambda _, leaf: change(leaf) if isinstance(leaf, Tensor) else leaf)


def _map(state: Any, change: Callable[[str, Any], Any], name: str = "") -> Any:
    """The same structure with every leaf changed; its name says where it stands."""
    if state is None or isinstance(state, (Tensor, Number)):
        return change(name, state)
    return _like(state, {key: _map(part, change, _join(name, key)) for key, part in _items(state)})


def _leaves(state: Any) -> Iterator[tuple[str, Any]]:
    """Every leaf with its name, e.g. `layers.0.m`."""
    found: list[tuple[str, Any]] = []
    _map(state, lambda name, leaf: found.append((name, leaf)))
    return iter(found)


def _items(state: Any) -> list[tuple[str, Any]]:
    """What a container holds, by name."""
    if isinstance(state, Mapping):
        return [(str(key), part) for key, part in state.items()]
    if isinstance(state, (list, tuple)):
        names = getattr(state, "_fields", None) or [str(i) for i in range(len(state))]
        return list(zip(names, state, strict=True))
    if dataclasses.is_dataclass(state):
        return [(field.name, getattr(state, field.name)) for field in dataclasses.fields(state)]
    raise ValueError(f"a state holds tensors, numbers and None, not a {type(state).__name__}")


def _like(state: Any, parts: dict[str, Any]) -> Any:
    """A container of the same type with other contents."""
    if isinstance(state, Mapping):
        return dict(zip(state, parts.values(), strict=True))
    if dataclasses.is_dataclass(state):
        return dataclasses.replace(state, **parts)  # type: ignore[type-var]
    return type(state)(*parts.values()) if hasattr(state, "_fields") else type(state)(parts.values())


def _join(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)
