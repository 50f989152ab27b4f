"""Lightning's Trainer, as a recipe, the run and the plugins want it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.data.batch import collate, mask_of
from zoo.errors import ZooError, suggest
from zoo.runs import Run
from zoo.training.callbacks import Ema, PatientStop, SaveCheckpoints, StopRequest, WriteRows
from zoo.training.checkpoint import PlainCheckpointIO
from zoo.training.lean import Unprofiled, skip_idle_hooks
from zoo.training.lightning import (
    DDPStrategy,
    Logger,
    MisconfigurationException,
    ModelParallelStrategy,
    Strategy,
    pl,
)
from zoo.training.loggers import MetricsFile
from zoo.training.pace import Pace
from zoo.training.plugged import Plugged
from zoo.training.progress import ShowProgress
from zoo.training.setup import Setup

#: Keywords that hold lists: what plugins and recipes add is appended.
_LISTS = ("callbacks", "logger", "plugins")


def make_trainer(
    setup: Setup,
    run: Run | None,
    *,
    saver: SaveCheckpoints,
    start: int,
    start_step: int | None,
    progress: bool,
    limit_val_batches: int | None = None,
) -> pl.Trainer:
    """The Trainer of one run.

    Args:
        run: where it logs; `None`: nowhere.
        saver: the callback that saves checkpoints.
        start: batches that an earlier part of the run has done.
        start_step: its updates; `None` for a new run.
        progress: whether to show any.
        limit_val_batches: for a dry run.

    Raises:
        ZooError: an option that Lightning does not know or refuses, or that two parties set differently.
    """
    recipe, processes = setup.loaded.recipe.trainer, setup.processes
    cuda = recipe.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    options: dict[str, Any] = {
        "accelerator": recipe.accelerator,
        "devices": processes.per_node,
        "num_nodes": processes.nodes,
        "strategy": _strategy(setup),
        "sync_batchnorm": processes.count > 1 and cuda,  # torch has it for GPUs only
        "precision": recipe.precision,
        # On a GPU the same seed gives the same numbers only with deterministic kernels; a CPU has no others.
        "deterministic": "warn" if cuda else None,
        # To Lightning the run is one epoch: a stream of batches, evaluated every so many.
        "max_epochs": 1,
        "val_check_interval": setup.eval_every,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "limit_val_batches": limit_val_batches,
        "gradient_clip_val": recipe.gradient_clip_norm,
        "accumulate_grad_batches": recipe.accumulate_batches,
        "callbacks": _callbacks(setup, run, saver, start, progress=progress),
        "logger": _loggers(setup, run, start_step) if run is not None else False,
        "plugins": [PlainCheckpointIO(), *([processes.environment] if processes.environment else [])],
        "default_root_dir": run.path if run is not None else None,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    given = {"trainer.extra": recipe.extra}
    for plugin, more in setup.loaded.catalogue.call("zoo_trainer_options", recipe=setup.loaded.recipe):
        given[f"plugin {plugin!r}"] = more or {}
    options = {"profiler": Unprofiled(), **merge_options(options, given)}
    for callback in options["callbacks"]:
        if isinstance(callback, pl.Callback):  # Lightning refuses others
            skip_idle_hooks(callback)
    try:
        return pl.Trainer(**options)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ZooError(f"Lightning's Trainer refuses these options: {error}") from error


def merge_options(ours: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Our options with those that others give; lists are joined, anything else may be set once.

    Raises:
        ZooError: an unknown option, or one that is set already to something else.
    """
    known = set(inspect.signature(pl.Trainer).parameters)
    merged = dict(ours)
    owner = dict.fromkeys(ours, "the recipe")
    for giver, options in given.items():
        for key, value in options.items():
            if key not in known:
                raise ZooError(f"{giver}: Lightning's Trainer has no option {key!r}.{suggest(key, known)}")
            if key in _LISTS:
                merged[key] = [
                    *(merged.get(key) or []),
                    *(value if isinstance(value, (list, tuple)) else [value]),
                ]
            elif key in merged and merged[key] != value:
                raise ZooError(
                    f"{giver} sets the Trainer's {key!r} to {value!r}, "
                    f"but {owner[key]} sets it to {merged[key]!r}"
                )
            else:
                merged[key], owner[key] = value, giver
    return merged


def _strategy(setup: Setup) -> Strategy | str:
    """How the processes work together.

    fsdp is FSDP2, by Lightning's `ModelParallelStrategy`: its `FSDPStrategy` is the older form, needs GPUs
    and makes one flat parameter of many, which optimisers that look at shapes or names cannot use.
    """
    if setup.processes.count == 1:
        return "auto"
    if setup.sharded:
        return ModelParallelStrategy(
            data_parallel_size=setup.processes.count,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )
    return DDPStrategy(find_unused_parameters=_has_idle_parameters(setup), gradient_as_bucket_view=True)


def _has_idle_parameters(setup: Setup) -> bool:
    """Whether a step leaves a parameter without a gradient: ddp then has to look for such in every step."""
    batch = collate([setup.splits.train[0]])
    model, task = setup.model.cpu().eval(), setup.task
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = task.loss(model(batch["input"], mask=mask_of(batch)), batch)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    model.train()
    return any(gradient is None for gradient in gradients)


def _callbacks(
    setup: Setup, run: Run | None, saver: SaveCheckpoints, start: int, *, progress: bool
) -> list[pl.Callback]:
    """In the order in which they act; Lightning itself puts the saver last."""
    wanted = setup.loaded.recipe.callbacks
    callbacks: list[pl.Callback] = [WriteRows(), Pace()]
    if wanted.ema is not None:
        ema = wanted.ema
        callbacks.append(Ema(decay=ema.decay, start_step=ema.start_step, every_steps=ema.every_steps))
    if wanted.early_stopping is not None:
        patience = wanted.early_stopping
        callbacks.append(
            PatientStop(
                setup.monitor, mode=setup.mode, patience=patience.patience, min_delta=patience.min_delta
            )
        )
    if progress and wanted.progress is not None:
        callbacks.append(ShowProgress(batches=setup.batches, start=start, metric=setup.monitor))
    if run is not None:  # of several processes the first alone has the run's folder
        callbacks += [Plugged(each, id=id, run=run, steps=setup.updates) for id, each in setup.callbacks]
    return [*callbacks, saver]


def make_saver(setup: Setup, folder: Path, stop: StopRequest) -> SaveCheckpoints:
    """The callback that keeps the best and the last checkpoint, and ends the run when asked to."""
    wanted = setup.loaded.recipe.callbacks.checkpoint
    return SaveCheckpoints(
        folder,
        monitor=setup.monitor,
        mode=setup.mode,
        keep=wanted.keep,
        every_minutes=wanted.every_minutes,
        every_steps=wanted.every_steps,
        stop=stop,
        batches=setup.batches,
        eval_every_batches=setup.eval_every,
    )


def _loggers(setup: Setup, run: Run, start_step: int | None) -> list[Logger]:
    wanted = setup.loaded.recipe.output.loggers
    loggers: list[Logger] = []
    if wanted.csv is not None:
        loggers.append(MetricsFile(run.metrics, setup.metric_names, keep_steps=start_step))
    if wanted.tensorboard is not None:
        loggers.append(_tensorboard(run))
    return loggers


def _tensorboard(run: Run) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(run.path, name="", version="tensorboard", default_hp_metric=False)
    except ModuleNotFoundError:
        raise ZooError(
            "output.loggers.tensorboard needs the package 'tensorboard'; the extra 'tensorboard' brings it"
        ) from None
