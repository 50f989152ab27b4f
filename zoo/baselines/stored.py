"""Baselines beside a result: measured once for a dataset and its parameters, then kept in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from zoo.baselines.measure import Score, measure_each, scikit_learn
from zoo.catalogue import Catalogue, Part
from zoo.data.fetch import atomic
from zoo.data.split import Splits
from zoo.errors import one_line
from zoo.sources import cache_folder
from zoo.tasks.base import Task

#: Raised when the same dataset would get other scores.
FORMAT = 1
#: Examples that tell a dataset from another of the same name and parameters.
SAMPLE = 16


def baselines_of(
    catalogue: Catalogue,
    dataset: Part,
    *,
    task: Task[Any, Any],
    task_id: str,
    splits: Splits,
    say: Callable[[str], None],
) -> list[Score]:
    """The scores of `zoo baseline`, by the metrics of this task; those left out are only told of.

    A fitted one that fails, or Ctrl-C while it is fitted, costs no result: what is there by then is
    returned, and nothing is kept. A cache that cannot be written is no error either.

    Args:
        say: told what is being done, if it is not just read, and what is left out.

    Raises:
        ZooError: not even the naive answer can be scored.
    """
    path = _path(dataset, task=task, task_id=task_id, splits=splits)
    kept = _read(path)
    if kept is None:
        if scikit_learn():
            say(f"baselines of {dataset.id}: measured once, then kept in the cache")
        kept, complete = _measure(catalogue, dataset, task=task, splits=splits, say=say)
        if complete:
            _write(path, kept)
    for left_out in kept:
        if not left_out.metrics:
            say(f"baseline {left_out.name} is {left_out.note}")
    return [score for score in kept if score.metrics]


def _measure(
    catalogue: Catalogue,
    dataset: Part,
    *,
    task: Task[Any, Any],
    splits: Splits,
    say: Callable[[str], None],
) -> tuple[list[Score], bool]:
    """What could be measured, and whether that is all."""
    scores: list[Score] = []
    try:
        for score in measure_each(catalogue, dataset, task=task, splits=splits):
            scores.append(score)
    except KeyboardInterrupt:
        say("Ctrl-C: the other baselines are left out")
        return scores, False
    except Exception as error:  # of a foreign library, on data that nobody has seen
        if not scores:
            raise
        say(f"the other baselines cannot be measured: {one_line(error)}")
        return scores, False
    return scores, True


def _path(dataset: Part, *, task: Task[Any, Any], task_id: str, splits: Splits) -> Path:
    """Named by all that the scores depend on."""
    configs = [
        None if config is None else dataclasses.asdict(config) for config in (dataset.config, task.config)
    ]
    identity = [FORMAT, _version("archzoo"), _version("scikit-learn"), dataset.id, dataset.revision, task_id]
    text = json.dumps([*identity, *configs, splits.sizes, _fingerprint(splits)], sort_keys=True, default=str)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return cache_folder() / "baselines" / f"{dataset.id.replace('/', '-')}-{key}.json"


def _fingerprint(splits: Splits) -> str:
    """Of some examples of test (which train has scaled) and some answers of train.

    A user's file may change while its name and parameters stay; what train gives may be drawn anew each time.
    """
    digest = hashlib.sha256()
    for split, fields in ((splits.test, ("input", "target")), (splits.train, ("target",))):
        for at in range(0, len(split), max(1, len(split) // SAMPLE)):
            example = split[at]
            for field in fields:
                value = example[field]
                for tensor in value.values() if isinstance(value, dict) else (value,):
                    digest.update(torch.as_tensor(tensor).contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> list[Score] | None:
    """What is kept there; `None`: nothing, or nothing that can be read."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [Score(**row) for row in rows]
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, scores: list[Score]) -> None:
    text = json.dumps([dataclasses.asdict(score) for score in scores], indent=1)
    try:
        with atomic(path) as file:
            file.write_text(text + "\n", encoding="utf-8")
    except OSError:
        return  # it will be measured again


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
