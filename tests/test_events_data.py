"""Event sequences: windows, bad input, files; the known processes against their definitions; the cards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.baselines import measure
from zoo.catalogue import catalogue
from zoo.config import ConfigError
from zoo.data import EncodeEvents, EventWindows, collate, read_inputs
from zoo.data.events_config import HawkesConfig, NycFlightsConfig, SelfCorrectingConfig
from zoo.data.events_specs import EVENTS
from zoo.data.flights import TEST, VALIDATION, load_nyc_flights
from zoo.data.processes import (
    draw_hawkes,
    draw_self_correcting,
    hawkes_log_likelihood,
    kernels,
    load_hawkes,
    self_correcting_log_likelihood,
)
from zoo.errors import ZooError
from zoo.kinds import Events

KIND = Events(marks=3, length=4, ragged=True)


def sequence(n: int, seed: int = 0, marks: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.exponential(size=n).cumsum() + 100.0, rng.integers(0, marks, n)


# -- windows ---------------------------------------------------------------------------------


def test_a_window_is_events_and_their_successors() -> None:
    times, marks = sequence(7)
    split = EventWindows([(times, marks)], KIND)
    assert len(split) == 2
    for number, (start, size) in enumerate(((0, 4), (4, 2))):
        window = split[number]
        at = slice(start, start + size)
        after = slice(start + 1, start + size + 1)
        gaps = np.diff(times[start : start + size + 1])
        expected = np.stack([times[at] - times[start], np.r_[0, gaps[:-1]], marks[at]], axis=1)
        assert np.allclose(window["input"], expected, atol=1e-5)
        assert np.allclose(window["target"], np.stack([gaps, marks[after]], axis=1), atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 23), min_size=1, max_size=5),
    length=st.integers(1, 9),
    ragged=st.booleans(),
)
def test_every_event_is_asked_for_once(sizes: list[int], length: int, ragged: bool) -> None:
    """All but the first of each sequence, and, where windows are of one length, what fills none."""
    kind = Events(marks=99, length=length, ragged=ragged)
    sequences = [
        (np.arange(n, dtype=float), np.arange(first, first + n))
        for n, first in zip(sizes, np.cumsum([0, *sizes]), strict=False)
        if first + n < 99
    ]
    expected = [
        int(mark)
        for _, marks in sequences
        for mark in marks[1 : None if ragged else 1 + (len(marks) - 1) // length * length]
    ]
    if not expected:
        with pytest.raises(ZooError, match="lower `length`"):
            EventWindows(sequences, kind)
        return
    split = EventWindows(sequences, kind)
    batch = split.__getitems__(range(len(split)))
    asked = ~batch["target"][..., 0].isnan()
    assert batch["target"][asked][:, 1].tolist() == expected
    assert torch.equal(asked, ~batch["target"][..., 1].isnan())
    if ragged:
        assert torch.equal(asked.sum(1), batch["length"])
    # Alone and joined they are the same, whoever pads them.
    joined = collate([split[i] for i in range(len(split))])
    for name in ("input", "target"):
        assert torch.equal(joined[name].nan_to_num(-1), batch[name].nan_to_num(-1))


def test_windows_may_overlap() -> None:
    times, marks = sequence(9)
    split = EventWindows([(times, marks)], KIND, stride=2)
    assert len(split) == 4
    assert torch.allclose(split[1]["target"][:2], split[0]["target"][2:])
    with pytest.raises(ValueError, match=r"stride must lie within 1..4 \(length\), got 5"):
        EventWindows([(times, marks)], KIND, stride=5)
    with pytest.raises(ConfigError, match="must be at most length 4, or events between windows are lost"):
        NycFlightsConfig(length=4, stride=5)


def test_times_count_from_the_start_of_the_period() -> None:
    day = Events(marks=3, length=4, ragged=True, period=24.0)
    times = np.array([240_000_005.0, 240_000_006.5, 240_000_030.0])  # 5 in the morning, much later
    encoded = EncodeEvents(day)(np.stack([times, [0, 1, 2]], axis=1))
    assert encoded.tolist() == [[5.0, 0.0, 0.0], [6.5, 1.5, 1.0], [30.0, 23.5, 2.0]]


# -- bad input -------------------------------------------------------------------------------

BAD: dict[str, tuple[list[Any], list[Any], str]] = {
    "backwards": (
        [1.0, 3.0, 2.5],
        [0, 1, 2],
        r"event 3 is at time 2.5, before event 2 at 3; .*sort the events",
    ),
    "nan": ([1.0, math.nan], [0, 1], "event 2 has the time nan; times must be finite"),
    "infinite": ([1.0, math.inf], [0, 1], "event 2 has the time inf"),
    "mark too large": ([1.0, 2.0], [0, 3], r"event 2 has the mark 3(\.0)?; marks are whole numbers in 0..2"),
    "mark below 0": ([1.0, 2.0], [-1, 0], "event 1 has the mark -1"),
    "half a mark": ([1.0, 2.0], [0, 0.5], "event 2 has the mark 0.5"),
    "no mark": ([1.0, 2.0], [0, math.nan], "event 2 has the mark nan"),
    "empty": ([], [], "there is no event in it"),
}
each_bad = pytest.mark.parametrize(("times", "marks", "message"), BAD.values(), ids=BAD)


@each_bad
def test_bad_sequences_are_refused(times: list[Any], marks: list[Any], message: str) -> None:
    with pytest.raises(ZooError, match=f"sequence 1: {message}") as refused:
        EventWindows([sequence(5), (np.array(times), np.array(marks))], KIND)
    assert isinstance(refused.value, ValueError)


@each_bad
def test_bad_events_to_predict_on_are_refused(times: list[Any], marks: list[Any], message: str) -> None:
    with pytest.raises(ZooError, match=f"^{message}"):
        EncodeEvents(KIND)(np.array([times, marks], dtype=float).T)


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ZooError, match=r"times \(3,\) and marks \(2,\) must be two equally long columns"):
        EventWindows([(np.arange(3.0), np.zeros(2))], KIND)
    with pytest.raises(ZooError, match=r"rows of a time and a mark, got shape \(3,\)"):
        EncodeEvents(KIND)([1.0, 2.0, 3.0])


def test_equal_times_are_no_mistake() -> None:
    assert EncodeEvents(KIND)([[1.0, 0], [1.0, 1]])[:, 1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,mark\n1.5,0\n1.0,2\n", r"x.csv: event 2 is at time 1, before event 1 at 1.5"),
        ("1,0\n2,7\n", "x.csv: event 2 has the mark 7"),
        ("1,0\n2\n", "row 2 has 1 columns, expected 2 \\(a time and a mark\\)"),
        ("1,0\nnan,1\n", "row 2, column 1: expected a number, got 'nan'"),
        ("time,mark\n", "there is no row of numbers"),
        ("", "expected 1 to 4 events, each a time and a mark"),
        ("\n".join(f"{i},0" for i in range(5)), "expected 1 to 4 events, each a time and a mark, got 5 x 2"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ZooError, match=message):
        read_inputs(tmp_path / "x.csv", KIND, encode=EncodeEvents(KIND))


def test_files_keep_late_times_exact(tmp_path: Path) -> None:
    """Seconds since 1970: float32 knows them to two minutes."""
    rows = np.array([[1.7e9, 0], [1.7e9 + 0.25, 1], [1.7e9 + 1.0, 2]])
    np.savetxt(tmp_path / "x.csv", rows, delimiter=",", fmt="%.2f", header="time,mark", comments="")
    np.save(tmp_path / "x.npy", np.stack([rows, rows]))
    (from_csv,) = read_inputs(tmp_path / "x.csv", KIND, encode=EncodeEvents(KIND))
    assert from_csv.tolist() == [[0.0, 0.0, 0.0], [0.25, 0.25, 1.0], [1.0, 0.75, 2.0]]
    from_npy = read_inputs(tmp_path / "x.npy", KIND, encode=EncodeEvents(KIND))
    assert len(from_npy) == 2 and torch.equal(from_npy[1], from_csv)


@pytest.mark.parametrize(
    ("params", "field"), [({"branching": 1.0}, "branching"), ({"base": 0.0}, "base"), ({"own": 1.2}, "own")]
)
def test_a_process_that_would_explode_is_refused(params: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        HawkesConfig(**params)  # type: ignore[arg-type]
    assert [problem.path for problem in error.value.problems] == [field]


# -- the processes against their definitions -------------------------------------------------


def hawkes_intensity(
    config: HawkesConfig, times: np.ndarray, marks: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """By the sum over all earlier events: (points,) -> (points, M)."""
    children, decay = kernels(config)
    found = np.full((len(at), config.marks), config.base / config.marks)
    for time, mark in zip(times, marks, strict=True):
        since = at - time
        rate = np.where(since > 0, decay[mark] * np.exp(-decay[mark] * np.maximum(since, 0)), 0.0)
        found += rate[:, None] * children[:, mark]
    return found


def self_correcting_intensity(
    config: SelfCorrectingConfig, times: np.ndarray, marks: np.ndarray, at: np.ndarray
) -> np.ndarray:
    return np.exp(config.growth * at - config.relief * (times < at[:, None]).sum(1))[:, None]


PROCESSES = {
    "hawkes": (HawkesConfig, draw_hawkes, hawkes_log_likelihood, hawkes_intensity),
    "self_correcting": (
        SelfCorrectingConfig,
        draw_self_correcting,
        self_correcting_log_likelihood,
        self_correcting_intensity,
    ),
}
each_process = pytest.mark.parametrize(
    ("config_class", "draw", "log_likelihood", "intensity"), PROCESSES.values(), ids=PROCESSES
)


@each_process
def test_the_likelihood_is_that_of_the_intensity(
    config_class: Any, draw: Any, log_likelihood: Any, intensity: Any
) -> None:
    """log p = log intensity of the mark at the event - integral of the total intensity, by Simpson's rule."""
    config = config_class(length=12)
    times, marks = draw(config, 3, np.random.default_rng(1))
    log_gap, log_mark = log_likelihood(config, times, marks)
    for row in range(3):
        for event in range(1, 13):
            start, end = times[row, event - 1], times[row, event]
            points = np.linspace(start, end, 2001)
            points[0] = np.nextafter(start, np.inf)
            rates = intensity(config, times[row, :event], marks[row, :event], points)
            weights = np.r_[1, np.tile([4, 2], 999), 4, 1] * (end - start) / 6000
            total = rates.sum(1)
            assert log_gap[row, event - 1] == pytest.approx(np.log(total[-1]) - weights @ total, abs=1e-6)
            share = rates[-1, marks[row, event]] / total[-1]
            assert log_mark[row, event - 1] == pytest.approx(np.log(share), abs=1e-9)


