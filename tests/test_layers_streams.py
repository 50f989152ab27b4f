"""Streams side by side that start, pause and end at different times; their states, kept and read again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import zoo
from zoo.errors import ZooError
from zoo.layers import (
    Model,
    check_state,
    detach_state,
    load_state,
    of_any_age,
    put_padded,
    put_rows,
    save_state,
    select_rows,
)
from zoo.layers.streams import rows_of
from zoo.layers.transformer import TransformerState
from zoo.plugin import Labels, Series

STACKS: dict[str, dict[str, Any]] = {
    "aaren": {"layers": ["aaren/aaren"]},
    "softmax": {"layers": ["core/softmax"]},
    "rope": {"layers": ["core/softmax"], "positions": "rope"},
    "window": {"layers": ["core/softmax"], "mixer_params": {"core/softmax": {"window": 4}}},
    "blocks": {
        "layers": ["combiner/fixed", "combiner/logsparse"],
        "mixer_params": {"combiner/fixed": {"block_size": 4}},
    },
    "rows": {"layers": ["combiner/axial"], "mixer_params": {"combiner/axial": {"block_size": 4}}},
    "hybrid": {"layers": ["aaren/aaren", "core/softmax"], "norm_first": False},
}


def streaming(stack: str) -> Model:
    torch.manual_seed(0)
    options = STACKS[stack]
    model = zoo.create_model(
        "core/transformer",
        inputs=Series(channels=3, length=40),
        targets=Labels(count=5),
        width=16,
        causal=True,
        depth=2,
        **options,
    )
    return model.double().eval()


def series(batch: int, steps: int) -> Tensor:
    return torch.randn(batch, steps, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("stack", STACKS)
def test_each_stream_is_as_if_it_were_alone(stack: str) -> None:
    """A timetable drawn at random: streams pause, end and are replaced, in steps of one to three."""
    model, chance = streaming(stack), torch.Generator().manual_seed(2)
    source = series(12, 40)
    playing, seen, next_row = [0, 1, 2], [0, 0, 0], 3
    state = model.initial_state(3)
    got: dict[int, list[Tensor]] = {row: [] for row in range(12)}
    with torch.no_grad():
        for _ in range(18):
            active = torch.rand(3, generator=chance) < 0.6
            size = int(torch.randint(1, 4, (), generator=chance))
            x = torch.stack([source[row, at : at + size] for row, at in zip(playing, seen, strict=True)])
            y, state = model.step(x, state, active=active)
            assert not y[~active].any()
            for slot in active.nonzero().flatten().tolist():
                got[playing[slot]].append(y[slot])
                seen[slot] += size
                if seen[slot] > 8:  # this one ends; the next takes its place
                    playing[slot], seen[slot], next_row = next_row, 0, next_row + 1
                    state = put_rows(state, torch.tensor([slot]), model.initial_state(1))
        expected = model(source)
    assert next_row > 5
    for row, pieces in got.items():
        if pieces:
            outputs = torch.cat(pieces)
            torch.testing.assert_close(outputs, expected[row, : len(outputs)])


@pytest.mark.parametrize("stack", STACKS)
def test_a_state_survives_its_file(stack: str, tmp_path: Path) -> None:
    model, x = streaming(stack), series(3, 20)
    with torch.no_grad():
        _, state = model.step(x[:, :6], model.initial_state(3))
        _, other = model.step(x[:1, :9], model.initial_state(1))
        state = put_rows(state, torch.tensor([2]), other)  # now of different ages
        save_state(state, tmp_path / "streams.safetensors")
        loaded = load_state(tmp_path / "streams.safetensors", like=model.initial_state(1))
        assert type(loaded) is type(state)
        expected, _ = model.step(x[:, 9:12], state)
        again, _ = model.step(x[:, 9:12], loaded)
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
    with pytest.raises(ZooError, match="state of another model"):
        load_state(tmp_path / "streams.safetensors", like=(torch.zeros(1), torch.zeros(1)))
    with pytest.raises(ZooError, match=r"expected torch\.float32"):
        load_state(tmp_path / "streams.safetensors", like=streaming(stack).float().initial_state(1))
    (tmp_path / "bad").write_bytes(b"no tensors")
    for name in ("bad", "absent"):
        with pytest.raises(ZooError, match="cannot be read as a state"):
            load_state(tmp_path / name, like=state)
    with pytest.raises(ZooError, match="cannot be written"):
        save_state(state, tmp_path / "no" / "folder")


def test_a_detached_state_carries_no_gradient() -> None:
    model, x = streaming("hybrid"), series(2, 6)
    _, state = model.step(x, model.initial_state(2))
    y, _ = model.step(x, detach_state(state))
    with_past, _ = model.step(x, state)
    torch.testing.assert_close(y, with_past)
    name = "backbone.positions.weight"
    through = {n: p for n, p in model.named_parameters()}[name]
    (cut,) = torch.autograd.grad(y.sum(), through, retain_graph=True)
    (whole,) = torch.autograd.grad(with_past.square().sum(), through)
    assert not cut[:6].any() and cut[6:12].any()  # the first six positions lie beyond the cut
    assert whole[:6].any()


def test_a_model_refuses_other_states_and_timetables() -> None:
    model, x = streaming("hybrid"), series(2, 4)
    with pytest.raises(ValueError, match="state is of 3 streams, but x holds 2"):
        model.step(x, model.initial_state(3))
    with pytest.raises(ValueError, match=r"active must be bool \(2,\)"):
        model.step(x, model.initial_state(2), active=torch.ones(3, dtype=torch.bool))
    y, state = model.step(x, model.initial_state(2), active=torch.zeros(2, dtype=torch.bool))
    assert y.shape == (2, 4, 5) and not y.any()
    torch.testing.assert_close(model.step(x, state)[0], model(x))
    with pytest.raises(ValueError, match=r"state\.m must be torch.float32"):
        streaming("aaren").float().step(x.float(), streaming("aaren").initial_state(2))


class Pair(NamedTuple):
    first: Tensor
    second: Any


PAIR = {"first": (1, 3, None, 5), "second": (1,)}


@dataclass(frozen=True)
class Held:
    value: Tensor
    count: int


def test_containers_of_every_kind() -> None:
    state = {"a": Pair(torch.arange(6.0).view(3, 2), [None, torch.tensor(4)]), "b": Held(torch.ones(3), 7)}
    assert rows_of(state) == 3
    picked = select_rows(state, torch.tensor([True, False, True]))
    assert isinstance(picked["a"], Pair) and isinstance(picked["b"], Held)
    assert picked["a"].first.tolist() == [[0, 1], [4, 5]] and picked["b"].value.shape == (2,)
    back = put_rows(state, torch.tensor([1, 0]), picked)
    assert back["a"].first.tolist() == [[4, 5], [0, 1], [4, 5]]
    assert state["a"].first.tolist() == [[0, 1], [2, 3], [4, 5]]  # as it was


@pytest.mark.parametrize(
    ("rows", "other", "message"),
    [
        (torch.tensor([3]), torch.zeros(1, 2), "rows must lie within 0..2"),
        (torch.tensor([0, 0]), torch.zeros(2, 2), "rows must differ"),
        (torch.tensor([0]), torch.zeros(2, 2), "1 rows to put in, but the other state holds 2"),
        (torch.tensor([0.0]), torch.zeros(1, 2), "rows must be int64"),
        (torch.tensor([True]), torch.zeros(1, 2), r"must be \(3,\)"),
        (torch.tensor([0]), torch.zeros(1, 4), "cannot stand side by side"),
        (torch.tensor([0]), torch.zeros(1, 2).double(), "cannot stand side by side"),
        (torch.tensor([0]), [torch.zeros(1, 2)], "a list cannot be put into a Tensor"),
    ],
)
def test_mistakes_are_named(rows: Tensor, other: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        put_rows(torch.zeros(3, 2), rows, other)


@pytest.mark.parametrize(
    ("state", "got"),
    [
        (3, "must be a TransformerState, .* got a int"),
        (TransformerState(torch.zeros(1), ()), "must be of 2 layers, .* got one of 0 layers"),
        (TransformerState(torch.zeros(3), ()), "is of 3 streams, but x holds 1"),
        (
            TransformerState(torch.zeros(1, dtype=torch.int64), (None, None)),
            "must be an? AarenState, .* got a NoneType",
        ),
    ],
)
def test_a_state_of_something_else_is_named(state: Any, got: str) -> None:
    with pytest.raises(ValueError, match=f"state {got}"):
        streaming("aaren").step(series(1, 3), state)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (torch.zeros(1, 2), "must be a Pair, .* got a Tensor"),
        (Pair(torch.zeros(2, 3, 4, 5), torch.zeros(2)), "is of 2 streams, but x holds 1"),
        (
            Pair(torch.zeros(1, 3, 4, 6), torch.zeros(1)),
            r"first must be \(1, 3, any, 5\) .* got \(1, 3, 4, 6\)",
        ),
        (Pair(torch.zeros(1, 3, 4), torch.zeros(1)), r"first must be \(1, 3, any, 5\) .* got \(1, 3, 4\)"),
        (Pair(torch.zeros(1, 3, 4, 5), 7), r"second must be a tensor \(1,\), got a int"),
        (
            Pair(torch.zeros(1, 3, 4, 5), torch.zeros(1).double()),
            "second must be torch.float32 .*torch.float64",
        ),
    ],
)
def test_check_state_says_what_was_given_and_expected(state: Any, said: str) -> None:
    check_state(
        Pair(torch.ones(1, 3, 0, 5), torch.zeros(1, dtype=torch.int64)), Pair, PAIR, dtype=torch.float32
    )
    with pytest.raises(ValueError, match=f"state.{said}"):
        check_state(state, Pair, PAIR, dtype=torch.float32)


def test_check_state_looks_into_states_of_states() -> None:
    inner = {"layers.1.first": (2, 3), "layers.0": (2, 1)}
    state = TransformerState(torch.zeros(2), (torch.zeros(2, 1), Pair(torch.zeros(2, 3), torch.zeros(2))))
    check_state(state, TransformerState, inner)
    check_state(torch.zeros(2, 1), Tensor, {"": (2, 1)})
    with pytest.raises(ValueError, match=r"state.layers.1.first must be a tensor \(2, 3\), got a NoneType"):
        check_state(state._replace(layers=()), TransformerState, inner)
    with pytest.raises(ValueError, match=r"state must be \(2, 4\) in this layer, got \(2, 1\)"):
        check_state(torch.zeros(2, 1), Tensor, {"": (2, 4)})


@of_any_age
class Grown(NamedTuple):
    """A place per token, (B, H, n, d), and how many each stream has seen."""

    keys: Tensor
    seen: Tensor


def test_a_marked_state_takes_in_streams_of_other_ages() -> None:
    ours, other = Grown(torch.zeros(2, 3, 4, 5), torch.zeros(2)), Grown(torch.ones(1, 3, 6, 5), torch.ones(1))
    mixed = put_rows(ours, torch.tensor([False, True]), other)
    assert mixed.keys.shape == (2, 3, 6, 5) and mixed.seen.tolist() == [0, 1]
    with pytest.raises(ValueError, match="cannot stand side by side"):
        put_rows(Pair(*ours), torch.tensor([1]), Pair(*other))


def test_padded_streams_must_be_of_one_layer() -> None:
    ours, other = Pair(torch.zeros(2, 3, 4, 5), torch.zeros(2)), Pair(torch.ones(1, 3, 6, 5), torch.ones(1))
    put = put_padded(ours, torch.tensor([1]), other)
    assert put.first.shape == (2, 3, 6, 5) and put.second.tolist() == [0, 1]
    assert put.first[0].eq(0).all() and put.first[1].eq(1).all()
    with pytest.raises(ValueError, match=r"first: streams of layers of other sizes .* \(1, 3, 6, 2\)"):
        put_padded(ours, torch.tensor([1]), Pair(torch.ones(1, 3, 6, 2), torch.ones(1)))
    with pytest.raises(ValueError, match="a Held cannot be put into a Pair"):
        put_padded(ours, torch.tensor([1]), Held(torch.ones(1), 1))


def test_a_shared_counter_must_agree() -> None:
    old, new = (torch.zeros(2, 1), torch.tensor(5)), (torch.zeros(1, 1), torch.tensor(0))
    with pytest.raises(ValueError, match=r"1: streams share this number, but it is 5 here and 0 there"):
        put_rows(old, torch.tensor([0]), new)
    with pytest.raises(ValueError, match="as many rows as streams"):
        select_rows((torch.zeros(2), torch.zeros(3)), torch.tensor([0]))
    with pytest.raises(ValueError, match="not a str"):
        select_rows((torch.zeros(2), "x"), torch.tensor([0]))
