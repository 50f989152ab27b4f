"""The same recipe and seed give the same run; an interrupted run ends where the uninterrupted one ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
import zoo.plugin as zp
from zoo.catalogue import Catalogue
from zoo.errors import ZooError
from zoo.recipe import load_recipe
from zoo.runs import Run, find_run, open_run
from zoo.training import StopRequest, resume, train
from zoo.training.checkpoint import read_checkpoint
from zoo.training.lightning import pl


def recipe(folder: Path, **trainer: Any) -> dict[str, Any]:
    """Ragged series, dropout, EMA, clipping, accumulation over epochs, and an evaluation in mid-epoch."""
    return {
        "schema": 1,
        "seed": 3,
        "model": {
            "name": "core/transformer",
            "width": 8,
            "params": {"depth": 1, "heads": 2, "dropout_prob": 0.2},
        },
        "data": {"name": "core/japanese_vowels", "batch_size": 48, "eval_batch_size": 256},
        "optim": {"lr": 0.01},
        "schedule": {"warmup_steps": 2},
        "trainer": {
            "max_steps": 9,
            "eval_every_steps": 4,
            "accumulate_batches": 2,
            "gradient_clip_norm": 1.0,
            "log_every_steps": 3,
            **trainer,
        },
        "callbacks": {"ema": {"decay": 0.8}, "progress": None},
        "output": {"dir": str(folder)},
    }


class Press(pl.Callback):
    """Ctrl-C (or another signal) during one batch, `times` times."""

    def __init__(self, batch: int, times: int = 1, number: int = signal.SIGINT) -> None:
        self.batch = batch
        self.times = times
        self.number = number

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


class Ask(pl.Callback):
    """Somebody else asks for an end during one batch."""

    def __init__(self, stop: StopRequest, *, batch: int) -> None:
        self.stop = stop
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.stop.made = self.stop.made or batch_idx == self.batch


def with_callback(callback: pl.Callback) -> Catalogue:
    """A catalogue with a plugin that adds a callback to the Trainer."""
    plugin = types.ModuleType("presser")
    plugin.__zoo_api__ = 1  # type: ignore[attr-defined]

    @zp.hookimpl
    def zoo_trainer_options(recipe: Any) -> dict[str, Any]:
        return {"callbacks": [callback]}

    plugin.zoo_trainer_options = zoo_trainer_options  # type: ignore[attr-defined]
    catalogue = Catalogue.discover()
    catalogue.add(plugin, id="presser")
    return catalogue


def traces(run: Run) -> dict[str, bytes]:
    """What must be the same, byte for byte."""
    scores = {name: run.info[name] for name in ("metrics", "baselines", "best_step", "best_value", "step")}
    return {
        "metrics.csv": run.metrics.read_bytes(),
        "model.safetensors": run.weights.read_bytes(),
        "scores": json.dumps(scores).encode(),
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    result = train(load_recipe(recipe(tmp_path_factory.mktemp("whole"))), quiet=True)
    assert result.status == "finished" and result.run is not None
    return result.run


def test_the_same_recipe_and_seed_give_the_same_files(uninterrupted, tmp_path):
    again = train(load_recipe(recipe(tmp_path)), quiet=True).run
    assert traces(again) == traces(uninterrupted)


def test_another_seed_gives_another_run(uninterrupted, tmp_path):
    other = train(load_recipe(recipe(tmp_path) | {"seed": 4}), quiet=True).run
    assert traces(other)["metrics.csv"] != traces(uninterrupted)["metrics.csv"]


def test_workers_and_logging_do_not_change_the_run(uninterrupted, tmp_path):
    changed = recipe(tmp_path, log_every_steps=3)
    changed["data"]["workers"] = 1
    changed["output"]["loggers"] = {"tensorboard": {}}
    other = train(load_recipe(changed), quiet=True).run
    assert traces(other) == traces(uninterrupted)
    assert list((other.path / "tensorboard").glob("events.*"))


# 18 batches of 48 in epochs of 5; an update every 2 batches, an evaluation after 8, 16 and 18.
@pytest.mark.parametrize(
    "batch", [0, 4, 7, 8, 15, *(pytest.param(batch, marks=pytest.mark.slow) for batch in (1, 5, 11, 14))]
)
def test_interrupted_at_any_batch_and_resumed_it_ends_the_same(uninterrupted, tmp_path, batch):
    loaded = load_recipe(recipe(tmp_path), catalogue=with_callback(Press(batch)))
    result = train(loaded, quiet=True)
    assert (result.status, result.exit_code) == ("interrupted", 130)
    assert result.step == batch // 2 + 1  # the update is finished first
    assert f"Interrupted at step {result.step}. Resume: zoo train --resume" in result.hint()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = resume(result.run.path, quiet=True)
    assert resumed.status == "finished" and resumed.run.path == result.run.path
    assert traces(resumed.run) == traces(uninterrupted)
    assert len(resumed.run.info["resumed"]) == 1


@pytest.mark.parametrize("batch", [16, 17])
def test_interrupted_during_the_last_update_it_finishes(uninterrupted, tmp_path, batch):
    result = train(load_recipe(recipe(tmp_path), catalogue=with_callback(Press(batch))), quiet=True)
    assert result.status == "finished" and traces(result.run) == traces(uninterrupted)


def test_interrupted_twice_and_resumed_twice(uninterrupted, tmp_path):
    result = train(load_recipe(recipe(tmp_path), catalogue=with_callback(Press(2))), quiet=True)
    run = result.run
    # The second part is interrupted too: by hand, as `resume` uses the default catalogue.
    from zoo.training import fit

    loaded = load_recipe(run.resolved, catalogue=with_callback(Press(11)))
    saved = run.last, read_checkpoint(run.last)
    again = fit._carry_out(fit.prepare(loaded), run, checkpoint=saved, quiet=True, stop=StopRequest())
    assert again.status == "interrupted" and again.step == 6
    assert traces(resume(run, quiet=True).run) == traces(uninterrupted)


def test_another_thread_asks_a_run_to_stop(uninterrupted, tmp_path):
    stop = StopRequest()
    with ThreadPoolExecutor(max_workers=1) as thread:
        loaded = load_recipe(recipe(tmp_path), catalogue=with_callback(Ask(stop, batch=10)))
        result = thread.submit(zoo.train, loaded, quiet=True, stop=stop).result()
    assert (result.status, result.step) == ("interrupted", 6)
    assert traces(resume(result.run, quiet=True).run) == traces(uninterrupted)


def test_a_second_press_ends_at_once_and_keeps_the_last_checkpoint(uninterrupted, tmp_path):
    result = train(load_recipe(recipe(tmp_path), catalogue=with_callback(Press(10, times=2))), quiet=True)
    assert result.status == "interrupted" and result.step == 4  # saved after the evaluation at batch 8
    assert traces(resume(result.run, quiet=True).run) == traces(uninterrupted)


def test_a_second_press_before_any_checkpoint_begins_again(uninterrupted, tmp_path):
    result = train(load_recipe(recipe(tmp_path), catalogue=with_callback(Press(1, times=2))), quiet=True)
    assert result.status == "interrupted" and result.step == 0 and not result.run.last.exists()
    assert "Interrupted at step 0. Resume:" in result.hint()
    assert traces(resume(result.run, quiet=True).run) == traces(uninterrupted)


class Killed(BaseException):
    """Stands for a SIGKILL: nothing of ours runs after it."""


class Kill(pl.Callback):
    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            raise Killed


def killed(folder: Path, batch: int, **checkpoint: Any) -> Run:
    """A run that was killed before this batch."""
    made = recipe(folder)
    made["callbacks"]["checkpoint"] = checkpoint
    with pytest.raises(Killed):
        train(load_recipe(made, catalogue=with_callback(Kill(batch))), quiet=True)
    (path,) = folder.glob("python/*")
    assert "step" in path.joinpath("metrics.csv").read_text()
    return open_run(path)


# 18 batches, 2 for an update: evaluated, hence saved, after 8, 16 and 18.
@pytest.mark.parametrize(("batch", "step"), [(3, None), (9, 4), (17, 8)])
def test_killed_it_resumes_from_the_last_evaluation_or_the_beginning(uninterrupted, tmp_path, batch, step):
    run = killed(tmp_path, batch)
    assert (read_checkpoint(run.last)["global_step"] if run.last.exists() else None) == step
    assert traces(resume(run, quiet=True).run) == traces(uninterrupted)


@pytest.mark.parametrize("checkpoint", [{"every_steps": 1}, {"every_minutes": 1e-9}], ids=str)
@pytest.mark.parametrize(("batch", "step"), [(3, 1), (7, 3), (14, 7)])
def test_between_evaluations_it_is_saved_as_often_as_wanted(uninterrupted, tmp_path, batch, step, checkpoint):
    run = killed(tmp_path, batch, **checkpoint)
    assert read_checkpoint(run.last)["global_step"] == step
    assert traces(resume(run, quiet=True).run) == traces(uninterrupted)


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(uninterrupted, tmp_path, capsys):
    """The end is the same from any of them."""
    run = killed(tmp_path, 17, every_steps=3)
    run.last.write_bytes(run.last.read_bytes()[:-1000])
    assert traces(resume(run, quiet=True).run) == traces(uninterrupted)
    note = capsys.readouterr().err
    assert "last.ckpt' is damaged or incomplete" in note and "; going on from best.ckpt, step" in note


def test_what_a_kill_inside_a_save_leaves_is_swept_away(uninterrupted, tmp_path):
    run = killed(tmp_path, 9)
    half = run.checkpoints / ".step-8.ckpt.partial"
    half.write_bytes(b"half")
    assert traces(resume(run, quiet=True).run) == traces(uninterrupted)
    assert not half.exists()


def test_two_processes_do_not_write_one_run(tmp_path):
    run = killed(tmp_path, 9)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    hold = "import sys, zoo.runs as r\nwith r.locked(r.open_run(sys.argv[1])):\n "
    hold += "print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ZooError, match=rf"still running, in process {other.pid} on .*cannot write one"):
            resume(run, quiet=True)
        changed = {path.name for path, content in before.items() if path.read_bytes() != content}
        assert changed <= {"run.json"}, "by the other one, which says who it is"
        other.kill()  # the lock goes with the process
    assert resume(run, quiet=True).status == "finished"


def test_a_recipe_that_was_changed_meanwhile_is_not_resumed(uninterrupted, tmp_path):
    run = killed(tmp_path, 9)
    text = run.resolved.read_text()
    run.resolved.write_text(text.replace("lr: 0.01", "lr: 0.02").replace("seed: 3", "seed: 5"))
    with pytest.raises(ZooError, match=r"resolved.yaml' was changed .*: seed was 3, is 5; optim.lr was"):
        resume(run, quiet=True)
    run.resolved.write_text(text)
    assert traces(resume(run, quiet=True).run) == traces(uninterrupted)


def test_a_component_that_computes_something_else_is_not_resumed(tmp_path):
    run = killed(tmp_path, 9)
    assert {"model core/transformer", "mixer core/softmax"} <= run.info["revisions"].keys()
    run.update(revisions=run.info["revisions"] | {"mixer core/softmax": 0})
    with pytest.raises(ZooError, match=r"revision 0 of mixer 'core/softmax', but 1 is installed"):
        resume(run, quiet=True)


def test_other_versions_are_noted(tmp_path, capsys):
    run = killed(tmp_path, 9)
    run.update(
        versions=run.info["versions"] | {"torch": "1.0"},
        plugins=run.info["plugins"] | {"aaren": "archzoo 0.0.9", "gone": "zoo-gone 3"},
    )
    assert resume(run, quiet=True).status == "finished"
    note = capsys.readouterr().err
    assert f"versions changed: torch 1.0 -> {torch.__version__}, aaren 0.0.9 -> " in note
    assert "gone 3 -> absent" in note


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_full_disk_leaves_the_checkpoint_of_before(uninterrupted, tmp_path, name):
    class Fill(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 9:
                folder = Path(trainer.default_root_dir) / "checkpoints"
                (folder / f".{name}.partial").symlink_to("/dev/full")

    loaded = load_recipe(recipe(tmp_path), catalogue=with_callback(Fill()))
    with pytest.raises(ZooError, match=r"cannot be written: No space left on device\. What was there before"):
        train(loaded, quiet=True)
    run = find_run("latest", root=tmp_path)
    assert run.status == "failed" and read_checkpoint(run.last)["global_step"] == 4
    assert not list(run.checkpoints.glob(".*"))
    assert traces(resume(run, quiet=True).run) == traces(uninterrupted)


def test_killed_after_the_last_step_only_the_scores_are_made(uninterrupted, tmp_path):
    run = train(load_recipe(recipe(tmp_path)), quiet=True).run
    run.update(status="failed", metrics=None, best_value=None)
    run.weights.unlink()
    assert traces(resume(run, quiet=True).run) == traces(uninterrupted)


def test_early_stopping_survives_a_resume(tmp_path):
    stopping = recipe(tmp_path / "a", eval_every_steps=1, max_steps=12)
    stopping["callbacks"] |= {"early_stopping": {"patience": 2, "min_delta": 0.9}}
    whole = train(load_recipe(stopping), quiet=True).run
    assert whole.info["step"] == 3  # nothing improves by 0.9: the first evaluation and two more
    stopping["output"] = {"dir": str(tmp_path / "b")}
    part = train(load_recipe(stopping, catalogue=with_callback(Press(1))), quiet=True)
    assert part.status == "interrupted"
    assert traces(resume(part.run, quiet=True).run) == traces(whole)
    # Killed between the decision to stop and the end:
    whole.update(status="running", pid=None)
    before = traces(whole)
    assert traces(resume(whole, quiet=True).run) == before


def test_plateau_schedule_survives_a_resume(tmp_path):
    plateau = recipe(tmp_path / "a", eval_every_steps=1)
    plateau["schedule"] = {"name": "plateau", "warmup_steps": 2, "params": {"patience": 0, "decay_rate": 0.5}}
    plateau["task"] = {"monitor": "val/accuracy", "mode": "min"}  # so that it soon gets "worse"
    whole = train(load_recipe(plateau), quiet=True).run
    rates = {row.split(",")[2] for row in whole.metrics.read_text().splitlines()[1:]}
    assert "0.01" in rates and "0.005" in rates
    plateau["output"] = {"dir": str(tmp_path / "b")}
    part = train(load_recipe(plateau, catalogue=with_callback(Press(9))), quiet=True)
    assert traces(resume(part.run, quiet=True).run) == traces(whole)


def test_a_finished_run_is_not_resumed_but_may_go_on_for_longer(tmp_path):
    run = train(load_recipe(recipe(tmp_path)), quiet=True).run
    with pytest.raises(ZooError, match="is finished"):
        resume(run, quiet=True)
    with pytest.raises(ZooError, match="nothing else"):
        resume(run, ["optim.lr=1"], quiet=True)
    with pytest.raises(ZooError, match="finished, after 9 updates; only a larger"):
        resume(run, ["trainer.max_steps=5"], quiet=True)
    longer = resume(run, ["trainer.max_steps=13"], quiet=True)
    assert longer.status == "finished" and longer.step == 13
    steps = [int(line.split(",")[0]) for line in run.metrics.read_text().splitlines()[1:]]
    assert steps == sorted(steps) and steps[-1] == 13 and steps.count(9) == 2
    assert torch.isfinite(torch.tensor(list(longer.metrics.values()))).all()


@pytest.mark.parametrize("pause", [0.002, 0.1])
def test_an_impatient_user_presses_ctrl_c_again_and_again(tmp_path, pause):
    """The command ends with 130 and the hint, whatever comes while it leaves; the run can be resumed."""
    command = [sys.executable, "-m", "zoo", "train", "core/digits", "trainer.max_epochs=50"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stderr is not None
    seen = ""
    while "batch 40/" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
    out, err = process.communicate()
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in out + err
    assert "zoo train --resume" in out + err
    run = find_run("latest", root=tmp_path / "runs")
    assert run.status == "interrupted" and run.last.is_file()
