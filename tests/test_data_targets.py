"""Forecasting windows, several questions, missing values, labels: what is special about each set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from tools.make_bundled import draw_groups, join_groups
from zoo.config import ConfigError
from zoo.data.batch import collate, to_device
from zoo.data.bundled import read_arrays
from zoo.data.forecast import SeriesWindows, fill_forward, load_appliance_energy_small, split_by_time
from zoo.data.labels import draw, load_noisy_states, posterior
from zoo.data.questions import LOOPS, load_digits_mtl, load_hea_strength, parts_of_alloys, slant_of
from zoo.data.split import TensorSplit
from zoo.data.targets_config import (
    ApplianceEnergySmallConfig,
    DigitsMtlConfig,
    HeaStrengthConfig,
    NoisyStatesConfig,
    WindowsConfig,
)
from zoo.errors import ZooError
from zoo.kinds import IGNORE


def test_windows_are_the_series_and_what_follows() -> None:
    values = torch.arange(20.0)[:, None] * torch.tensor([1.0, 10.0])
    windows = SeriesWindows(values, length=5, horizon=3, stride=4)
    assert len(windows) == 4
    last = windows[-1]
    assert torch.equal(last["input"], values[12:17]) and torch.equal(last["target"], values[17:20])
    batch = windows.__getitems__([2, 0])
    assert torch.equal(batch["input"][1], values[:5]) and batch["target"].shape == (2, 3, 2)
    assert torch.equal(batch["input"][0], windows[2]["input"])
    with pytest.raises(IndexError):
        windows[4]


@pytest.mark.parametrize(("length", "horizon", "count"), [(19, 1, 1), (1, 1, 19), (10, 10, 1)])
def test_windows_at_the_edges(length: int, horizon: int, count: int) -> None:
    assert len(SeriesWindows(torch.zeros(20, 1), length=length, horizon=horizon)) == count


def test_a_series_too_short_for_a_window_is_refused() -> None:
    with pytest.raises(ZooError, match="needs 21, but a part of the series has 20"):
        SeriesWindows(torch.zeros(20, 1), length=20, horizon=1)
    with pytest.raises(ConfigError, match=r"together are 330 steps, but validation has only 329"):
        ApplianceEnergySmallConfig(length=306, horizon=24)
    longest = load_appliance_energy_small(ApplianceEnergySmallConfig(length=305, horizon=24))
    assert longest.sizes["val"] == 1


@pytest.mark.parametrize(("length", "horizon", "stride"), [(96, 24, 1), (10, 1, 7), (200, 129, 3)])
def test_no_step_of_one_part_is_in_a_window_of_another(length: int, horizon: int, stride: int) -> None:
    """Each step is its own number, so that it can be recognised wherever it turns up."""
    config = ApplianceEnergySmallConfig(length=length, horizon=horizon, stride=stride, relative=False)
    splits = split_by_time(torch.arange(3289.0, dtype=torch.float64)[:, None].repeat(1, 8), config)
    assert splits.decode is not None
    seen = []
    for part in (splits.train, splits.val, splits.test):
        batch = part.__getitems__(range(len(part)))  # type: ignore[attr-defined]
        steps = splits.decode(torch.cat([batch["input"], batch["target"]], dim=1)).round()
        seen.append(set(steps[..., 0].flatten().tolist()))
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert max(seen[0]) < min(seen[1]) and max(seen[1]) < min(seen[2])


def test_later_steps_do_not_change_how_the_earlier_are_scaled() -> None:
    config = ApplianceEnergySmallConfig(relative=False)
    raw = torch.from_numpy(read_arrays("appliance_energy_small.npz")["hundredths"]).double() / 100
    changed = raw.clone()
    changed[2302:] *= 3
    first, second = split_by_time(raw, config), split_by_time(changed, config)
    assert torch.equal(first.train[0]["input"], second.train[0]["input"])
    assert not torch.equal(first.val[0]["input"], second.val[0]["input"])


def test_relative_windows_differ_by_the_last_step_only() -> None:
    plain, relative = (
        load_appliance_energy_small(ApplianceEnergySmallConfig(relative=r)) for r in (False, True)
    )
    first, second = plain.test[7], relative.test[7]
    last = first["input"][-1]
    assert torch.allclose(second["input"], first["input"] - last) and not second["input"][-1].any()
    assert torch.allclose(second["target"], first["target"] - last)
    # What a user's series becomes, and what a forecast of it means.
    assert plain.decode and relative.decode and plain.encode and relative.encode
    natural = plain.decode(first["input"])
    assert torch.allclose(relative.encode(natural), second["input"], atol=1e-3)
    change = relative.decode(second["target"])
    assert torch.allclose(natural[-1] + change, plain.decode(first["target"]), atol=1e-2)


def test_of_some_digits_the_answers_are_not_known() -> None:
    def asked(config: DigitsMtlConfig, part: str = "train") -> dict[str, torch.Tensor]:
        split = getattr(load_digits_mtl(config), part)
        return {"input": split.inputs, **split.targets}

    every, some = asked(DigitsMtlConfig()), asked(DigitsMtlConfig(labelled=0.1))
    known = some["digit"] != IGNORE
    assert int(known.sum()) == round(0.1 * len(known)) and torch.equal(every["input"], some["input"])
    for name in ("digit", "loops"):
        assert torch.equal(every[name][known], some[name][known])
        assert bool((some[name][~known] == IGNORE).all())
    assert torch.equal(~some["slant"].isnan()[:, 0], known)
    slants = some["slant"][known]  # standardised by what is known
    assert abs(float(slants.mean())) < 1e-5 and abs(float(slants.std(correction=0)) - 1) < 1e-5
    for part in ("val", "test"):
        assert bool((asked(DigitsMtlConfig(labelled=0.1), part)["digit"] != IGNORE).all())
    other = asked(DigitsMtlConfig(labelled=0.1, seed=1))
    assert not torch.equal(other["digit"] != IGNORE, known)
    fewest = asked(DigitsMtlConfig(labelled=1e-6))["slant"]
    assert int((~fewest.isnan()).sum()) == 2 and not fewest.isinf().any()


def test_digits_mtl_asks_three_things_about_the_same_images() -> None:
    splits = load_digits_mtl()
    batch = splits.train.__getitems__(range(50))  # type: ignore[attr-defined]
    assert batch["target"]["loops"].tolist() == [LOOPS[d] for d in batch["target"]["digit"].tolist()]
    assert splits.decode is not None
    outputs = torch.zeros(2, 14)
    outputs[1, -1] = 1.0
    natural = splits.decode(outputs)
    assert torch.equal(natural[:, :13], outputs[:, :13]) and natural[1, 13] > natural[0, 13]


def test_slant_is_the_slope_of_a_stroke() -> None:
    upright, leaning, other = torch.zeros(3, 1, 8, 8).unbind()
    for row in range(8):
        upright[0, row, 3] = 0.5
        leaning[0, row, 7 - row] = 1.0
        other[0, row, row] = 1.0
    slants = slant_of(torch.stack([upright, leaning, other]))
    assert torch.allclose(slants[:, 0], torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64), atol=1e-12)


def test_hea_strength_leaves_missing_values_missing() -> None:
    splits = load_hea_strength()
    arrays = read_arrays("hea_strength.npz")
    for part, split in enumerate((splits.train, splits.val, splits.test)):
        assert isinstance(split, TensorSplit) and isinstance(split.targets, torch.Tensor)
        tenths = torch.from_numpy(arrays["tenths"][arrays["split"] == part])
        assert torch.equal(split.targets.isnan(), tenths < 0)
        assert not split.targets.isnan().all(dim=1).any()
        assert splits.decode is not None
        natural = splits.decode(split.targets)
        known = tenths >= 0
        assert torch.allclose(natural[known], tenths[known] / 10, rtol=1e-4, atol=0.1)
    known_mean = splits.train.targets.nanmean(dim=0)  # type: ignore[attr-defined]
    assert known_mean.abs().max() < 1e-5


@pytest.mark.parametrize("seed", [None, 0, 3])
def test_hea_strength_is_split_by_papers_or_by_rows(seed: int | None) -> None:
    paper = torch.from_numpy(read_arrays("hea_strength.npz")["paper"].astype(int))
    grouped, random = (
        load_hea_strength(HeaStrengthConfig(split=split, seed=seed)) for split in ("grouped", "random")
    )
    for splits in (grouped, random):
        assert sum(splits.sizes.values()) == len(paper)
        assert splits.sizes["test"] == pytest.approx(280, abs=15)
        assert splits.train.targets.nanmean(dim=0).abs().max() < 1e-5  # type: ignore[attr-defined]
    again = load_hea_strength(HeaStrengthConfig(seed=seed))
    assert torch.equal(again.test.inputs, grouped.test.inputs)  # type: ignore[attr-defined]
    other = load_hea_strength(HeaStrengthConfig(seed=4))
    assert not torch.equal(other.test.inputs[:50], grouped.test.inputs[:50])  # type: ignore[attr-defined]
    part_of = parts_of_alloys(read_arrays("hea_strength.npz"), HeaStrengthConfig(seed=seed))
    for each in paper.unique():
        assert len(set(part_of[paper == each])) == 1


def test_groups_join_what_is_equal_in_any_column() -> None:
    assert join_groups(["a", "a", "b", "c", "d"], [1, 2, 2, 3, 4]) == [0, 0, 0, 3, 4]
    assert join_groups(["a", "b", "c"], [1, 2, 3], [1, 1, 1]) == [0, 0, 0]
    parts = draw_groups([0] * 5 + [5] * 3 + [8] * 2 + list(range(10, 30)), val=0.1, test=0.2)
    assert len(set(parts[:5])) == 1 and len(set(parts[5:8])) == 1
    assert (parts == 2).sum() <= 6 and (parts == 1).sum() <= 3


def test_the_posterior_is_that_of_all_state_sequences() -> None:
    """Against the sum over all 3^4 sequences of states."""
    import itertools

    config = NoisyStatesConfig(length=4, states=3, stay=0.7, noise=0.5)
    symbols = np.array([[0, 2, 2, 1], [1, 1, 0, 0]])
    moving = 0.3 / 2
    for causal in (False, True):
        found = posterior(config, symbols, causal=causal)
        for row, given in enumerate(symbols):
            for at in range(4):
                used = at + 1 if causal else 4
                chance = np.zeros(3)
                for states in itertools.product(range(3), repeat=used):
                    p = 1 / 3
                    for a, b in itertools.pairwise(states):
                        p *= 0.7 if a == b else moving
                    for state, symbol in zip(states, given, strict=False):
                        p *= 0.5 * (state == symbol) + 0.5 / 3
                    chance[states[at]] += p
                assert np.allclose(found[row, at], chance / chance.sum(), atol=1e-12)


def test_states_and_symbols_are_drawn_as_configured() -> None:
    config = NoisyStatesConfig(states=5, stay=0.8, noise=0.25, length=200)
    symbols, states = draw(config, 500, np.random.default_rng(0))
    assert abs((states[:, 1:] == states[:, :-1]).mean() - 0.8) < 0.01
    assert abs((symbols == states).mean() - (0.75 + 0.25 / 5)) < 0.01
    assert np.allclose(np.bincount(states.ravel()) / states.size, 0.2, atol=0.02)


def test_the_posterior_is_as_sure_as_it_is_right() -> None:
    config = NoisyStatesConfig()
    test = load_noisy_states(config).test
    assert isinstance(test, TensorSplit) and isinstance(test.targets, torch.Tensor)
    chance = posterior(config, test.inputs.numpy())
    right = chance.argmax(-1) == test.targets.numpy()
    assert abs(chance.max(-1).mean() - right.mean()) < 0.01


def test_a_dict_of_targets_joins_cuts_and_moves() -> None:
    examples = [
        {"input": torch.randn(n, 2), "target": {"one": torch.tensor(n), "each": torch.arange(n)}}
        for n in (3, 5)
    ]
    batch = collate(examples)
    assert batch["target"]["one"].tolist() == [3, 5]
    assert batch["target"]["each"].tolist() == [[0, 1, 2, -100, -100], [0, 1, 2, 3, 4]]
    split = TensorSplit(batch["input"], batch["target"], lengths=batch["length"])
    alone = split[0]
    assert torch.equal(alone["target"]["each"], torch.arange(3)) and alone["target"]["one"] == 3
    moved = to_device(batch, "meta")
    assert moved["target"]["each"].device.type == moved["input"].device.type == "meta"
    with pytest.raises(ValueError, match=r"as many examples each, got \[2, 2, 1, 2\]"):
        TensorSplit(batch["input"], {"a": torch.zeros(2), "b": torch.zeros(1)}, lengths=batch["length"])


def test_values_per_example_are_not_cut_like_tokens() -> None:
    """Three real values of series of at most three steps are three values, however short a series is."""
    split = TensorSplit(torch.zeros(2, 3, 1), torch.ones(2, 3), lengths=torch.tensor([1, 2]))
    assert split[0]["target"].shape == (3,) and split[0]["input"].shape == (1, 1)


# -- series with gaps ------------------------------------------------------------------------


def test_a_gap_is_given_as_the_last_value_and_not_asked() -> None:
    nan = float("nan")
    values = torch.tensor([[nan, 1.0], [2.0, nan], [nan, nan], [4.0, 5.0], [nan, 6.0]])
    assert fill_forward(values).tolist() == [[0, 1], [2, 1], [2, 1], [4, 5], [4, 6]]
    whole = torch.randn(4, 2)
    assert fill_forward(whole) is whole
    windows = SeriesWindows(values, length=2, horizon=3, relative=True)
    window = windows[0]
    assert window["input"].tolist() == [[-2, 0], [0, 0]]
    assert torch.equal(window["target"].isnan(), values[2:].isnan())
    assert window["target"][1].tolist() == [2, 4] and window["target"][2, 1] == 5


@dataclass(frozen=True, kw_only=True)
class OneChannel(WindowsConfig):
    shortest_part: ClassVar[int] = 40
    names: ClassVar[tuple[str, ...]] = ("x",)


def test_gaps_do_not_count_in_the_scale_and_are_not_filled_from_the_future() -> None:
    raw = torch.randn(400, 1, dtype=torch.float64)
    raw[::7] = float("nan")
    config = OneChannel(length=8, horizon=4, relative=False)
    splits = split_by_time(raw, config)
    known = raw[:280][~raw[:280].isnan()]
    assert torch.allclose(splits.decode(torch.zeros(1)), known.mean().float())
    changed = raw.clone()
    changed[320:] += 100  # what comes later changes nothing of what was given before
    again = split_by_time(changed, config)
    for name in ("train", "val"):
        part, other = getattr(splits, name), getattr(again, name)
        for at in range(len(part)):
            assert torch.equal(part[at]["input"], other[at]["input"])
    assert not torch.equal(splits.test[0]["input"], again.test[0]["input"])
