"""`zoo baseline`: what simple answers get on a dataset, by the metrics of its task.

Everything is fitted on train (what must be tuned, by cross-validation inside it) and scored on test.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.baselines.events import poisson, renewals
from zoo.baselines.features import IMAGES, Spread, count_features, nearby, rows_of, whole
from zoo.baselines.models import ALPHAS, MOST_FORESTS, ROUNDS, TREES, fit, models_for, rounds_for
from zoo.catalogue import Catalogue, Part
from zoo.contract import kinds_of
from zoo.data.batch import Batch
from zoo.data.split import Splits
from zoo.errors import ZooError
from zoo.kinds import (
    IGNORE,
    Actions,
    Classes,
    DataKind,
    Forecast,
    Ids,
    Labels,
    Maps,
    NextEvent,
    NextId,
    Questions,
    Series,
    TargetKind,
    Values,
)
from zoo.specs import TaskSpec
from zoo.tasks.base import Task, batches
from zoo.tasks.metrics import values_of

#: Rows that a model is fitted on, at most, and rows times features: enough for a simple one, and soon done.
MOST_ROWS, MOST_CELLS = 20_000, 4_000_000
#: Features that a model takes, at most: a picture of 32 x 32 pixels, a week of seven channels by the hour.
MOST_FEATURES = 1280
#: What generated data allow, where that is known: no baseline, but it stands beside them.
BEST = "best possible"
#: Pairs of symbols that are counted, at most.
MOST_SYMBOLS = 4096
#: The seasons, in steps, among which the best on train is taken.
SEASONS = (4, 7, 12, 24, 48, 52, 96, 144, 168)

MISSING = (
    "Fitted baselines (ridge, logistic, trees) need scikit-learn: pip install 'archzoo[baselines]'. "
    "Only the naive ones are shown."
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one baseline gets on test.

    metrics: as a model's, without the split; none where it was left out, and of the best answer possible
        only those that are known.
    note: what was done, or why it was left out.
    """

    name: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""


def measure(
    catalogue: Catalogue,
    dataset: Part,
    *,
    task: Task[Any, Any] | None = None,
    splits: Splits | None = None,
    most_rows: int = MOST_ROWS,
) -> list[Score]:
    """Every baseline that applies to a dataset: naive ones first, the best possible last, where it is known.

    Args:
        task: whose metrics are taken; `None`: the task that the contract would choose.
        splits: the loaded dataset, where it is at hand.

    Raises:
        ZooError: no task answers the dataset's targets, or it must be fetched and cannot be.
    """
    return list(measure_each(catalogue, dataset, task=task, splits=splits, most_rows=most_rows))


def measure_each(
    catalogue: Catalogue,
    dataset: Part,
    *,
    task: Task[Any, Any] | None = None,
    splits: Splits | None = None,
    most_rows: int = MOST_ROWS,
) -> Iterator[Score]:
    """As `measure`, one after the other."""
    inputs, targets = kinds_of(catalogue, dataset)
    task = task or _task(catalogue, targets)
    splits = splits or catalogue.get("dataset", dataset.id).load()(dataset.config)
    if isinstance(targets, NextEvent):
        metrics = poisson(splits.train, splits.test, targets)
        yield Score(name="Poisson", metrics=metrics, note="the rate of train")
    for name, note, answer in _naive(task, inputs, targets, splits):
        yield _score(name, note, task, splits.test, answer, time.perf_counter())
    if scikit_learn():
        yield from _fitted(task, inputs, targets, splits, most_rows=most_rows)
    if splits.arena is not None:
        notes = {"random": "actions", "behaviour": "who recorded train", "best_recorded": "episode of train"}
        for name, value in splits.arena.references.items():
            yield Score(name=name.replace("_", " "), metrics={"return": value}, note=notes.get(name, ""))
    if splits.best is not None:
        yield Score(name=BEST, metrics=splits.best(), note="the process itself")


