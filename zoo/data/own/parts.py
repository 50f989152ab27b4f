"""Which part each row (or file) of a user's data belongs to: 0 train, 1 validation, 2 test (torch-free)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from zoo.data.parts import by_group, hold_out
from zoo.errors import ZooError

TRAIN, VAL, TEST = range(3)
NAMES = ("train", "val", "test")

#: What people call the parts.
_CALLED = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}


def part_called(name: str) -> int | None:
    """The part of this name (`train`, `val`, `valid`, `validation`, `dev`, `test`, ...), if it is one."""
    return _CALLED.get(name.strip().lower())


def draw(
    count: int,
    *,
    val: float,
    test: float,
    seed: int,
    same: Sequence[Hashable] | None = None,
    labels: Sequence[str] | None = None,
) -> np.ndarray:
    """A part for each of `count` examples, by a seed: int (count,).

    Args:
        same: examples that have the same of these lie in one part.
        labels: classes, of each of which its shares are taken; one of a single example stays in train.
    """
    keys: list[Hashable] = list(range(count)) if same is None else list(same)
    if labels is None:
        return by_group(keys, val=val, test=test, seed=seed)
    first: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    at = {key: i for i, key in enumerate(first)}
    classes = np.array([labels[row] for row in first.values()], dtype=object).astype(str)
    parts = stratified(classes, val=val, test=test, seed=seed)
    return parts[[at[key] for key in keys]]


def stratified(classes: np.ndarray, *, val: float, test: float, seed: int) -> np.ndarray:
    """Of each class its shares; one of a single example stays in train."""
    parts = np.zeros(len(classes), dtype=int)
    if test:
        parts[hold_out(classes, fraction=test, seed=seed)] = TEST
    rest = np.flatnonzero(parts == TRAIN)
    if val:
        parts[rest[hold_out(classes[rest], fraction=val / (1 - test), seed=seed + 1)]] = VAL
    return parts


def check_parts(parts: np.ndarray, *, what: str, hint: str) -> None:
    """Each part must have an example.

    Raises:
        ZooError: one has none.
    """
    for part, name in enumerate(NAMES):
        if not (parts == part).any():
            raise ZooError(f"no {what} is for {name}; {hint}")


def unseen(classes: Sequence[str], parts: np.ndarray) -> Counter[str]:
    """Classes that occur in validation or test, but not in train, and how often."""
    known = {label for label, part in zip(classes, parts, strict=True) if part == TRAIN}
    return Counter(
        label for label, part in zip(classes, parts, strict=True) if part != TRAIN and label not in known
    )
