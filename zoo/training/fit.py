"""Train a recipe into a run folder, or go on with a run that was interrupted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zoo.errors import ZooError
from zoo.layers.weights import load_weights, save_weights
from zoo.recipe import LoadedRecipe, load_recipe
from zoo.runs import Run, check_resumable, create_run, find_run
from zoo.training.callbacks import Interrupted, SaveCheckpoints, StopRequest, undisturbed
from zoo.training.card import render_card
from zoo.training.checkpoint import read_checkpoint
from zoo.training.curves import draw_curves
from zoo.training.evaluation import fill, load_best, score
from zoo.training.lightning import pl, quiet_lightning
from zoo.training.loaders import BatchStream, eval_loader, train_loader
from zoo.training.module import TrainingModule
from zoo.training.record import circumstances
from zoo.training.result import RunResult, judge, plain
from zoo.training.setup import Setup, prepare
from zoo.training.trainer import make_saver, make_trainer


def train(loaded: LoadedRecipe, *, quiet: bool = False, dry_run: bool = False) -> RunResult:
    """Train a recipe, score its best checkpoint on the test split, and leave a complete run folder.

    Args:
        quiet: show no progress.
        dry_run: one update, one evaluation and a round trip of the weights; nothing is kept.

    Returns:
        How it ended. Ctrl-C ends a run in good order: `status` is "interrupted", and `resume` goes on.

    Raises:
        ZooError: the recipe cannot run, a plugin refuses it, the folder cannot be written, or the loss
            is no longer a number.
    """
    loaded.catalogue.call("zoo_recipe_ready", recipe=loaded.recipe)
    setup = prepare(loaded)
    if dry_run:
        return _try_out(setup)
    run = create_run(loaded.recipe.output.dir, loaded.name)
    run.write(run.recipe, loaded.text)
    run.write(run.resolved, loaded.render())
    run.update(**_record(setup), started=_now())
    if not quiet:
        print(loaded.plan.describe(), file=sys.stderr)
        print(
            f"{setup.model.num_parameters:,} parameters, {setup.updates} updates, {run.path}", file=sys.stderr
        )
        for note in setup.notes:
            print(f"note: {note}", file=sys.stderr)
    return _carry_out(setup, run, checkpoint=None, quiet=quiet)


def resume(run: Run | str | Path, overrides: Sequence[str] = (), *, quiet: bool = False) -> RunResult:
    """Go on with a run from its last checkpoint; it ends as if it had never been interrupted.

    Args:
        overrides: `trainer.max_epochs=...` or `trainer.max_steps=...` only, which also continue a
            finished run. The schedule then is the one of the longer run.

    Raises:
        ZooError: the run is finished or still running, has no checkpoint, or a damaged one; or an override
            would make it another run.
    """
    run = run if isinstance(run, Run) else find_run(run)
    loaded = replace(load_recipe(run.resolved, overrides), name=run.info["recipe"])
    longer = _check_same_run(load_recipe(run.resolved), loaded) if overrides else False
    if not (longer and run.status == "finished"):
        check_resumable(run)
    checkpoint = read_checkpoint(run.last)
    if not isinstance(checkpoint.get("zoo"), dict):
        raise ZooError(f"{str(run.last)!r} is not a checkpoint of a zoo run")
    loaded.catalogue.call("zoo_recipe_ready", recipe=loaded.recipe)
    setup = prepare(loaded)
    fill(setup.model, checkpoint, run.last)  # a checkpoint of another model is refused here
    if overrides:
        run.write(run.resolved, loaded.render())
    run.update(**_record(setup), resumed=[*run.info.get("resumed", []), _now()])
    return _carry_out(setup, run, checkpoint=checkpoint, quiet=quiet)


def _carry_out(setup: Setup, run: Run, *, checkpoint: dict[str, Any] | None, quiet: bool) -> RunResult:
    """Train, then score and report; whatever happens is noted in run.json."""
    stop = StopRequest()
    saver = make_saver(setup, run, stop)
    try:
        trainer = _fit(setup, run, saver, checkpoint=checkpoint, progress=not quiet)
        result = _finish(setup, run, saver, trainer)
    except (Interrupted, KeyboardInterrupt):
        with undisturbed():
            step = int(read_checkpoint(run.last)["global_step"]) if run.last.is_file() else 0
            run.update(status="interrupted", step=step)
        return RunResult(
            status="interrupted",
            run=run,
            step=step,
            parameters=setup.model.num_parameters,
            resumable=run.last.is_file(),
        )
    except BaseException as error:
        run.update(status="failed", error=f"{type(error).__name__}: {error}", ended=_now())
        raise
    setup.loaded.catalogue.call("zoo_run_finished", run=run)  # whose failure does not undo the run
    return result


def _fit(
    setup: Setup,
    run: Run,
    saver: SaveCheckpoints,
    *,
    checkpoint: dict[str, Any] | None,
    progress: bool,
    limit_val_batches: int | None = None,
) -> pl.Trainer:
    """The training itself, from the beginning or from `checkpoint`, which is the run's last.ckpt."""
    recipe = setup.loaded.recipe
    start = checkpoint["zoo"]["batches"] if checkpoint else 0
    stream = BatchStream(
        examples=len(setup.splits.train),
        batch_size=recipe.data.batch_size,
        batches=setup.batches,
        seed=recipe.seed,
        start=start,
    )
    module = TrainingModule(
        setup.model,
        setup.task,
        # A plain function: averaging copies the module deeply, and would copy the data of a bound method.
        make_optimizer=lambda model: setup.make_optimizer(model),
        seed=recipe.seed,
        batches_per_epoch=setup.per_epoch,
        log_every_steps=recipe.trainer.log_every_steps,
        monitor=setup.monitor,
    )
    workers = recipe.data.workers
    with quiet_lightning():
        trainer = make_trainer(
            setup,
            run,
            saver=saver,
            start=start,
            start_step=int(checkpoint["global_step"]) if checkpoint else None,
            progress=progress,
            limit_val_batches=limit_val_batches,
        )
        if start >= setup.batches:
            if checkpoint is not None:
                saver.load_state_dict(checkpoint["callbacks"][saver.state_key])
            return trainer
        pin = trainer.strategy.root_device.type == "cuda"
        with saver.stop.listening():
            trainer.fit(
                module,
                train_loader(setup.splits.train, stream, workers=workers, pin=pin),
                eval_loader(setup.splits.val, batch_size=setup.eval_batch_size, workers=workers, pin=pin),
                ckpt_path=str(run.last) if checkpoint else None,
                weights_only=True,
            )
    return trainer


