"""How well a network follows preferences: hypervolume and controllability (torch-free).

The paper's own definitions were out of reach, see the README; these are its precursors', and are always
given with their reference point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.plugin import ZooError
from zoo_slimmable.search import Found, ScoreTable, search

#: The exact hypervolume of points of more tasks would take minutes.
MOST_TASKS = 8


def hypervolume(points: Any, reference: Any) -> float:
    """The volume that points dominate above a reference, exactly; more is better in every dimension.

    points: (P, T). reference: (T,). Points that do not exceed it everywhere add nothing.

    Raises:
        ValueError: other shapes.
    """
    found, lowest = np.asarray(points, dtype=float), np.asarray(reference, dtype=float)
    if lowest.ndim != 1 or (found.size and found.shape[1:] != lowest.shape):
        raise ValueError(f"expected points (P, T) and a reference (T,), got {found.shape} and {lowest.shape}")
    above = found.reshape(-1, len(lowest)) - lowest
    return _volume(_front(above[(above > 0).all(1)]))


def _volume(points: np.ndarray) -> float:
    """What points (P, T) dominate above 0: each adds its box but for what those after it dominate of that.

    What those dominate is that of points again: While, Bradstreet and Barone, A Fast Way of Calculating Exact
    Hypervolumes, IEEE Transactions on Evolutionary Computation 16, 2012.
    """
    boxes = points.prod(1)
    return float(
        sum(
            box - (_volume(_front(np.minimum(points[n + 1 :], point))) if n + 1 < len(points) else 0)
            for n, (point, box) in enumerate(zip(points, boxes, strict=True))
        )
    )


def _front(points: np.ndarray) -> np.ndarray:
    """The points that no other dominates, each once, those that are high in the last dimension first."""
    points = np.unique(points, axis=0)
    under = (points[:, None] <= points[None]).all(2)
    front = points[under.sum(1) == 1]  # each is under itself
    return front[np.argsort(-front[:, -1])] if len(front) else front


@dataclass(frozen=True, kw_only=True)
class Controllability:
    """What a search over many preferences achieves at one budget, on the test split.

    hypervolume: of the gains (quality relative to full width) above `reference`, those of the smallest
    configuration; `None` of more than `MOST_TASKS` tasks. response: Spearman's correlation of a task's
    preference and gain. spread: largest minus smallest gain. Both by task. used: the largest and the smallest
    share of the budget.
    """

    budget: float
    hypervolume: float | None
    reference: tuple[float, ...]
    response: dict[str, float]
    spread: dict[str, float]
    used: tuple[float, float]


def preferences(tasks: Sequence[str], count: int = 30, seed: int = 0) -> list[dict[str, float]]:
    """Preferences to try: each task alone, all alike, and random ones, uniform on the simplex."""
    rng = np.random.default_rng(seed)
    corners = np.eye(len(tasks))
    drawn = rng.dirichlet(np.ones(len(tasks)), size=count)
    rows = [*corners, np.full(len(tasks), 1 / len(tasks)), *drawn]
    return [dict(zip(tasks, map(float, row), strict=True)) for row in rows]


def controllability(
    table: ScoreTable,
    budget: float,
    *,
    encoder: float | None = None,
    uniform: bool = False,
    spend: float = 0.0,
) -> Controllability:
    """Search at one budget under many preferences. budget: multiply-accumulates; others as in `search`.

    spend: by default nothing of the budget must be used, so that ways of searching compare with each other.

    Raises:
        ZooError: nothing fits the budget.
    """
    asked = preferences(table.tasks)
    found = [search(table, budget, each, encoder=encoder, uniform=uniform, spend=spend) for each in asked]
    split = "test" if "test" in table.quality else "val"
    gains = np.array([_gains(table, each, split) for each in found])
    reference = tuple(float(v) for v in table.gains(split)[0, 0])
    wanted = np.array([[each[task] for task in table.tasks] for each in asked])
    return Controllability(
        budget=budget / table.full_macs,
        hypervolume=hypervolume(gains, reference) if len(table.tasks) <= MOST_TASKS else None,
        reference=reference,
        response={task: _spearman(wanted[:, t], gains[:, t]) for t, task in enumerate(table.tasks)},
        spread={task: float(np.ptp(gains[:, t])) for t, task in enumerate(table.tasks)},
        used=(
            max(each.macs for each in found) / budget,
            min(each.macs for each in found) / budget,
        ),
    )


def compare(table: ScoreTable, budget: float) -> dict[str, float | None]:
    """The hypervolume of searching encoder and decoders, beside uniform widths and each fixed encoder; `None`
    where nothing fits, or of more than `MOST_TASKS` tasks.
    """
    ways: dict[str, dict[str, Any]] = {"searched": {}, "uniform": {"uniform": True}}
    ways |= {f"encoder {width:g}": {"encoder": width} for width in table.encoder}
    found: dict[str, float | None] = {}
    for name, options in ways.items():
        try:
            found[name] = controllability(table, budget, **options).hypervolume
        except ZooError:
            found[name] = None
    return found


def _gains(table: ScoreTable, found: Found, split: str) -> list[float]:
    e = table.encoder.index(found.encoder)
    at = [table.decoder.index(found.decoders.get(task, table.decoder[-1])) for task in table.tasks]
    gains = table.gains(split)
    return [float(gains[e, d, t]) for t, d in enumerate(at)]


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, 0 where one is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)