@each_process
def test_what_is_drawn_follows_the_intensity(
    config_class: Any, draw: Any, log_likelihood: Any, intensity: Any
) -> None:
    """Time rescaling: integrals of the intensity between events are independent and exponential of mean 1."""
    config = config_class(length=30)
    times, marks = draw(config, 300, np.random.default_rng(2))
    log_gap, _ = log_likelihood(config, times, marks)
    last = np.array(
        [
            [intensity(config, t[:i], m[:i], t[i : i + 1]).sum() for i in range(1, 31)]
            for t, m in zip(times[:100], marks[:100], strict=True)
        ]
    )
    integrals = np.log(last) - log_gap[:100]
    ordered = np.sort(integrals.ravel())
    uniform = 1 - np.exp(-ordered)
    distance = np.abs(uniform - (np.arange(len(uniform)) + 0.5) / len(uniform)).max()
    assert distance < 1.63 / math.sqrt(len(uniform))  # Kolmogorov-Smirnov at 1 %
    assert abs(np.corrcoef(integrals[:, :-1].ravel(), integrals[:, 1:].ravel())[0, 1]) < 0.05


def test_marks_are_drawn_by_their_intensities() -> None:
    config = HawkesConfig(length=40)
    times, marks = draw_hawkes(config, 60, np.random.default_rng(3))
    chances = np.concatenate(
        [
            intensities / intensities.sum(1, keepdims=True)
            for t, m in zip(times, marks, strict=True)
            for intensities in [
                np.concatenate([hawkes_intensity(config, t[:i], m[:i], t[i : i + 1]) for i in range(1, 41)])
            ]
        ]
    )
    drawn = np.eye(3)[marks[:, 1:].ravel()]
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0)):
        inside = (chances >= low) & (chances < high)
        assert inside.sum() > 150
        assert drawn[inside].mean() == pytest.approx(chances[inside].mean(), abs=0.03)


