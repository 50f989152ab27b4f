"""Draw train, validation and test by a seed: 0, 1 and 2 in all of the package."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def hold_out(labels: np.ndarray, *, fraction: float, seed: int) -> np.ndarray:
    """Which examples to hold out, bool (examples,): of each class its fraction, but never its last example.

    A class of at least two gives at least one.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held[members[:count]] = True
    return held


def by_group(groups: Sequence[Hashable], *, val: float, test: float, seed: int) -> np.ndarray:
    """The part of each row, int (rows,).

    Whole groups, in random order, go to test while they fit into its share, else to validation, else to
    train.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    names = list(rows)  # in order of appearance, whatever their hashes
    part_of = np.zeros(len(groups), dtype=int)
    wanted = {2: test * len(groups), 1: val * len(groups)}
    for index in np.random.default_rng(seed).permutation(len(names)):
        members = rows[names[index]]
        for part, room in wanted.items():
            if len(members) <= room:
                part_of[members] = part
                wanted[part] = room - len(members)
                break
    return part_of