def _finish(setup: Setup, run: Run, saver: SaveCheckpoints, trainer: pl.Trainer) -> RunResult:
    """Score the best checkpoint, and write everything that a complete run folder holds."""
    loaded, splits = setup.loaded, setup.splits
    load_best(run, setup.model)
    step = int(read_checkpoint(run.last)["global_step"])
    device = trainer.strategy.root_device
    metrics = score(setup.model, setup.task, splits, "test", loaded=loaded, device=device)
    save_weights(setup.model.cpu(), run.weights, catalogue=loaded.catalogue)
    naive = {f"test/{k}": v for k, v in setup.task.baseline(splits.train, splits.test).items()}
    result = RunResult(
        status="finished",
        run=run,
        step=step,
        parameters=setup.model.num_parameters,
        metrics=metrics,
        baseline=naive,
        expect=loaded.recipe.expect,
        expected=judge(loaded.recipe.expect, metrics),
    )
    run.update(
        step=step,
        best_step=saver.best_step,
        best_value=saver.best_value,
        metrics=plain(metrics),
        baseline=plain(naive),
        expected=result.expected,
    )
    draw_curves(run.metrics, run.curves, monitor=setup.monitor, title=loaded.recipe.title or loaded.name)
    run.write(run.card, render_card(loaded, result))
    run.update(status="finished", ended=_now())
    return result


def _try_out(setup: Setup) -> RunResult:
    """One update and one evaluation in a folder that vanishes."""
    one = setup.loaded.recipe.trainer.accumulate_batches
    short = replace(setup, batches=one, eval_every=one)
    with TemporaryDirectory() as folder:
        run = create_run(folder, setup.loaded.name)
        saver = make_saver(short, run, StopRequest())
        trainer = _fit(short, run, saver, checkpoint=None, progress=False, limit_val_batches=1)
        load_best(run, setup.model)
        save_weights(setup.model.cpu(), run.weights, catalogue=setup.loaded.catalogue)
        load_weights(run.weights, catalogue=setup.loaded.catalogue)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return RunResult(
        status="dry run", run=None, step=1, parameters=setup.model.num_parameters, metrics=metrics
    )


def _check_same_run(before: LoadedRecipe, after: LoadedRecipe) -> bool:
    """Whether the second recipe is the first one for longer (or as long).

    Raises:
        ZooError: it differs in something else.
    """
    old, new = before.recipe.trainer, after.recipe.trainer
    as_long = replace(new, max_epochs=old.max_epochs, max_steps=old.max_steps)
    if replace(after.recipe, trainer=as_long) != before.recipe:
        raise ZooError(
            "a resumed run takes trainer.max_epochs and trainer.max_steps as overrides, nothing else; "
            "start a new run for anything else"
        )
    return new != old


def _record(setup: Setup) -> dict[str, Any]:
    """What run.json says before the first step."""
    loaded = setup.loaded
    return {
        "status": "running",
        "title": loaded.recipe.title,
        "tags": list(loaded.recipe.output.tags),
        "overrides": list(loaded.overrides),
        "seed": loaded.recipe.seed,
        "monitor": setup.monitor,
        "mode": setup.mode,
        "parameters": setup.model.num_parameters,
        "extra": sorted(loaded.recipe.trainer.extra),
        "plan": loaded.plan.to_dict(),
        "describe": loaded.plan.describe(),
        "data": setup.splits.source,
        **circumstances(loaded.catalogue),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
