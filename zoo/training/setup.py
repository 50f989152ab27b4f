"""From a loaded recipe to what a run needs: data, model, task, and how many batches of what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from zoo.callbacks import Callback
from zoo.catalogue import blaming
from zoo.data.split import Splits
from zoo.errors import ZooError, suggest
from zoo.layers.model import Model, build_model
from zoo.recipe import LoadedRecipe
from zoo.recipe.schema import DataSection, Recipe
from zoo.tasks.base import Task
from zoo.training.batch_size import largest_batch
from zoo.training.blocks import recompute_blocks
from zoo.training.loaders import batches_per_epoch, derived_seed
from zoo.training.optim import Schedule, build_optimizer, build_schedule, warmup_within
from zoo.training.plugged import build_callback, objective_of
from zoo.training.processes import Processes, find_processes


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything about a run but its folder.

    monitor, mode: the metric that decides which checkpoint is best, and which way.
    per_epoch: batches that show every training example once.
    batches: batches of the whole run. updates: updates of the weights in it.
    eval_every: batches between evaluations.
    processes: those that take part.
    callbacks: those of plugins, by full name.
    """

    loaded: LoadedRecipe
    splits: Splits
    model: Model
    task: Task[Any, Any]
    monitor: str
    mode: str
    per_epoch: int
    batches: int
    updates: int
    eval_every: int
    processes: Processes
    callbacks: tuple[tuple[str, Callback], ...] = ()

    @property
    def sharded(self) -> bool:
        """Whether each process trains a share of every weight."""
        return self.processes.count > 1 and self.loaded.recipe.trainer.strategy == "fsdp"

    @property
    def batch_size(self) -> int:
        """Examples per batch, of all processes together."""
        return settled(self.loaded.recipe.data)

    @property
    def eval_batch_size(self) -> int:
        """Examples per batch of evaluation."""
        return self.loaded.recipe.data.eval_batch_size or self.batch_size

    @property
    def notes(self) -> list[str]:
        """What a user should know before the first step."""
        asked = self.loaded.recipe.schedule.warmup_steps
        given = warmup_within(asked, self.updates)
        cut = (
            f"schedule.warmup_steps is cut from {asked} to {given}: the whole run has {self.updates} updates"
        )
        return [
            *self.loaded.notes,
            *self.loaded.plan.notes,
            *self.model.notes,
            *([cut] if given < asked else []),
        ]

    @property
    def metric_names(self) -> list[str]:
        """What a run logs, in the order of the columns of metrics.csv."""
        columns = [column for _, callback in self.callbacks for column in callback.columns]
        return ["lr", "train/loss", *(f"val/{name}" for name in self.task.metrics()), *columns]

    def make_optimizer(self, model: nn.Module) -> tuple[Optimizer, Schedule]:
        """The optimiser and the schedule that the recipe names.

        Raises:
            ZooError: timm has no such optimiser or schedule, or it does not take these parameters.
        """
        optim, schedule = self.loaded.recipe.optim, self.loaded.recipe.schedule
        try:
            optimizer = build_optimizer(
                model, name=optim.name, lr=optim.lr, weight_decay=optim.weight_decay, params=optim.params
            )
        except ZooError as error:
            raise self.loaded.mistake("optim", str(error)) from error
        return optimizer, build_schedule(
            optimizer,
            name=schedule.name,
            updates=self.updates,
            warmup_steps=schedule.warmup_steps,
            final_lr_ratio=schedule.final_lr_ratio,
            params=schedule.params,
            mode=self.mode,
        )


