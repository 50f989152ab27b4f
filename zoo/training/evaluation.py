"""Scores and predictions of a run's best checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from zoo.baselines import baselines_of
from zoo.data.batch import collate, mask_of, to_device
from zoo.data.read import read_inputs
from zoo.data.split import Splits
from zoo.errors import ZooError
from zoo.kinds import Forecast, NextId, Questions, Values
from zoo.layers.model import Model, build_model
from zoo.recipe import LoadedRecipe, RecipeError, load_recipe
from zoo.runs import Run, find_run
from zoo.tasks.base import Task
from zoo.tasks.metrics import values_of
from zoo.training.checkpoint import model_weights, read_checkpoint
from zoo.training.loaders import derived_seed, eval_loader
from zoo.training.result import EvalResult
from zoo.training.setup import build_task, load_splits, settled

SplitName = Literal["train", "val", "test"]


def evaluate(
    run: Run | str | Path,
    *,
    split: SplitName = "test",
    overrides: Sequence[str] = (),
    quiet: bool = False,
) -> EvalResult:
    """Score the best checkpoint of a run on a split; for the test split, beside the baselines.

    Args:
        overrides: `key=value` each, as for training: the same weights on other data or with other
            parameters, e.g. `"data.params.length=4096"`. They may change `data`, `model` and `task`.
        quiet: do not say when baselines are being measured.

    Raises:
        ZooError: no such run or split, no checkpoint, a damaged one, or one that does not fit the overrides.
    """
    run = run if isinstance(run, Run) else find_run(run)
    if split not in ("train", "val", "test"):
        raise ZooError(f"there is no split {split!r}. There is: train, val, test.")
    for text in overrides:
        if text.partition(".")[0] not in ("data", "model", "task"):
            raise ZooError(
                f"{text!r} changes nothing in an evaluation: overrides begin with data., model. or task."
            )
    loaded = recipe_of(run, overrides)
    model, task, splits = best_model(run, loaded), build_task(loaded), load_splits(loaded)
    metrics = score(model, task, splits, split, loaded=loaded)
    baselines = measured_baselines(loaded, task, splits, quiet=quiet) if split == "test" else {}
    return EvalResult(run=run, split=split, metrics=metrics, baselines=baselines, overrides=tuple(overrides))


def measured_baselines(
    loaded: LoadedRecipe, task: Task[Any, Any], splits: Splits, *, quiet: bool = False
) -> dict[str, dict[str, float]]:
    """The baselines of the recipe's dataset: name -> `test/metric` -> score."""
    plan = loaded.plan
    if plan.dataset is None or plan.task is None:
        return {}
    scores = baselines_of(
        loaded.catalogue,
        plan.dataset,
        task=task,
        task_id=plan.task.id,
        splits=splits,
        say=lambda text: None if quiet else print(f"zoo: {text}", file=sys.stderr),
    )
    return {s.name: {f"test/{name}": value for name, value in s.metrics.items()} for s in scores}


def predict(run: Run | str | Path, file: str | Path, *, overrides: Sequence[str] = ()) -> list[Any]:
    """Predictions of the best checkpoint for the examples in a file, as plain data.

    A class with its probability, values in natural units, or the next symbol or event of each sequence.

    Args:
        overrides: `data.params....=value` each, e.g. where the training data lies now.

    Raises:
        ZooError: the file does not hold what the model was trained on, or as `evaluate`.
    """
    run = run if isinstance(run, Run) else find_run(run)
    loaded = recipe_of(run, overrides)
    plan = loaded.plan
    splits = load_splits(loaded)
    if splits.encode is None:
        raise ZooError(f"dataset {plan.dataset.id if plan.dataset else ''!r} cannot encode a file of yours")
    inputs = read_inputs(file, plan.inputs, encode=splits.encode, text=splits.text)
    model, task = best_model(run, loaded), build_task(loaded)
    answers: list[Any] = []
    with torch.no_grad():
        for start in range(0, len(inputs), 64):
            batch = collate([{"input": x} for x in inputs[start : start + 64]])
            mask = mask_of(batch)
            outputs = model(batch["input"], mask=mask)
            if isinstance(plan.targets, (Values, Forecast, Questions)) and splits.decode is not None:
                outputs = splits.decode(outputs)
            answers += task.predict(outputs, mask)
    if isinstance(plan.targets, NextId):
        decode = splits.decode or (lambda ids: ids.tolist())
        return [{"next": decode(torch.tensor(ids[-1:]))} for ids in answers]
    return answers


