"""Timing several things side by side: in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple


class Time(NamedTuple):
    """Milliseconds: on the wall clock, and of the process's CPUs."""

    wall: float
    cpu: float

    def least(self, other: Time) -> Time:
        return Time(min(self.wall, other.wall), min(self.cpu, other.cpu))


#: Name -> lap -> the least time so far.
Laps = dict[str, dict[str, Time]]


def laps(
    runs: Mapping[str, Callable[[], Iterator[str]]], *, settle: Callable[[], object] = lambda: None
) -> Iterator[Laps]:
    """Let each run take its turn, endlessly; after each but the first, a warm-up, the least times so far.

    runs: each yields the name of a lap when that lap is over; what it does before counts.
    settle: waits until the device has done what it was given.
    """
    best: Laps = {name: {} for name in runs}
    warm = False
    while True:
        for name, run in runs.items():
            for lap, taken in _timed(run(), settle):
                if warm:
                    best[name][lap] = taken.least(best[name].get(lap, taken))
        if warm:
            yield {name: dict(times) for name, times in best.items()}
        warm = True


def in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Time]:
    """The least of `repeats` turns after a warm-up, for runs of one lap each."""
    turns = laps({name: partial(_one_lap, run) for name, run in runs.items()})
    for _ in range(repeats):
        best = next(turns)
    return {name: times[_WHOLE] for name, times in best.items()}


_WHOLE = "whole"


def _one_lap(run: Callable[[], object]) -> Iterator[str]:
    run()
    yield _WHOLE


def _timed(run: Iterator[str], settle: Callable[[], object]) -> Iterator[tuple[str, Time]]:
    while True:
        settle()
        wall, cpu = time.perf_counter(), time.process_time()
        lap = next(run, None)
        settle()
        taken = Time(1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))
        if lap is None:
            return
        yield lap, taken
