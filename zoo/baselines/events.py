"""Simple processes for event sequences, scored as a model is.

A renewal process forgets all but the time since the last event; one by mark also remembers the last mark.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.batch import Batch
from zoo.kinds import NextEvent
from zoo.tasks.base import batches
from zoo.tasks.event_forecasting import SHORTEST
from zoo.tasks.event_mixture import NARROWEST, EventMixture

#: Log-normal components of a fitted renewal process, and the gaps it is fitted on, at most, by mark.
COMPONENTS, MOST_GAPS = 8, 20_000

Asked = tuple[np.ndarray, np.ndarray, np.ndarray]


def poisson(train: Any, test: Any, targets: NextEvent) -> dict[str, float]:
    """The metrics on test of a Poisson process with the rate and the marks' frequencies of train."""
    _, gaps, marks = asked(train, targets)
    _, gaps_test, marks_test = asked(test, targets)
    mean = gaps.mean()
    shares = (np.bincount(marks, minlength=targets.marks) + 1) / (len(marks) + targets.marks)
    time = math.log(mean) + gaps_test.mean() / mean
    mark = 0.0 - np.log(shares[marks_test]).mean()
    return {
        "loss": float(time + mark),
        "nll": float(time + mark),
        "nll_time": float(time),
        "nll_mark": float(mark),
        "accuracy": float((marks_test == shares.argmax()).mean()),
        "rmse_time": float(np.sqrt(((gaps_test - mean) ** 2).mean())),
    }


def renewals(train: Any, targets: NextEvent) -> Iterator[tuple[str, str, Callable[[Batch], Tensor]]]:
    """Name, note, and batch -> outputs, of renewal processes by the last mark."""
    before, gaps, marks = asked(train, targets)
    log_gaps = np.log(np.maximum(gaps, SHORTEST * targets.scale))
    counts = np.zeros((targets.marks, targets.marks))
    np.add.at(counts, (before, marks), 1)
    seen = counts.sum(axis=0) + 1
    moves = np.log((counts + seen / seen.sum()) / (counts.sum(axis=1, keepdims=True) + 1))

    def answer(fit: Callable[[np.ndarray], tuple[np.ndarray, ...]]) -> Callable[[Batch], Tensor]:
        table = []
        for mark in range(targets.marks):
            own = log_gaps[before == mark]
            weight, mean, deviation = map(torch.from_numpy, fit(own if len(own) >= 2 else log_gaps))
            of_mark = torch.from_numpy(moves[mark]).expand(len(weight), -1)
            table.append(EventMixture(weight.log(), mean, deviation, of_mark).outputs().float())
        stacked = torch.stack(table)  # (M, components, 3 + M)
        return lambda batch: stacked[batch["input"][..., 2].long()]

    yield "renewal by mark", "log-normal, by the last mark", answer(_one)
    if importlib.util.find_spec("sklearn") is not None:
        note = f"{COMPONENTS} log-normals, by the last mark"
        yield "mixture renewal", note, answer(_several)


def asked(split: Any, targets: NextEvent) -> Asked:
    """The marks before, the gaps and the marks of all events that are asked for, (n,) each."""
    found = []
    for batch in batches(split):
        keep = ~batch["target"][..., 0].isnan()
        found.append(torch.cat([batch["input"][keep][:, 2:], batch["target"][keep]], dim=1).double())
    before, gap, mark = torch.cat(found).T.numpy()
    return before.astype(np.int64), gap, mark.astype(np.int64)


def _one(log_gaps: np.ndarray) -> tuple[np.ndarray, ...]:
    """Weight, mean and deviation of one log-normal."""
    return np.ones(1), log_gaps.mean(keepdims=True), log_gaps.std(keepdims=True).clip(2 * NARROWEST)


def _several(log_gaps: np.ndarray) -> tuple[np.ndarray, ...]:
    """Weights, means and deviations of several log-normals."""
    from sklearn.mixture import GaussianMixture

    step = max(1, len(log_gaps) // MOST_GAPS)
    components = min(COMPONENTS, len(np.unique(log_gaps)))
    model = GaussianMixture(components, random_state=0, reg_covar=(2 * NARROWEST) ** 2)
    model.fit(log_gaps[::step, None])
    return model.weights_, model.means_[:, 0], np.sqrt(model.covariances_[:, 0, 0])