@torch.no_grad()
def score(
    model: Model,
    task: Task[Any, Any],
    splits: Splits,
    split: SplitName,
    *,
    loaded: LoadedRecipe,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """`split/metric` -> value, with the model in evaluation mode (where it stays)."""
    data = loaded.recipe.data
    torch.manual_seed(derived_seed(loaded.recipe.seed, "evaluation"))
    model.to(device).eval()
    metrics = task.metrics().to(device)
    batches = eval_loader(
        getattr(splits, split), batch_size=data.eval_batch_size or settled(data), workers=data.workers
    )
    for batch in batches:
        batch = to_device(batch, device)
        outputs = model(batch["input"], mask=mask_of(batch))
        task.update(metrics, outputs, batch, task.loss(outputs, batch))
    values = values_of(metrics)
    if split == "test" and splits.arena is not None:
        values |= task.play(model, splits.arena)
    return {f"{split}/{name}": value for name, value in values.items()}


def load_best(run: Run, model: Model) -> None:
    """Put the weights of the best checkpoint into a model; the last ones where none was the best.

    Raises:
        ZooError: there is no checkpoint, it is damaged, or it is of another model.
    """
    path = run.best if run.best.is_file() else run.last
    if not path.is_file():
        raise ZooError(
            f"run {str(run.path)!r} has no checkpoint: it stopped before its first evaluation ({run.status})"
        )
    fill(model, read_checkpoint(path), path)


def fill(model: Model, checkpoint: dict[str, Any], path: Path) -> None:
    """Put the weights of a checkpoint into a model.

    Raises:
        ZooError: they are another model's.
    """
    weights = model_weights(checkpoint)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = _misfit(weights, model.state_dict()) or str(error)
        raise ZooError(f"checkpoint {str(path)!r} does not fit the model of its run: {reason}") from None


def _misfit(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Which weights keep a checkpoint from a model, in a sentence; empty where none does."""
    reshaped = [name for name in wanted if name in saved and saved[name].shape != wanted[name].shape]
    found = []
    if reshaped:
        name = reshaped[0]
        found.append(
            f"{len(reshaped)} of {len(wanted)} weights have another shape, such as {name}, "
            f"{tuple(saved[name].shape)} there, {tuple(wanted[name].shape)} here"
        )
    for names, what in ((set(wanted) - set(saved), "lacks"), (set(saved) - set(wanted), "has besides")):
        if names:
            found.append(f"it {what} {len(names)} weights, such as {min(names)}")
    hint = ". Overrides of an evaluation must leave the weights as they are"
    return f"{'; '.join(found)}{hint}" if found else ""


def recipe_of(run: Run, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """The recipe of a run, which was right when the run began: own data may have been moved since."""
    try:
        return load_recipe(run.resolved, overrides)
    except RecipeError as error:
        given = [text.partition("=")[0] for text in overrides]
        raise RecipeError(
            replace(m, message=f"{m.message}. If it lies elsewhere now, add {m.path}=PLACE to the command")
            if m.path.startswith("data.params.") and m.path not in given
            else m
            for m in error.mistakes
        ) from None


def best_model(run: Run, loaded: LoadedRecipe) -> Model:
    """The model of a run with the weights of its best checkpoint, in evaluation mode."""
    model = build_model(loaded.plan, catalogue=loaded.catalogue, fresh=False)
    load_best(run, model)
    return model.eval()
