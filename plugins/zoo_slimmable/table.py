"""Measure the table that a search looks into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.commands import SavedRun
from zoo.data import collate
from zoo.layers import Model
from zoo.plugin import Classes, Maps, Multi, Values, ZooError
from zoo_slimmable.configuration import DECODERS, ENCODER, Configuration, groups_of, tasks_of
from zoo_slimmable.cost import Cost
from zoo_slimmable.norms import calibrate
from zoo_slimmable.search import ScoreTable
from zoo_slimmable.widths import set_width

#: Batches that statistics of batch norms are taken from, and how many examples each has.
BATCHES, BATCH = 5, 256


def measure(run: SavedRun, widths: tuple[float, ...], *, made_from: Mapping[str, Any]) -> ScoreTable:
    """Score every pair of an encoder's and the decoders' width on val and test.

    Raises:
        ZooError: the run's model has no widths, or its targets are neither classes nor values.
    """
    model = run.model()
    try:
        groups = groups_of(model)
    except ValueError as error:
        raise ZooError(str(error)) from error
    tasks = tasks_of(model)
    questions = _questions(model)
    ascending = tuple(sorted(widths))
    decoder = ascending if any(group.startswith(DECODERS) for group in groups) else (1.0,)
    cost, variances = Cost(model, first_inputs(run)), _variances(run, questions)
    encoder_macs, decoder_macs = [], []
    quality: dict[str, list[Any]] = {"val": [], "test": []}
    for e in ascending:
        rows: dict[str, list[Any]] = {"val": [], "test": []}
        prices = []
        for d in decoder:
            calibrated(model, run, _configuration(groups, e, d))
            each = [cost.macs(below=f"{DECODERS}.{task}") if task in tasks else 0 for task in questions]
            prices.append(each)
            for split in rows:
                scores = run.score(model, split)  # type: ignore[arg-type]
                rows[split].append(_qualities(scores, split, questions, variances[split]))
        encoder_macs.append(cost.macs() - sum(prices[-1]))
        decoder_macs.append(prices)
        for split, values in rows.items():
            quality[split].append(values)
    return ScoreTable(
        tasks=tuple(questions),
        encoder=ascending,
        decoder=decoder,
        encoder_macs=encoder_macs,
        decoder_macs=decoder_macs,
        quality=quality,
        made_from=made_from,
    )


def calibrated(model: Model, run: SavedRun, configuration: Configuration) -> None:
    """Set widths, and take the statistics of batch norms for them from the train split.

    Raises:
        ValueError: a width that cannot be, or a name that fits nothing.
    """
    set_width(model, 1.0)
    set_width(model, configuration, strict=False)
    calibrate(model, _batches(run))


def first_inputs(run: SavedRun, count: int = 1) -> Tensor:
    """The first inputs of the test split, (count, ...)."""
    test = run.splits().test
    inputs: Tensor = collate([test[n] for n in range(min(count, len(test)))])["input"]
    return inputs


def _batches(run: SavedRun) -> Iterator[Tensor]:
    train = run.splits().train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    for start in range(0, min(BATCHES * BATCH, len(order)), BATCH):
        yield collate([train[n] for n in order[start : start + BATCH]])["input"]


def _configuration(groups: tuple[str, ...], encoder: float, decoder: float) -> Configuration:
    return {group: decoder if group.startswith(DECODERS) else encoder for group in groups}


def _questions(model: Model) -> dict[str, Classes | Values]:
    targets = model.plan.targets
    if isinstance(targets, (Multi, Maps)):
        return dict(targets.parts)
    if isinstance(targets, (Classes, Values)):
        return {(tasks_of(model) or ("answer",))[0]: targets}
    raise ZooError(f"widths are searched for classes and values, not for {targets}")


def _variances(run: SavedRun, questions: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Mean squares of the distance from the mean of train, by split and question of values.

    Of maps the mean is that of a channel over all pixels.
    """
    splits, found = run.splits(), {}
    asked = [name for name, part in questions.items() if isinstance(part, Values)]

    def targets(split: Any) -> dict[str, np.ndarray]:
        if not asked:
            return {}
        given = collate([split[n] for n in range(len(split))])["target"]
        return {
            name: (given[name] if isinstance(given, dict) else given).numpy().astype(float) for name in asked
        }

    means = {
        name: np.nanmean(values, axis=(0, *range(2, values.ndim)), keepdims=True)
        for name, values in targets(splits.train).items()
    }
    for split in ("val", "test"):
        own = targets(getattr(splits, split))
        found[split] = {name: float(np.nanmean((values - means[name]) ** 2)) for name, values in own.items()}
    return found


def _qualities(
    scores: Mapping[str, float], split: str, questions: Mapping[str, Any], variances: Mapping[str, float]
) -> list[float]:
    """Accuracy of classes, mIoU of maps of classes; of values 1 - mse / variance."""
    found = []
    for name, part in questions.items():
        prefix = f"{split}/{name}/" if f"{split}/{name}/loss" in scores else f"{split}/"
        if isinstance(part, Classes):
            found.append(scores.get(f"{prefix}miou", scores.get(f"{prefix}accuracy", float("nan"))))
        else:
            rmse = scores.get(f"{prefix}rmse", float("nan"))
            found.append(1 - scores.get(f"{prefix}mse", rmse**2) / variances[name])
    return found


__all__ = ["ENCODER", "calibrated", "first_inputs", "measure"]
