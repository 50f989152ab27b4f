"""Paired differences over seeds, and how likely chance alone makes them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.comparison.statistics import differences, mean_and_deviation

SCORES = st.dictionaries(st.integers(0, 9), st.floats(-100, 100, width=32), min_size=2, max_size=8)


def test_a_difference_is_paired_by_seed() -> None:
    (found,) = differences({0: 1.0, 1: 2.0, 2: 3.0}, [{1: 2.5, 2: 3.4, 7: 9.0}])
    assert found is not None and found.pairs == 2 and found.mean == pytest.approx(0.45)


def test_the_p_value_is_that_of_the_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    a, b = [0.91, 0.93, 0.90, 0.92], [0.95, 0.94, 0.93, 0.97]
    (found,) = differences(dict(enumerate(a)), [dict(enumerate(b))])
    assert found is not None and found.p == pytest.approx(ttest_rel(b, a).pvalue)


def test_the_correction_of_holm() -> None:
    reference = {seed: 0.0 for seed in range(4)}
    near = {0: 0.1, 1: -0.1, 2: 0.2, 3: 0.0}
    far = {0: 1.0, 1: 1.1, 2: 0.9, 3: 1.0}
    alone, together = differences(reference, [far]), differences(reference, [near, far, near])
    assert alone[0] is not None and together[1] is not None
    assert together[1].p == pytest.approx(3 * alone[0].p)  # type: ignore[operator]
    assert together[0] == together[2]


def test_one_seed_or_none_in_common() -> None:
    one, none = differences({0: 1.0}, [{0: 2.0}, {1: 2.0}])
    assert one is not None and one.p is None and not one.beyond_noise and none is None


@given(SCORES)
def test_the_same_scores_differ_by_nothing(scores: dict[int, float]) -> None:
    (found,) = differences(scores, [scores])
    assert found is not None and found.mean == 0 and found.p == 1.0 and not found.beyond_noise


def test_noise_alone_is_rarely_called_a_difference() -> None:
    draw = random.Random(0)
    called = 0
    for _ in range(400):
        a, b = ({seed: draw.gauss(0, 1) for seed in range(5)} for _ in range(2))
        (found,) = differences(a, [b])
        called += found is not None and found.beyond_noise
    assert called < 40  # 5 % of 400 is 20


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([3.0]) == (3.0, None)
    mean, deviation = mean_and_deviation([1.0, 2.0, 3.0])
    assert mean == 2.0 and deviation == 1.0