def test_without_excitement_it_is_a_poisson_process() -> None:
    config = HawkesConfig(branching=0.0, base=0.5, marks=4, length=5)
    times, marks = draw_hawkes(config, 4000, np.random.default_rng(4))
    log_gap, log_mark = hawkes_log_likelihood(config, times, marks)
    assert np.allclose(log_gap, np.log(0.5) - 0.5 * np.diff(times, axis=1))
    assert np.allclose(log_mark, -np.log(4))
    assert np.diff(times, axis=1).mean() == pytest.approx(config.scale, rel=0.02)


def test_the_typical_gap_is_that_of_the_long_run() -> None:
    cases: list[tuple[Any, Any]] = [
        (HawkesConfig(length=200), draw_hawkes),
        (SelfCorrectingConfig(), draw_self_correcting),
    ]
    for config, draw in cases:
        times, _ = draw(config, 400, np.random.default_rng(5))
        assert np.diff(times, axis=1)[:, config.length // 2 :].mean() == pytest.approx(config.scale, rel=0.05)


def test_no_answer_is_better_than_the_process() -> None:
    splits = load_hawkes(HawkesConfig(examples=300, eval_examples=300))
    assert splits.best is not None
    best = splits.best()
    assert best["nll"] == pytest.approx(best["nll_time"] + best["nll_mark"])
    found = catalogue()
    part = found.part("dataset", "hawkes", {"examples": 300, "eval_examples": 300})
    scores = {score.name: score.metrics for score in measure(found, part)}
    assert scores.pop("best possible") == best
    for metrics in scores.values():
        for name, value in best.items():
            assert metrics[name] > value


# -- flights, and the cards ------------------------------------------------------------------


def test_flights_are_cut_by_time() -> None:
    splits = load_nyc_flights(NycFlightsConfig(length=1000))
    assert splits.encode is not None
    planes = [splits.train[i]["input"] for i in range(len(splits.train))]
    assert sum(len(x) for x in planes) + len(planes) == len(splits.train.times)  # type: ignore[attr-defined]
    spans = [(s.times.min(), s.times.max()) for s in (splits.train, splits.val, splits.test)]  # type: ignore[attr-defined]
    assert spans[0][1] < VALIDATION <= spans[1][0] and spans[1][1] < TEST <= spans[2][0]
    assert 365 * 24 < spans[2][1] < 366 * 24  # the last one left after midnight
    hour = torch.cat([x[:, 0] for x in planes]) % 24
    assert ((hour > 1) & (hour < 5)).float().mean() < 0.01  # nobody leaves at night: the clock is right


@pytest.mark.parametrize("spec", EVENTS, ids=lambda spec: spec.name)
def test_the_numbers_on_the_cards(spec: Any) -> None:
    found = catalogue()
    part = found.part("dataset", spec.name)
    splits = spec.load()(part.config)
    assert spec.examples.startswith(" / ".join(map(str, splits.sizes.values())) + " ")
    scores = {score.name: score.metrics for score in measure(found, part)}
    assert (
        f"nll {scores['log-normal renewal']['nll']:.3f} nats per event (log-normal renewal" in spec.baseline
    )
    if spec.synthetic:
        assert spec.known_good.startswith(f"nll {scores['best possible']['nll']:.3f} the process itself")
    if "mixture renewal" in scores:  # with scikit-learn
        assert f"{scores['mixture renewal']['nll']:.2f} mixture renewal" in spec.known_good