def prepare(loaded: LoadedRecipe) -> Setup:
    """Load the data and build the model, its weights drawn from the recipe's seed.

    Raises:
        ZooError: what the recipe asks for does not go together, in a sentence.
    """
    recipe, plan = loaded.recipe, loaded.plan
    if plan.dataset is None or plan.task is None:
        raise ZooError("training needs a dataset and a task, but the plan has none")
    if recipe.output.loggers.tensorboard is not None and find_spec("tensorboard") is None:
        raise loaded.mistake(
            "output.loggers.tensorboard", "needs the extra: pip install 'archzoo[tensorboard]'"
        )
    processes = find_processes(loaded)
    splits = load_splits(loaded)
    torch.manual_seed(derived_seed(recipe.seed, "weights"))
    model = build_model(plan, catalogue=loaded.catalogue)
    task = build_task(loaded)
    monitor, mode = _monitored(loaded, task)
    loaded = _with_batch_size(loaded, model, task, splits)
    per_epoch, batches, eval_every = _lengths(loaded.recipe, examples=len(splits.train))
    setup = Setup(
        loaded=loaded,
        splits=splits,
        model=model,
        task=task,
        monitor=monitor,
        mode=mode,
        per_epoch=per_epoch,
        batches=batches,
        updates=-(-batches // recipe.trainer.accumulate_batches),
        eval_every=eval_every,
        processes=processes,
        callbacks=tuple((part.id, build_callback(part, loaded.catalogue)) for part in loaded.callbacks),
    )
    if recipe.trainer.gradient_checkpointing:
        _recompute(loaded, model)
    _check_callbacks(setup)
    setup.make_optimizer(model)  # a mistake in optim or schedule shows before anything is written
    return setup


def _monitored(loaded: LoadedRecipe, task: Task[Any, Any]) -> tuple[str, str]:
    """The metric that says which checkpoint is best, and which way it is better."""
    recipe, plan = loaded.recipe, loaded.plan
    monitor, mode = recipe.task.monitor or plan.monitor or "val/loss", recipe.task.mode or plan.mode or "min"
    known = [f"val/{name}" for name in task.metrics()]
    if monitor not in known:
        name = plan.task.id if plan.task else None
        raise loaded.mistake(
            "task.monitor", f"task {name!r} has no metric {monitor!r}.{suggest(monitor, known)}"
        )
    return monitor, mode


def _with_batch_size(
    loaded: LoadedRecipe, model: Model, task: Task[Any, Any], splits: Splits
) -> LoadedRecipe:
    """The recipe with a number in place of `batch_size: auto`."""
    recipe = loaded.recipe
    if recipe.data.batch_size != "auto":
        return loaded
    cuda = recipe.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    size = largest_batch(model, task, splits.train, device=torch.device("cuda" if cuda else "cpu"))
    recipe = replace(recipe, data=replace(recipe.data, batch_size=size))
    note = f"data.batch_size: auto is {size} here; resolved.yaml says so"
    return replace(loaded, recipe=recipe, notes=(*loaded.notes, note))


def _lengths(recipe: Recipe, *, examples: int) -> tuple[int, int, int]:
    """In batches: an epoch, the whole run, and from one evaluation to the next."""
    trainer, accumulate = recipe.trainer, recipe.trainer.accumulate_batches
    per_epoch = batches_per_epoch(examples, settled(recipe.data))
    if trainer.max_steps is not None:
        batches = trainer.max_steps * accumulate
    else:
        batches = (trainer.max_epochs or 1) * per_epoch
    if trainer.eval_every_steps is not None:
        eval_every = trainer.eval_every_steps * accumulate
    else:
        eval_every = -(-per_epoch // accumulate) * accumulate  # only where an update is complete
    return per_epoch, batches, min(eval_every, batches)


def _recompute(loaded: LoadedRecipe, model: Model) -> None:
    try:
        recompute_blocks(model.backbone)
    except ValueError as error:
        message = f"model {loaded.plan.model.id!r} cannot do this: {error}"
        raise loaded.mistake("trainer.gradient_checkpointing", message) from None


def _check_callbacks(setup: Setup) -> None:
    """Refuse those that contradict each other or the rest of the recipe."""
    loaded = setup.loaded
    if setup.sharded and setup.callbacks:
        raise loaded.mistake("callbacks", "those of plugins need whole weights: use trainer.strategy ddp")
    _check_changers(setup)
    try:
        objective_of(setup.callbacks)
    except ZooError as error:
        raise loaded.mistake("callbacks", str(error)) from None


def _check_changers(setup: Setup) -> None:
    """Refuse what cannot follow a callback that changes the model."""
    loaded = setup.loaded
    for part in loaded.callbacks:
        if not getattr(loaded.catalogue.get("callback", part.id), "changes_model", False):
            continue
        if setup.processes.count > 1:
            raise loaded.mistake("callbacks", f"{part.id} changes the model: train it in one process")
        if loaded.recipe.callbacks.ema is not None:
            raise loaded.mistake(
                "callbacks.ema", f"averages weights that {part.id} changes on the way: leave one of them out"
            )


def settled(data: DataSection) -> int:
    """The batch size of a recipe in which it is a number."""
    if data.batch_size == "auto":
        raise ZooError("data.batch_size: auto is settled when a run begins")
    return data.batch_size


def load_splits(loaded: LoadedRecipe) -> Splits:
    """The data that the recipe's plan names."""
    part = loaded.plan.dataset
    if part is None:
        raise ZooError("this recipe names no dataset")
    load = loaded.catalogue.get("dataset", part.id).load()
    with blaming(f"dataset {part.id!r} cannot be loaded"):
        splits: Splits = load(part.config)
    return splits


def build_task(loaded: LoadedRecipe) -> Task[Any, Any]:
    """The task of the recipe's plan."""
    part = loaded.plan.task
    if part is None:
        raise ZooError("this recipe names no task")
    make = loaded.catalogue.get("task", part.id).load()
    with blaming(f"task {part.id!r} cannot be built"):
        task: Task[Any, Any] = make(part.config, targets=loaded.plan.targets)
    return task
