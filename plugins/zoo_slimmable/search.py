"""Search among the widths of an encoder and its decoders, from a table of what each is worth (torch-free).

Aich et al. 2023, arXiv:2308.11744: a decoder of a task that is preferred gets more of the budget, the encoder
is searched under what is left. The text of its method was out of reach; what follows is our own. A decoder's
outputs do not depend on the widths of other decoders, so that a table of |encoder widths| x |decoder widths|
evaluations holds what every configuration achieves, and any budget and preference is a look at it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.plugin import ZooError

#: Configurations of decoders that are looked through; of more, those that count are kept, see `_thin`.
MOST = 20_000


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """What widths achieve and cost.

    tasks: the questions. encoder, decoder: widths, ascending; one of the decoders: they are not slimmed.
    encoder_macs: (E,). decoder_macs: (E, D, T). Multiply-accumulates of one example.
    quality: split -> (E, D, T), more is better: accuracy, mIoU, the explained share of the variance.
    made_from: what identifies the weights that were scored.
    """

    tasks: tuple[str, ...]
    encoder: tuple[float, ...]
    decoder: tuple[float, ...]
    encoder_macs: Any
    decoder_macs: Any
    quality: Mapping[str, Any]
    made_from: Mapping[str, Any] = field(default_factory=dict)

    def gains(self, split: str) -> np.ndarray:
        """(E, D, T): quality relative to full width, 0 at full width."""
        quality = np.asarray(self.quality[split], dtype=float)
        whole = quality[-1, -1]
        return (quality - whole) / np.maximum(np.abs(whole), 1e-12)

    @property
    def full_macs(self) -> int:
        """Cost of full width."""
        return int(np.asarray(self.encoder_macs)[-1] + np.asarray(self.decoder_macs)[-1, -1].sum())

    @property
    def least_macs(self) -> int:
        """Cost of the smallest configuration."""
        return int(np.asarray(self.encoder_macs)[0] + np.asarray(self.decoder_macs)[0, 0].sum())

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> ScoreTable:
        """Read what `save` wrote.

        Raises:
            ZooError: it is no such file.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            sizes: dict[str, Any] = {name: tuple(data.pop(name)) for name in ("tasks", "encoder", "decoder")}
            return cls(**sizes, **data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ZooError(
                f"{path}: is no table of widths ({error}); delete it to measure it again"
            ) from None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A configuration: its widths, what it costs and what it achieves.

    score: the preferences' mean of gains on val, 0 at full width. quality: split -> task -> value.
    """

    encoder: float
    decoders: Mapping[str, float]
    macs: int
    share: float
    score: float
    quality: Mapping[str, Mapping[str, float]]


def search(
    table: ScoreTable,
    budget: float,
    preferences: Mapping[str, float] | None = None,
    *,
    spend: float = 0.95,
    encoder: float | None = None,
    uniform: bool = False,
) -> Found:
    """The configuration within a budget that the preferences score highest on val; of equals the cheapest.

    Args:
        budget: multiply-accumulates that are never exceeded.
        preferences: weights of tasks; those not named count nothing. `None`: all alike.
        spend: look only among configurations that use this share of the budget, where there are any: what a
            wider network loses on val is noise more often than not. 0: all that are within it.
        encoder: hold the encoder at this width. uniform: one width for everything. Both for comparison.

    Raises:
        ZooError: a budget below the smallest configuration, a task that does not exist, preferences that
            are negative or all zero, or a width of the encoder that the table does not have.
    """
    if encoder is not None and encoder not in table.encoder:
        known = ", ".join(f"{width:g}" for width in table.encoder)
        raise ZooError(f"the encoder has no width {encoder:g} in this table. It has: {known}")
    weights = _weights(table, preferences)
    least = spend * budget
    best: tuple[tuple[bool, float, float], int, tuple[int, ...]] | None = None
    for e, width in enumerate(table.encoder):
        if encoder is not None and width != encoder:
            continue
        widths = _indices(table.decoder, width) if uniform else list(range(len(table.decoder)))
        cost, score, chosen = _within(table, e, widths, weights, budget)
        for allowed in (np.flatnonzero(cost >= least), np.arange(len(cost))):
            if len(allowed):
                value = score[allowed] - 1e-9 * cost[allowed] / table.full_macs
                at = allowed[int(value.argmax())]
                rank = (bool(cost[at] >= least), float(value.max()), -float(cost[at]))
                if best is None or rank > best[0]:
                    best = rank, e, tuple(int(n) for n in chosen[at])
                break
    if best is None:
        raise ZooError(_too_small(table, budget, encoder))
    return _found(table, best[1], best[2], weights)


def _within(
    table: ScoreTable, e: int, widths: list[int], weights: np.ndarray, budget: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What configurations of the decoders cost and are worth with the encoder at its width number `e`.

    Those within the budget, task by task: costs and scores add up.

    widths: which of the decoders' widths may be used.

    Returns:
        Costs (P,), scores (P,), and which width each task has, (P, T).
    """
    costs = np.asarray(table.decoder_macs, dtype=float)[e][widths]  # (D, T)
    gains = weights * table.gains("val")[e][widths]
    cost, score = np.array([float(np.asarray(table.encoder_macs)[e])]), np.zeros(1)
    chosen = np.zeros((1, 0), dtype=np.int64)
    for t in range(len(table.tasks)):
        cost = np.add.outer(cost, costs[:, t]).ravel()
        score = np.add.outer(score, gains[:, t]).ravel()
        chosen = np.column_stack([chosen.repeat(len(widths), 0), np.tile(widths, len(chosen))])
        kept = np.flatnonzero(cost + costs[:, t + 1 :].min(0).sum() <= budget)
        kept = kept[_thin(cost[kept], score[kept])]
        cost, score, chosen = cost[kept], score[kept], chosen[kept]
    return cost, score, chosen


def _thin(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Which of many to go on with: all, or of those that cost about the same the one with the highest score.

    So a search of many tasks stays short. What is found never costs more than the budget, and is at least as
    good as the best within a budget that is smaller by T / `MOST` of itself.
    """
    if len(cost) <= MOST:
        return np.arange(len(cost))
    share = (cost - cost.min()) / max(float(np.ptp(cost)), 1e-12)
    order = np.argsort(score)
    best = np.full(MOST, -1)
    best[(share * (MOST - 1)).astype(np.int64)[order]] = order  # of one place the last, the highest, stays
    return best[best >= 0]


def parse_budget(budget: str | float, table: ScoreTable) -> float:
    """Multiply-accumulates, from "0.4x" of full width or from FLOPs (two each), as "2M" or a number.

    Raises:
        ZooError: it reads like neither.
    """
    text = str(budget).strip().lower()
    factor = {"x": float(table.full_macs), "k": 0.5e3, "m": 0.5e6, "g": 0.5e9}.get(text[-1:], 0.0)
    try:
        value = float(text[:-1]) * factor if factor else float(text) / 2
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ZooError(
            f"a budget reads '0.4x' (of full width) or '2M' (FLOPs of one example; k, M or G), got {budget!r}"
        )
    return value


def parse_named(text: str, what: str) -> dict[str, float]:
    """Numbers by name, "a=2,b=1".

    Raises:
        ZooError: it reads otherwise, or has a name twice.
    """
    found: dict[str, float] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, value = part.partition("=")
        name = name.strip()
        if name in found:
            raise ZooError(f"{what} name {name} twice: {text!r}")
        try:
            found[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ZooError(f"{what} read 'name=number,name=number', got {part!r}")
    return found


def _weights(table: ScoreTable, preferences: Mapping[str, float] | None) -> np.ndarray:
    if not preferences:
        return np.full(len(table.tasks), 1 / len(table.tasks))
    for name, value in preferences.items():
        if name not in table.tasks:
            raise ZooError(f"there is no task {name!r} to prefer. There is: {', '.join(table.tasks)}")
        if not 0 <= value < math.inf:
            raise ZooError(f"a preference must be at least 0 and finite, got {name}={value:g}")
    weights = np.array([preferences.get(name, 0.0) for name in table.tasks])
    if not weights.any():
        raise ZooError("at least one preference must be above 0")
    weights /= weights.max()  # their sum may be more than there is a number for
    return weights / weights.sum()


def _indices(widths: Sequence[float], width: float) -> list[int]:
    """Where the width stands among those of decoders; of decoders that are not slimmed their only one."""
    return [0] if len(widths) == 1 else [n for n, each in enumerate(widths) if each == width]


def _found(table: ScoreTable, e: int, at: tuple[int, ...], weights: np.ndarray) -> Found:
    macs = np.asarray(table.encoder_macs)[e] + sum(
        np.asarray(table.decoder_macs)[e, d, t] for t, d in enumerate(at)
    )
    gains = table.gains("val")
    quality = {
        split: {task: float(np.asarray(values)[e, at[t], t]) for t, task in enumerate(table.tasks)}
        for split, values in table.quality.items()
    }
    return Found(
        encoder=table.encoder[e],
        decoders={}
        if len(table.decoder) == 1
        else dict(zip(table.tasks, (table.decoder[d] for d in at), strict=True)),
        macs=int(macs),
        share=float(macs / table.full_macs),
        score=float(sum(weights[t] * gains[e, d, t] for t, d in enumerate(at))),
        quality=quality,
    )


def _too_small(table: ScoreTable, budget: float, encoder: float | None) -> str:
    least, share = table.least_macs, table.least_macs / table.full_macs
    if encoder is not None:
        return f"no configuration with the encoder at {encoder:g} costs at most {2 * budget:,.0f} FLOPs"
    return (
        f"a budget of {2 * budget:,.0f} FLOPs is below the smallest configuration, which costs {2 * least:,} "
        f"({share:.3f}x of full width)"
    )
