"""The search against brute force, hypervolume against inclusion and exclusion, and what is refused."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo_slimmable.metrics import MOST_TASKS, compare, controllability, hypervolume
from zoo_slimmable.search import ScoreTable, parse_budget, parse_named, search

from zoo.plugin import ZooError

WIDTHS = (0.25, 0.5, 0.75, 1.0)
TASKS = ("digit", "loops", "slant")


def table(seed: int = 0) -> ScoreTable:
    """Wider is mostly better, with noise; costs grow as those of convolutions do."""
    rng = np.random.default_rng(seed)
    e, d = np.array(WIDTHS)[:, None, None], np.array(WIDTHS)[None, :, None]
    quality = (
        1 - 0.1 / (1 + 4 * e + 2 * d * np.array([3.0, 2.0, 1.0])) + 0.0005 * rng.standard_normal((4, 4, 3))
    )
    return ScoreTable(
        tasks=TASKS,
        encoder=WIDTHS,
        decoder=WIDTHS,
        encoder_macs=(1e6 * np.array(WIDTHS) ** 2).astype(int).tolist(),
        decoder_macs=np.broadcast_to(2e5 * e * d, (4, 4, 3)).astype(int).tolist(),
        quality={"val": quality.tolist(), "test": (quality - 0.001).tolist()},
    )


def brute_force(made: ScoreTable, budget: float, weights: np.ndarray) -> float:
    gains, costs = made.gains("val"), np.asarray(made.decoder_macs)
    scores = []
    for e, *at in product(range(4), repeat=4):
        if made.encoder_macs[e] + sum(costs[e, d, t] for t, d in enumerate(at)) <= budget:
            scores.append(sum(weights[t] * gains[e, d, t] for t, d in enumerate(at)))
    return max(scores)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 50), st.floats(0.07, 1.2), st.lists(st.floats(0.0, 5.0), min_size=3, max_size=3))
def test_it_finds_what_brute_force_finds_and_stays_within_the_budget(
    seed: int, share: float, weights: list[float]
) -> None:
    made, wanted = table(seed), np.array(weights) + 1e-3
    budget = share * made.full_macs
    given = dict(zip(TASKS, wanted, strict=True))
    found = search(made, budget, given, spend=0)
    assert found.macs <= budget
    assert found.score == pytest.approx(brute_force(made, budget, wanted / wanted.sum()), abs=1e-6)
    spent = search(made, budget, given)
    assert spent.macs <= budget and spent.score <= found.score + 1e-9
    assert spent.macs >= 0.95 * budget or spent.score == pytest.approx(found.score) or share > 1


def test_more_budget_and_more_preference_never_hurt() -> None:
    made = table()
    scores = [search(made, share * made.full_macs, spend=0).score for share in np.linspace(0.1, 1, 20)]
    assert scores == sorted(scores)
    found = [
        search(made, 0.4 * made.full_macs, {"digit": weight, "loops": 1, "slant": 1}, spend=0)
        for weight in (0.0, 0.1, 0.5, 1.0, 4.0, 50.0)
    ]
    qualities = [each.quality["val"]["digit"] for each in found]
    assert qualities == sorted(qualities)
    unasked = search(made, 0.4 * made.full_macs, {"digit": 1}, spend=0)
    assert unasked.decoders["loops"] == unasked.decoders["slant"] == 0.25  # what counts nothing costs least


def many(tasks: int, widths: int, seed: int = 0) -> ScoreTable:
    """A table of many tasks, whose decoders cost different amounts each."""
    rng = np.random.default_rng(seed)
    at = np.linspace(1 / widths, 1, widths)
    worth = rng.random(tasks) * np.log(at)[None, :, None] + np.log(at)[:, None, None] + 5
    price = rng.integers(90_000, 110_000, tasks) * at[:, None, None] * at[None, :, None]
    return ScoreTable(
        tasks=tuple(f"task{n}" for n in range(tasks)),
        encoder=tuple(at),
        decoder=tuple(at),
        encoder_macs=(1e6 * at**2).astype(int).tolist(),
        decoder_macs=price.astype(int).tolist(),
        quality={"val": worth.tolist()},
    )


def test_many_tasks_and_widths_are_searched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """6 widths of 10 decoders: 4e8 configurations. More of them kept would find hardly better ones."""
    made = many(10, 6)
    budget = 0.4 * made.full_macs
    found = search(made, budget)
    assert 0.95 * budget <= found.macs <= budget
    even = search(made, budget, uniform=True, spend=0)
    assert found.score > even.score
    monkeypatch.setattr("zoo_slimmable.search.MOST", 2_000)
    assert search(made, budget).score == pytest.approx(found.score, abs=2e-4)


def test_of_very_many_tasks_no_hypervolume_is_measured() -> None:
    for tasks in (MOST_TASKS, MOST_TASKS + 1):
        made = many(tasks, 2)
        measured = controllability(made, 0.6 * made.full_macs)
        assert (measured.hypervolume is None) == (tasks > MOST_TASKS) and len(measured.response) == tasks


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 50), st.floats(0.1, 1.0))
def test_what_is_thinned_is_nearly_the_best(seed: int, share: float) -> None:
    made = many(3, 4, seed)
    budget = share * made.full_macs
    if budget < made.least_macs:
        return
    weights = np.full(3, 1 / 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo_slimmable.search.MOST", 30)
        found = search(made, budget, spend=0)
    assert found.macs <= budget
    assert found.score <= brute_force(made, budget, weights) + 1e-9
    if 0.9 * budget >= made.least_macs:
        assert found.score >= brute_force(made, 0.9 * budget, weights) - 1e-6


def test_another_constraint_is_a_look_at_the_table() -> None:
    """No model is there to be asked, and no pass over data."""
    made = table()
    budgets = [share * made.full_macs for share in (0.2, 0.4, 0.6, 0.8)]
    found = [search(made, budget, {"digit": 1.0}, spend=0) for budget in budgets]
    assert all(one.macs <= budget for one, budget in zip(found, budgets, strict=True))
    assert [one.score for one in found] == sorted(one.score for one in found)


def test_held_encoders_and_uniform_widths() -> None:
    made = table()
    held = search(made, 0.5 * made.full_macs, encoder=0.25)
    assert held.encoder == 0.25
    even = search(made, 0.5 * made.full_macs, uniform=True)
    assert set(even.decoders.values()) == {even.encoder}
    beside = compare(made, 0.45 * made.full_macs)
    assert beside["encoder 1"] is None
    assert (beside["searched"] or 0) > (beside["uniform"] or 0) > 0
    measured = controllability(made, 0.45 * made.full_macs)
    assert measured.used[0] <= 1 and measured.reference == tuple(made.gains("test")[0, 0])
    assert all(value > 0 for value in measured.response.values())


def test_a_budget_below_the_smallest_says_the_smallest() -> None:
    made = table()
    with pytest.raises(
        ZooError, match=rf"below the smallest configuration, which costs {2 * made.least_macs:,} \(0\.06"
    ):
        search(made, made.least_macs - 1)
    assert search(made, made.least_macs).macs == made.least_macs


@pytest.mark.parametrize(
    ("preferences", "message"),
    [
        ({"depth": 1.0}, r"no task 'depth' to prefer\. There is: digit, loops, slant"),
        ({"digit": -1.0}, "at least 0 and finite, got digit=-1"),
        ({"digit": 0.0}, "at least one preference must be above 0"),
    ],
)
def test_preferences_that_cannot_be(preferences: dict[str, float], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        search(table(), 1e9, preferences)


def test_preferences_count_relative_to_each_other() -> None:
    made = table()
    for large in (1e308, 1e-300):
        assert search(made, 6e5, {"digit": large, "loops": large}) == search(
            made, 6e5, {"digit": 1, "loops": 1}
        )


def test_a_width_that_the_encoder_does_not_have_is_said() -> None:
    with pytest.raises(ZooError, match=r"no width 0\.3 in this table\. It has: 0\.25, 0\.5, 0\.75, 1"):
        search(table(), 1e9, encoder=0.3)


def test_points_of_another_shape_have_no_hypervolume() -> None:
    with pytest.raises(ValueError, match=r"expected points \(P, T\).* got \(1, 4\) and \(2,\)"):
        hypervolume([[1, 2, 3, 4]], [0, 0])


def test_what_people_type() -> None:
    made = table()
    assert parse_budget("0.5x", made) == pytest.approx(made.full_macs / 2)
    assert parse_budget("2M", made) == 1e6 and parse_budget(300, made) == 150
    assert parse_named("digit=2, loops=1", "preferences") == {"digit": 2.0, "loops": 1.0}
    for text in ("half", "x", "-1x", "nan", ""):
        with pytest.raises(ZooError, match=r"a budget reads '0\.4x'"):
            parse_budget(text, made)
    for text in ("digit", "digit=a", "=1"):
        with pytest.raises(ZooError, match="preferences read 'name=number,name=number'"):
            parse_named(text, "preferences")
    with pytest.raises(ZooError, match="preferences name digit twice: 'digit=1,loops=1, digit=2'"):
        parse_named("digit=1,loops=1, digit=2", "preferences")


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    table().save(path)
    assert search(ScoreTable.load(path), 6e5) == search(table(), 6e5)
    path.write_text("{}")
    with pytest.raises(ZooError, match=r"is no table of widths .* delete it"):
        ScoreTable.load(path)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(0, 6), st.integers(0, 1000))
def test_hypervolume_is_that_of_inclusion_and_exclusion(dims: int, count: int, seed: int) -> None:
    points = np.random.default_rng(seed).integers(-2, 5, size=(count, dims)) / 2
    reference = np.zeros(dims)
    above = np.maximum(points, 0)
    expected = 0.0
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            expected += (-1) ** (size + 1) * np.prod(above[list(chosen)].min(0))
    assert hypervolume(points, reference) == pytest.approx(expected)
    if count:
        assert hypervolume([*points, points[0] - 0.1], reference) == pytest.approx(expected)
