"""Splits and batches: whatever way a batch is made, it is the same batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from zoo.data.batch import collate, mask_of
from zoo.data.split import Readings, Splits, TensorSplit, TokenWindows
from zoo.errors import ZooError
from zoo.kinds import IGNORE


def ragged_split(lengths, channels=3):
    lengths = torch.tensor(lengths)
    x = torch.randn(
        len(lengths), int(lengths.max()) + 2, channels, generator=torch.Generator().manual_seed(0)
    )
    x[torch.arange(x.shape[1]) >= lengths[:, None]] = 0
    return TensorSplit(x, torch.arange(len(lengths)), lengths=lengths)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_ready_batch_equals_collated_examples():
    split = ragged_split([4, 7, 1, 5])
    for indices in ([0, 1, 2, 3], [2], [2, 0], [1, 1, 3]):
        joined = collate([split[i] for i in indices])
        ready = split.__getitems__(indices)
        if "length" not in joined:  # examples of one length do not tell that the dataset is ragged
            assert torch.equal(ready.pop("length"), torch.full((len(indices),), joined["input"].shape[1]))
        assert same(ready, joined)


def test_examples_come_back_out_of_a_padded_batch():
    split = ragged_split([4, 7, 1, 5])
    batch = split.__getitems__([3, 1, 2])
    mask = mask_of(batch)
    assert batch["input"].shape == (3, 7, 3) and mask.shape == (3, 7) and mask.dtype == torch.bool
    for row, index in enumerate([3, 1, 2]):
        assert torch.equal(batch["input"][row][mask[row]], split[index]["input"])
    assert (batch["input"][~mask] == 0).all()


def test_mask_is_none_without_padding():
    assert mask_of(collate([{"input": torch.ones(3, 2)}, {"input": torch.ones(3, 2)}])) is None


def test_targets_per_token_are_padded_with_ignore():
    examples = [{"input": torch.arange(n), "target": torch.arange(n) + 1} for n in (2, 4)]
    batch = collate(examples)
    assert batch["input"].tolist() == [[0, 1, 0, 0], [0, 1, 2, 3]]
    assert batch["target"].tolist() == [[1, 2, IGNORE, IGNORE], [1, 2, 3, 4]]
    assert batch["length"].tolist() == [2, 4]
    split = TensorSplit(batch["input"], batch["target"], lengths=batch["length"])
    assert same(collate([split[0], split[1]]), batch)
    assert split.__getitems__([0])["target"].tolist() == [[1, 2]]


def test_values_and_images_are_stacked_and_data_to_predict_on_has_no_target():
    batch = collate([{"input": torch.zeros(1, 8, 8), "target": torch.tensor([0.5])}] * 2)
    assert batch["input"].shape == (2, 1, 8, 8) and batch["target"].tolist() == [[0.5], [0.5]]
    assert collate([{"input": torch.zeros(4)}]).keys() == {"input"}


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.zeros(4), torch.zeros(5)),
        (torch.zeros(1, 8, 8), torch.zeros(1, 8, 9)),
        (torch.zeros(4, 2), torch.zeros(4, 3)),
        (torch.zeros(4, 2), torch.zeros(4)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64)),
    ],
)
def test_examples_that_do_not_match_are_refused(inputs):
    with pytest.raises(ZooError, match="share a batch"):
        collate([{"input": x} for x in inputs])


def test_no_example_is_refused():
    with pytest.raises(ZooError, match="no example"):
        collate([])


def test_a_loader_sees_every_example_once():
    split = ragged_split([3, 1, 4, 1, 5, 9, 2])
    loader = DataLoader(split, batch_size=3, shuffle=True, collate_fn=collate)
    seen = [(t, n) for batch in loader for t, n in zip(batch["target"], batch["length"], strict=True)]
    assert sorted((int(t), int(n)) for t, n in seen) == list(enumerate([3, 1, 4, 1, 5, 9, 2]))


def test_positions_outside_a_split_end_a_loop():
    split = ragged_split([2, 3])
    assert [len(example["input"]) for example in split] == [2, 3]
    assert torch.equal(split[-1]["input"], split[1]["input"])
    with pytest.raises(IndexError):
        split[-3]


def test_tensors_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"\[3, 2\]"):
        TensorSplit(torch.zeros(3, 1), torch.zeros(2))
    for length in (0, 5):
        with pytest.raises(ValueError, match=r"1\.\.4"):
            TensorSplit(torch.zeros(1, 4, 2), torch.zeros(1), lengths=torch.tensor([length]))


@settings(deadline=None, max_examples=60)
@given(total=st.integers(2, 60), length=st.integers(1, 20), data=st.data())
def test_windows_cover_the_text_and_ask_once(total, length, data):
    length = min(length, total - 1)
    stride = data.draw(st.integers(1, length))
    ids = torch.arange(total)
    windows = TokenWindows(ids, length=length, stride=stride, once=True)
    asked = []
    for example in windows:
        assert example["input"].shape == example["target"].shape == (length,)
        scored = example["target"] != IGNORE
        assert scored.any()
        assert torch.equal(example["target"][scored], example["input"][scored] + 1)
        asked += example["target"][scored].tolist()
    assert asked == list(range(1, total))
    batch = windows.__getitems__(range(len(windows)))
    assert same(batch, collate([windows[i] for i in range(len(windows))]))


def test_train_windows_ask_everywhere():
    windows = TokenWindows(torch.arange(10), length=4, stride=2)
    batch = windows.__getitems__(range(len(windows)))
    assert batch["input"][:, 0].tolist() == [0, 2, 4, 5]
    assert torch.equal(batch["target"], batch["input"] + 1)


@given(total=st.integers(3, 40), length=st.integers(2, 9), times=st.integers(1, 4))
def test_readings_repeat_a_block_and_what_it_asks(total, length, times):
    windows = TokenWindows(torch.arange(total), length=(n := min(length, total - 1)), stride=n, once=True)
    readings = Readings(windows, times)
    assert len(readings) == len(windows)
    for example, block in zip(readings, windows, strict=True):
        assert example["input"].tolist() == block["input"].tolist() * times
        asked = example["target"].view(times, n)
        assert torch.equal(asked[-1], block["target"])
        assert torch.equal(asked[:-1, :-1], block["target"][:-1].expand(times - 1, -1))
        assert (asked[:-1, -1] == IGNORE).all()
    with pytest.raises(ValueError, match="at least once, got times=0"):
        Readings(windows, 0)


def test_a_text_shorter_than_a_block_is_refused():
    assert len(TokenWindows(torch.arange(5), length=4, stride=4)) == 1
    with pytest.raises(ZooError, match="block of 5 symbols needs 6, but there are 5"):
        TokenWindows(torch.arange(5), length=5, stride=5)
    with pytest.raises(ValueError, match="stride"):
        TokenWindows(torch.arange(5), length=2, stride=3)


@pytest.mark.parametrize("empty", ["train", "val", "test"])
def test_an_empty_split_is_refused(empty):
    full = TensorSplit(torch.zeros(2, 3), torch.zeros(2))
    none = TensorSplit(torch.zeros(0, 3), torch.zeros(0))
    splits = {"train": full, "val": full, "test": full}
    assert Splits(**splits).sizes == {"train": 2, "val": 2, "test": 2}
    with pytest.raises(ZooError, match=f"the {empty} split of this dataset is empty"):
        Splits(**{**splits, empty: none})


def test_worker_processes_give_the_same_batches():
    split = ragged_split([3, 1, 4, 1])
    here, there = (
        list(DataLoader(split, batch_size=2, collate_fn=collate, num_workers=workers)) for workers in (0, 1)
    )
    assert all(same(a, b) for a, b in zip(here, there, strict=True))
    assert np.all([len(b["target"]) == 2 for b in here])
