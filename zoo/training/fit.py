"""Train a recipe into a run folder, or go on with a run that was interrupted."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from zoo.contract import revisions_of
from zoo.errors import ZooError
from zoo.layers.model import build_model
from zoo.layers.weights import load_weights, save_weights
from zoo.recipe import LoadedRecipe, load_recipe
from zoo.recipe.fingerprint import fingerprint
from zoo.recipe.render import resolved
from zoo.runs import PARTIAL, Run, check_resumable, create_run, find_run, locked, open_run
from zoo.training.callbacks import Interrupted, SaveCheckpoints, StopRequest
from zoo.training.card import render_card
from zoo.training.checkpoint import read_checkpoint
from zoo.training.compiling import compiling
from zoo.training.continuation import check_longer, check_unchanged, check_versions, newest_checkpoint
from zoo.training.curves import draw_curves
from zoo.training.evaluation import fill, load_best, measured_baselines, score
from zoo.training.lightning import pl, quiet_lightning
from zoo.training.loaders import BatchStream, eval_loader, train_loader
from zoo.training.memory import peak_bytes
from zoo.training.module import Diverged, TrainingModule
from zoo.training.pace import Pace
from zoo.training.plugged import objective_of
from zoo.training.processes import Processes, find_processes, group_of
from zoo.training.record import circumstances
from zoo.training.result import RunResult, judge, plain
from zoo.training.setup import Setup, prepare
from zoo.training.sharded import ShardedModule
from zoo.training.trainer import make_saver, make_trainer


def train(
    loaded: LoadedRecipe, *, quiet: bool = False, dry_run: bool = False, stop: StopRequest | None = None
) -> RunResult:
    """Train a recipe, score its best checkpoint on the test split, and leave a complete run folder.

    Args:
        quiet: show no progress.
        dry_run: one update, one evaluation and a round trip of the weights; nothing is kept.
        stop: who is asked whether to go on; it may be made from another thread, `stop.made = True`.

    Returns:
        How it ended. Ctrl-C ends a run in good order: `status` is "interrupted", and `resume` goes on.

    Raises:
        ZooError: the recipe cannot run, a plugin refuses it, the folder cannot be written, or the loss
            is no longer a number.
    """
    loaded.catalogue.call("zoo_recipe_ready", recipe=loaded.recipe)
    identity = fingerprint(loaded)
    setup = prepare(loaded)
    loaded = setup.loaded  # with a batch size, where it was left open
    if dry_run:
        return _try_out(replace(setup, processes=Processes()))
    if not setup.processes.leads:
        _follow(setup, None)
    files = {"recipe.yaml": loaded.text, "resolved.yaml": loaded.render()}
    run = create_run(loaded.recipe.output.dir, loaded.name, files)
    with locked(run):
        run.update(**_record(setup), fingerprint=identity, started=_now())
        if not quiet:
            print(loaded.plan.describe(), file=sys.stderr)
            size = f"{setup.model.num_parameters:,} parameters"
            print(f"{size}, {setup.updates} updates, {run.path}", file=sys.stderr)
            _print_notes(setup.notes)
        return _carry_out(setup, run, checkpoint=None, quiet=quiet, stop=stop or StopRequest())


def resume(
    run: Run | str | Path,
    overrides: Sequence[str] = (),
    *,
    quiet: bool = False,
    stop: StopRequest | None = None,
) -> RunResult:
    """Go on with a run from its last checkpoint; it ends as if it had never been interrupted.

    A run without a checkpoint yet begins again, in its folder.

    Args:
        overrides: `trainer.max_epochs=...` or `trainer.max_steps=...` only, which also continue a
            finished run. The schedule then is the one of the longer run.
        stop: as of `train`.

    Raises:
        ZooError: the run is finished, or another process has it; its recipe was changed, or a component of
            it since computes something else; all its checkpoints are damaged; or an override would make
            it another run.
    """
    run = run if isinstance(run, Run) else find_run(run)
    loaded = replace(load_recipe(run.resolved, overrides), name=run.info["recipe"])
    if not find_processes(loaded).leads:
        _follow(prepare(loaded), newest_checkpoint(run, []))
    with locked(run):
        run = open_run(run.path)  # as the process left it that had it until now
        as_begun = load_recipe(run.resolved)
        check_unchanged(run, as_begun)
        longer = check_longer(as_begun, loaded)
        if not (longer and run.status == "finished"):
            check_resumable(run)
        notes: list[str] = []
        found = newest_checkpoint(run, notes)
        loaded.catalogue.call("zoo_recipe_ready", recipe=loaded.recipe)
        setup = prepare(loaded)
        if run.status == "finished" and found is not None and setup.batches <= found[1]["zoo"]["batches"]:
            raise ZooError(
                f"run {str(run.path)!r} is finished, after {found[1]['global_step']} updates; only a larger "
                "trainer.max_epochs or trainer.max_steps would continue it"
            )
        record = _record(setup)
        check_versions(run, loaded, record, notes)
        if found is not None:
            fill(setup.model, found[1], found[0])  # a checkpoint of another model is refused here
        if overrides:
            run.write(run.resolved, loaded.render())
            record["fingerprint"] = fingerprint(loaded)
        run.update(**record, resumed=[*run.info.get("resumed", []), _now()])
        _print_notes(notes)
        return _carry_out(setup, run, checkpoint=found, quiet=quiet, stop=stop or StopRequest())


def _carry_out(
    setup: Setup,
    run: Run,
    *,
    checkpoint: tuple[Path, dict[str, Any]] | None,
    quiet: bool,
    stop: StopRequest,
) -> RunResult:
    """Train, then score and report; whatever happens is noted in run.json."""
    for left_by_a_kill in run.checkpoints.glob(f".*{PARTIAL}"):
        left_by_a_kill.unlink(missing_ok=True)
    saver = make_saver(setup, run.checkpoints, stop)
    with stop.listening():
        try:
            trainer = _fit(setup, run, saver, checkpoint=checkpoint, progress=not quiet)
            result = _finish(setup, run, saver, trainer, quiet=quiet)
        except (Interrupted, KeyboardInterrupt):
            step = int(read_checkpoint(run.last)["global_step"]) if run.last.is_file() else 0
            run.update(status="interrupted", step=step)
            return RunResult(status="interrupted", run=run, step=step, parameters=setup.model.num_parameters)
        except BaseException as error:
            with suppress(ZooError):  # a full disk takes no record either; what is wrong is `error`
                run.update(status="failed", error=f"{type(error).__name__}: {error}", ended=_now())
            raise
    setup.loaded.catalogue.call("zoo_run_finished", run=run)  # whose failure does not undo the run
    return result


def _follow(setup: Setup, checkpoint: tuple[Path, dict[str, Any]] | None) -> NoReturn:
    """Take part in a run that another process leads: train, write and say nothing, and end."""
    with suppress(Interrupted, KeyboardInterrupt, Diverged):
        _fit(setup, None, make_saver(setup, Path(), StopRequest()), checkpoint=checkpoint, progress=False)
    raise SystemExit(0)


def _fit(
    setup: Setup,
    run: Run | None,
    saver: SaveCheckpoints,
    *,
    checkpoint: tuple[Path, dict[str, Any]] | None,
    progress: bool,
    limit_val_batches: int | None = None,
) -> pl.Trainer:
    """The training itself, from the beginning or from `checkpoint`, a file and its content."""
    recipe, processes = setup.loaded.recipe, setup.processes
    share: dict[str, Any] = {"rank": processes.rank, "processes": processes.count}
    path, content = checkpoint or (None, {})
    start = content["zoo"]["batches"] if content else 0
    stream = BatchStream(
        examples=len(setup.splits.train),
        batch_size=setup.batch_size,
        batches=setup.batches,
        seed=recipe.seed,
        start=start,
        **share,
    )
    module = (ShardedModule if setup.sharded else TrainingModule)(
        setup.model,
        setup.task,
        # A plain function: averaging copies the module deeply, and would copy the data of a bound method.
        make_optimizer=lambda model: setup.make_optimizer(model),
        seed=recipe.seed,
        batches_per_epoch=setup.per_epoch,
        log_every_steps=recipe.trainer.log_every_steps,
        monitor=setup.monitor,
        objective=objective_of(setup.callbacks),
    )
    with quiet_lightning():
        trainer = make_trainer(
            setup,
            run,
            saver=saver,
            start=start,
            start_step=int(content["global_step"]) if content else None,
            progress=progress,
            limit_val_batches=limit_val_batches,
        )
        if start >= setup.batches:
            saver.load_state_dict(content["callbacks"][saver.state_key])
            return trainer
        on_gpu = trainer.strategy.root_device.type == "cuda"
        loading: dict[str, Any] = {"workers": recipe.data.workers, "pin": on_gpu}
        if recipe.trainer.compile:
            setup.model.compile()  # in place: names of weights stay
        with saver.stop.training(), group_of(trainer), compiling():
            trainer.fit(
                module,
                train_loader(setup.splits.train, stream, **loading),
                eval_loader(setup.splits.val, batch_size=setup.eval_batch_size, **loading, **share),
                ckpt_path=str(path) if path else None,
                weights_only=True,
            )
    return trainer


def _finish(setup: Setup, run: Run, saver: SaveCheckpoints, trainer: pl.Trainer, *, quiet: bool) -> RunResult:
    """Score the best checkpoint, and write everything that a complete run folder holds."""
    loaded, splits = setup.loaded, setup.splits
    model = setup.model
    if setup.processes.count > 1 or loaded.recipe.trainer.compile:  # no plain one: make it
        model = build_model(loaded.plan, catalogue=loaded.catalogue, fresh=False)
    load_best(run, model)
    step = int(read_checkpoint(run.last)["global_step"])
    device = trainer.strategy.root_device
    metrics = score(model, setup.task, splits, "test", loaded=loaded, device=device)
    save_weights(model.cpu(), run.weights, catalogue=loaded.catalogue)
    baselines = measured_baselines(loaded, setup.task, splits, quiet=quiet)
    result = RunResult(
        status="finished",
        run=run,
        step=step,
        parameters=setup.model.num_parameters,
        metrics=metrics,
        baselines=baselines,
        expect=loaded.recipe.expect,
        expected=judge(loaded.recipe.expect, metrics),
    )
    run.update(
        step=step,
        best_step=saver.best_step,
        best_value=saver.best_value,
        metrics=plain(metrics),
        baseline=plain(result.baseline),
        baselines={name: plain(scores) for name, scores in baselines.items()},
        expected=result.expected,
        cost=_cost(setup, trainer),
    )
    draw_curves(run.metrics, run.curves, monitor=setup.monitor, title=loaded.recipe.title or loaded.name)
    run.write(run.card, render_card(loaded, result))
    run.update(status="finished", ended=_now())
    return result


def _cost(setup: Setup, trainer: pl.Trainer) -> dict[str, float | None]:
    """What this run took, as measured. What its model costs can be had from its plan at any time."""
    pace = next(callback for callback in trainer.callbacks if isinstance(callback, Pace))  # type: ignore[attr-defined]
    batches = setup.loaded.recipe.trainer.accumulate_batches
    return {
        "seconds_per_step": None if pace.seconds is None else pace.seconds * batches,
        "peak_bytes": peak_bytes(trainer.strategy.root_device),
    }


def _try_out(setup: Setup) -> RunResult:
    """One update and one evaluation in a folder that vanishes."""
    one = setup.loaded.recipe.trainer.accumulate_batches
    short = replace(setup, batches=one, eval_every=one)
    with TemporaryDirectory() as folder:
        run = create_run(folder, setup.loaded.name)
        saver = make_saver(short, run.checkpoints, StopRequest())
        trainer = _fit(short, run, saver, checkpoint=None, progress=False, limit_val_batches=1)
        load_best(run, setup.model)
        save_weights(setup.model.cpu(), run.weights, catalogue=setup.loaded.catalogue)
        load_weights(run.weights, catalogue=setup.loaded.catalogue)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return RunResult(
        status="dry run", run=None, step=1, parameters=setup.model.num_parameters, metrics=metrics
    )


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
        "settings": resolved(loaded),
        "revisions": revisions_of(loaded.plan, loaded.catalogue),
        **circumstances(loaded.catalogue),
    }


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
