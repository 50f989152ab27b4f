"""Event sequences from known processes, drawn exactly, with their true likelihood.

B sequences, N events, M marks.

A sequence starts with an event at time 0 and nothing before it, so that a model sees all that the intensity
depends on: no model does better on average than the process itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from zoo.data.events import EncodeEvents, EventWindows
from zoo.data.events_config import EventProcessConfig, HawkesConfig, SelfCorrectingConfig
from zoo.data.split import Splits
from zoo.kinds import Events

C = TypeVar("C", bound=EventProcessConfig)
#: Times float64 and marks int64, (B, N + 1) each.
Drawn = tuple[np.ndarray, np.ndarray]
#: (config, times, marks) -> log p(gap) and log p(mark | gap) of every event but the first, (B, N) each.
Likelihood = Callable[[C, np.ndarray, np.ndarray], Drawn]


def load_hawkes(config: HawkesConfig) -> Splits:
    """A multivariate Hawkes process with exponential kernels (Hawkes 1971). The intensity of mark m is

        base / M + sum over earlier events i of A[m, k_i] b[k_i] exp(-b[k_i] (t - t_i)),

    k_i the mark of event i: it brings about A[m, k_i] events of mark m, at the decay b[k_i].
    """
    return _load(config, draw_hawkes, hawkes_log_likelihood)


def load_self_correcting(config: SelfCorrectingConfig) -> Splits:
    """The process of Isham and Westcott 1979, of intensity exp(growth t - relief i) after i events."""
    return _load(config, draw_self_correcting, self_correcting_log_likelihood)


def kernels(config: HawkesConfig) -> tuple[np.ndarray, np.ndarray]:
    """A (M, M): events of mark m brought about by one of mark k; b (M,): the decay of what k brings about."""
    identity = np.eye(config.marks)
    children = config.branching * (config.own * identity + (1 - config.own) * np.roll(identity, 1, axis=0))
    return children, config.decay * config.slowing ** np.arange(config.marks)


def draw_hawkes(config: HawkesConfig, count: int, rng: np.random.Generator) -> Drawn:
    """`count` sequences.

    Exact, without rejection: of the events to come by themselves and of those that each mark's past brings
    about, the first comes first (as in Dassios and Zhao 2013, doi:10.1214/ECP.v18-2717).
    """
    decay = kernels(config)[1]
    rows = np.arange(count)
    times, marks = np.zeros((count, config.length + 1)), np.zeros((count, config.length + 1), dtype=np.int64)
    marks[:, 0] = rng.integers(0, config.marks, count)
    excited = np.zeros((count, config.marks))  # by the past of each mark, in events per unit of time
    for step in range(1, config.length + 1):
        last = marks[:, step - 1]
        excited[rows, last] += config.branching * decay[last]
        # A hazard c exp(-b s) sums up to c / b only: it may be that nothing ever comes of it.
        left = 1 - decay * rng.standard_exponential(excited.shape) / np.maximum(excited, 1e-300)
        waits = np.where(left > 0, -np.log(np.maximum(left, 1e-300)) / decay, np.inf)
        spontaneous = rng.standard_exponential(count) / config.base
        cause = waits.argmin(axis=1)
        gap = np.minimum(spontaneous, waits[rows, cause])
        following = np.where(rng.random(count) < config.own, cause, cause + 1) % config.marks
        alone = spontaneous <= waits[rows, cause]
        marks[:, step] = np.where(alone, rng.integers(0, config.marks, count), following)
        times[:, step] = times[:, step - 1] + gap
        excited *= np.exp(-decay * gap[:, None])
    return times, marks


def hawkes_log_likelihood(config: HawkesConfig, times: np.ndarray, marks: np.ndarray) -> Drawn:
    """log p(gap) and log p(mark | gap) of every event but the first given those before it, (B, N) each.

    In closed form (Ozaki 1979): the log intensity at the event, less its integral since the last one.
    """
    children, decay = kernels(config)
    rows = np.arange(len(times))
    excited = np.zeros((len(times), config.marks))
    log_gap, log_mark = np.empty((2, len(times), times.shape[1] - 1))
    for step in range(1, times.shape[1]):
        excited[rows, marks[:, step - 1]] += decay[marks[:, step - 1]]
        gap = times[:, step] - times[:, step - 1]
        faded = excited * np.exp(-decay * gap[:, None])
        integral = config.base * gap + config.branching * ((excited - faded) / decay).sum(axis=1)
        intensity = config.base / config.marks + faded @ children.T  # (B, M)
        total = intensity.sum(axis=1)
        log_gap[:, step - 1] = np.log(total) - integral
        log_mark[:, step - 1] = np.log(intensity[rows, marks[:, step]] / total)
        excited = faded
    return log_gap, log_mark


def draw_self_correcting(config: SelfCorrectingConfig, count: int, rng: np.random.Generator) -> Drawn:
    """`count` sequences, by inverting the integral of the intensity."""
    growth, relief = config.growth, config.relief
    times = np.zeros((count, config.length + 1))
    for step in range(1, config.length + 1):
        pressure = growth * times[:, step - 1] - relief * step
        needed = rng.standard_exponential(count)
        gap = np.logaddexp(0.0, np.log(growth * needed) - pressure) / growth
        times[:, step] = times[:, step - 1] + gap
    return times, np.zeros_like(times, dtype=np.int64)


def self_correcting_log_likelihood(
    config: SelfCorrectingConfig, times: np.ndarray, marks: np.ndarray
) -> Drawn:
    """As `hawkes_log_likelihood`; there is one mark."""
    growth, relief = config.growth, config.relief
    before = growth * times[:, :-1] - relief * np.arange(1, times.shape[1])
    after = before + growth * np.diff(times, axis=1)
    log_gap = after - (np.exp(after) - np.exp(before)) / growth
    return log_gap, np.zeros_like(log_gap)


def _load(
    config: C, draw: Callable[[C, int, np.random.Generator], Drawn], log_likelihood: Likelihood[C]
) -> Splits:
    kind: Events = config.kinds()[0]  # type: ignore[attr-defined]

    def split(stream: int, count: int) -> tuple[Drawn, EventWindows]:
        times, marks = draw(config, count, np.random.default_rng([config.seed, stream]))
        return (times, marks), EventWindows(list(zip(times, marks, strict=True)), kind)

    test, windows = split(2, config.eval_examples)

    def best() -> dict[str, float]:
        log_gap, log_mark = log_likelihood(config, *test)
        time, mark = -float(log_gap.mean()), 0.0 - float(log_mark.mean())
        return {"loss": time + mark, "nll": time + mark, "nll_time": time, "nll_mark": mark}

    return Splits(
        train=split(0, config.examples)[1],
        val=split(1, config.eval_examples)[1],
        test=windows,
        encode=EncodeEvents(kind),
        best=best,
    )