def _fitted(
    task: Task[Any, Any], inputs: DataKind, targets: TargetKind, splits: Splits, *, most_rows: int
) -> Iterator[Score]:
    """The models of scikit-learn; what would take too long is left out, and says so."""
    names = models_for(targets)
    started = time.perf_counter()
    if isinstance(targets, Forecast) and isinstance(inputs, Series) and not inputs.ragged:
        rows = min(most_rows, MOST_CELLS // inputs.length)
        steps, rows = shared_ridge(splits.train, targets, most=rows)
        note = f"{rows} rows of {inputs.length} steps, one model for all channels, from the last value"
        yield _score("shared ridge", note, task, splits.test, steps, started)
    if not names:
        return
    width = count_features(splits.train, inputs, targets)
    if width > MOST_FEATURES:
        for name in names:
            yield Score(name=name, note=f"left out: {width} features, at most {MOST_FEATURES} are taken")
        return
    features, answers = rows_of(
        splits.train, inputs, targets, most=min(most_rows, max(1, MOST_CELLS // width))
    )
    tokenwise = isinstance(targets, Labels)
    for name in names:
        started = time.perf_counter()
        if name == TREES and isinstance(targets, (Values, Forecast)) and targets.outputs > MOST_FORESTS:
            yield Score(
                name=name, note=f"left out: {targets.outputs} outputs, at most {MOST_FORESTS} are grown"
            )
            continue
        rounds = rounds_for(features.size * targets.outputs)
        model = fit(name, targets, features, answers, rounds=rounds)
        note = f"{len(features)} rows of {width} features"
        if name == TREES and rounds < ROUNDS:
            note += f", {rounds} rounds"

        def answer(batch: Batch, model: Any = model) -> Tensor:
            if isinstance(targets, Maps):
                return _maps(model, batch, inputs, targets)
            rows = nearby(batch, inputs) if tokenwise else whole(batch, inputs)
            outputs: Tensor = model(rows.flatten(0, -2).numpy())
            if isinstance(targets, Forecast):
                return outputs.unflatten(1, (targets.horizon, targets.channels))
            return outputs.unflatten(0, rows.shape[:2]) if tokenwise else outputs

        yield _score(name, note, task, splits.test, answer, started)


def _maps(model: Any, batch: Batch, inputs: DataKind, targets: Maps) -> Tensor:
    """What a model of pixels answers, (B, K, H, W)."""
    found = []
    for images in batch["input"].split(IMAGES):
        rows = nearby({"input": images}, inputs)  # (B, H W, F)
        outputs = model(rows.flatten(0, 1).numpy()).unflatten(0, rows.shape[:2])  # (B, H W, K)
        found.append(outputs.transpose(1, 2).unflatten(2, (targets.height, targets.width)))
    return torch.cat(found)


def scikit_learn() -> bool:
    """Whether scikit-learn is there."""
    return importlib.util.find_spec("sklearn") is not None


def sentence(scores: list[Score]) -> str:
    """What to say below the table: that scikit-learn is not there, or nothing."""
    return "" if scikit_learn() or not scores else MISSING


def _task(catalogue: Catalogue, targets: TargetKind) -> Task[Any, Any]:
    specs = [s for s in catalogue.specs("task") if isinstance(s, TaskSpec) and s.answers == targets.kind]
    if not specs:
        raise ZooError(
            f"no installed task answers {targets.kind!r} ({targets}): there is nothing to score with"
        )
    spec = min(specs, key=lambda spec: (spec.cost, spec.id))
    return catalogue.get("task", spec.id).load()(catalogue.part("task", spec.id).config, targets=targets)


def _naive(
    task: Task[Any, Any], inputs: DataKind, targets: TargetKind, splits: Any
) -> Iterator[tuple[str, str, Callable[[Batch], Tensor]]]:
    """Name, note, and batch -> outputs of the answers that need no features."""
    naive = task.naive(splits.train)
    called = "majority" if isinstance(targets, (Classes, Labels, NextId)) else "mean"
    if isinstance(targets, Actions) and targets.choices:
        called = "majority"
    if isinstance(targets, NextEvent):
        called = "log-normal renewal"
    if isinstance(targets, Questions):
        called = "majority and mean"
    if isinstance(targets, Forecast):
        mean = mean_target(splits.train, targets)
        yield "last value", "", lambda batch: task.answers(naive, batch)
        yield "mean", "of train, by step", lambda batch: mean.expand(len(batch["input"]), -1, -1)
        season = best_season(splits.train, targets)
        if season:
            note = f"of {season} steps, the best on train"
            yield "seasonal naive", note, lambda batch: seasonal(batch, targets, season)
    else:
        yield called, "of train", lambda batch: task.answers(naive, batch)
    if isinstance(targets, NextEvent):
        yield from renewals(splits.train, targets)
    if isinstance(inputs, Ids) and isinstance(targets, NextId) and targets.vocab <= MOST_SYMBOLS:
        table = bigrams(splits.train, inputs, targets)
        yield "bigram", "of train: what follows each symbol", lambda batch: table[batch["input"]]


def mean_target(train: Any, targets: Forecast) -> Tensor:
    """The mean of each step and channel, over what is known: (1, horizon, C)."""
    total = torch.zeros(targets.horizon, targets.channels, dtype=torch.float64)
    count = torch.zeros_like(total)
    for batch in batches(train):
        total += batch["target"].double().nansum(0)
        count += (~batch["target"].isnan()).sum(0)
    return (total / count.clamp_min(1)).float()[None]


def seasonal(batch: Batch, targets: Forecast, season: int) -> Tensor:
    """The last `season` steps of the first channels, again and again: (B, horizon, C)."""
    last: Tensor = batch["input"][:, -season:, : targets.channels]
    at = torch.arange(targets.horizon) % season
    return last[:, at]


def best_season(train: Any, targets: Forecast) -> int:
    """The season of the lowest squared error on a part of train; 0 where none fits."""
    step = max(1, len(train) // 512)
    picked = [train[i] for i in range(0, len(train), step)]
    if len({len(example["input"]) for example in picked}) > 1:
        return 0
    batch = {name: torch.stack([example[name] for example in picked]) for name in ("input", "target")}
    errors = {
        season: (seasonal(batch, targets, season) - batch["target"]).square().nanmean().item()
        for season in SEASONS
        if season <= batch["input"].shape[1]
    }
    return min(errors, key=errors.__getitem__) if errors else 0


def bigrams(train: Any, inputs: Ids, targets: NextId) -> Tensor:
    """Log frequencies of the asked symbol after each symbol, backed off to those of all.

    (vocab of the inputs, vocab of the targets): where there is a start symbol, the former is larger.
    """
    counts = torch.zeros(inputs.vocab, targets.vocab, dtype=torch.float64)
    for batch in batches(train):
        asked = batch["target"] != IGNORE
        pairs = batch["input"][asked] * targets.vocab + batch["target"][asked]
        counts += pairs.bincount(minlength=counts.numel()).reshape(counts.shape)
    seen = counts.sum(0) + 1  # each symbol counted once more
    return ((counts + seen / seen.sum()) / (counts.sum(1, keepdim=True) + 1)).log().float()


def shared_ridge(train: Any, targets: Forecast, *, most: int) -> tuple[Callable[[Batch], Tensor], int]:
    """Each channel from its own past, by one ridge regression for all; both count from the last value.

    So it follows a level that train has not seen. Returns batch -> outputs, and the rows it was fitted on.
    """
    from sklearn.linear_model import RidgeCV

    picked = Spread(train, max(1, most // targets.channels))
    past, future = [], []
    for batch in batches(picked):
        series = batch["input"][:, :, : targets.channels]
        last = series[:, -1:]
        past.append((series - last).transpose(1, 2).flatten(0, 1))  # (B * C, N)
        future.append((batch["target"] - last).transpose(1, 2).flatten(0, 1))
    x, y = torch.cat(past).double(), torch.cat(future).double()
    known = ~y.isnan().any(dim=1)
    model = RidgeCV(alphas=ALPHAS).fit(x[known].numpy(), y[known].numpy())

    def answer(batch: Batch) -> Tensor:
        series = batch["input"][:, :, : targets.channels]
        last = series[:, -1:]
        rows = (series - last).transpose(1, 2)  # (B, C, N)
        found = torch.from_numpy(model.predict(rows.flatten(0, 1).double().numpy())).float()
        return found.reshape(len(rows), targets.channels, -1).transpose(1, 2) + last

    return answer, int(known.sum())


@torch.no_grad()
def _score(
    name: str,
    note: str,
    task: Task[Any, Any],
    test: Any,
    answer: Callable[[Batch], Tensor],
    started: float,
) -> Score:
    metrics = task.metrics()
    for batch in batches(test):
        outputs = answer(batch)
        task.update(metrics, outputs, batch, task.loss(outputs, batch))
    return Score(name=name, metrics=values_of(metrics), seconds=time.perf_counter() - started, note=note)
