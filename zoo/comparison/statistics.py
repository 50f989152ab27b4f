"""Whether a difference between two groups is more than the noise of their seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

#: A difference whose p is not below this is within the noise.
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A group against the reference. mean: of the differences, seed by seed. pairs: seeds that both have.

    p: how often a difference as large comes about by chance alone, by the paired t-test, after Holm's
    correction for how many groups are tested; `None` where there are fewer than two pairs.
    """

    mean: float
    pairs: int
    p: float | None

    @property
    def beyond_noise(self) -> bool:
        return self.p is not None and self.p < LEVEL


def differences(
    reference: Mapping[int, float], others: Sequence[Mapping[int, float]]
) -> list[Difference | None]:
    """Each of the others minus the reference, paired by seed; `None` where they share no seed."""
    found = [_difference(reference, other) for other in others]
    tested = sorted((d.p, i) for i, d in enumerate(found) if d is not None and d.p is not None)
    floor = 0.0
    for rank, (p, i) in enumerate(tested):  # Holm: the smallest p times their number, the next times one less
        floor = max(floor, min(1.0, p * (len(tested) - rank)))
        before = found[i]
        assert before is not None
        found[i] = replace(before, p=floor)
    return found


def _difference(reference: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    gaps = [other[seed] - reference[seed] for seed in reference.keys() & other.keys()]
    if not gaps:
        return None
    mean = statistics.fmean(gaps)
    return Difference(mean=mean, pairs=len(gaps), p=_paired_t(gaps, mean))


def _paired_t(gaps: Sequence[float], mean: float) -> float | None:
    if len(gaps) < 2:
        return None
    spread = statistics.stdev(gaps)
    if spread == 0.0:  # the same gap with every seed
        return 1.0 if mean == 0.0 else 0.0
    from scipy.stats import t

    return float(2 * t.sf(abs(mean) / (spread / math.sqrt(len(gaps))), len(gaps) - 1))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation of a sample; of one value there is none."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
