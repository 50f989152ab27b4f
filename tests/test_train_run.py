"""A run from end to end: what lies in its folder, hooks, dry runs, wrong options, and what the user sees."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.catalogue import Catalogue
from zoo.errors import ZooError
from zoo.layers.weights import load_weights
from zoo.recipe import load_recipe
from zoo.runs import Run, create_run, find_run
from zoo.training import Diverged, RunResult, evaluate, predict, resume, train
from zoo.training.lightning import pl
from zoo.training.loaders import BatchStream, batches_per_epoch, derived_seed, eval_loader, train_loader

PNG = b"\x89PNG"


def recipe(folder: Path, **sections: Any) -> dict[str, Any]:
    plain = {
        "schema": 1,
        "title": "Wine, small",
        "model": {"name": "core/mlp_net", "width": 16, "params": {"depth": 1}},
        "data": {"name": "core/wine", "batch_size": 32},
        "optim": {"lr": 0.01},
        "trainer": {"max_epochs": 4, "log_every_steps": 2},
        "output": {"dir": str(folder)},
    }
    return plain | sections


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    expect = {"metric": "test/accuracy", "at_least": 0.5, "measured_on": "2026-01-01, nowhere"}
    return train(load_recipe(recipe(tmp_path_factory.mktemp("runs"), expect=expect)), quiet=True)


def test_the_folder_is_complete(result):
    names = {str(p.relative_to(result.run.path)) for p in result.run.path.rglob("*") if p.is_file()}
    assert names == {
        ".lock",
        "recipe.yaml",
        "resolved.yaml",
        "run.json",
        "metrics.csv",
        "curves.png",
        "card.md",
        "model.safetensors",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert result.run.curves.read_bytes().startswith(PNG)
    info = json.loads((result.run.path / "run.json").read_text())
    assert info["status"] == "finished" and info["seed"] == 0 and info["metrics"] == result.metrics
    assert {"torch", "pytorch-lightning", "timm", "archzoo", "python"} <= info["versions"].keys()
    assert {"started", "ended", "platform", "git", "plan", "baseline", "plugins", "command"} <= info.keys()
    assert str(Path.home()) not in (result.run.path / "run.json").read_text()


def test_it_learns_and_says_so(result, capsys):
    assert result.metrics["test/accuracy"] > result.baseline["test/accuracy"] + 0.2
    assert result.expected is True and result.exit_code == 0
    result.print()
    shown = capsys.readouterr().out
    assert "majority" in shown and str(result.run.path) in shown
    assert "test/accuracy at least 0.5: met" in shown
    card = result.run.card.read_text()
    assert f"| accuracy | {result.metrics['test/accuracy']:.4g} |" in card and "Wine, small" in card


def test_the_metrics_file_has_a_row_per_log_and_evaluation(result):
    with result.run.metrics.open() as file:
        rows = list(csv.DictReader(file))
    evaluations = [row for row in rows if row["val/loss"]]
    assert [float(row["epoch"]) for row in evaluations] == [1, 2, 3, 4]
    assert all(float(row["train/loss"]) > 0 for row in rows if row["train/loss"])
    # A row stands for the batches since the row before: steps 2, 4 and the evaluation after 4.
    assert [int(row["step"]) for row in rows] == sorted(int(row["step"]) for row in rows)


def test_the_resolved_recipe_trains_the_same_run(result, tmp_path):
    again = train(load_recipe(result.run.resolved, [f"output.dir={tmp_path}"]), quiet=True)
    assert again.run.metrics.read_bytes() == result.run.metrics.read_bytes()


def test_eval_repeats_the_scores_of_the_best_checkpoint(result):
    assert evaluate(result.run).metrics == pytest.approx(result.metrics)
    assert evaluate(result.run.path).baselines == result.baselines
    on_val = evaluate(result.run, split="val")
    assert on_val.metrics["val/accuracy"] == pytest.approx(result.run.info["best_value"])
    assert on_val.baselines == {} and on_val.baseline == {}
    with pytest.raises(ZooError, match="no split 'dev'"):
        evaluate(result.run, split="dev")  # type: ignore[arg-type]


def test_the_saved_weights_are_those_of_the_best_checkpoint(result):
    checkpoint = torch.load(result.run.best, weights_only=True)
    saved = load_weights(result.run.weights).state_dict()
    assert {f"model.{name}" for name in saved} == checkpoint["state_dict"].keys()
    for name, value in saved.items():
        assert torch.equal(value, checkpoint["state_dict"][f"model.{name}"])


def test_predict_reads_a_file(result, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join([",".join(["13.2"] * 13)] * 3), encoding="utf-8")
    answers = predict(result.run, rows)
    assert len(answers) == 3 and 0 < answers[0]["probability"] <= 1
    rows.write_text("1,2", encoding="utf-8")
    with pytest.raises(ZooError, match="has 2 columns, expected 13"):
        predict(result.run, rows)


def test_regression_predictions_are_in_natural_units(tmp_path):
    diabetes = recipe(tmp_path, data={"name": "core/diabetes"})
    run = train(load_recipe(diabetes), quiet=True).run
    row = tmp_path / "row.csv"
    row.write_text("59,2,32.1,101,157,93.2,38,4,4.8598,87", encoding="utf-8")
    ((_, value),) = predict(run, row)[0].items()
    assert 50 < value < 300  # the disease progression of 442 patients lies in 25..346


def test_text_predictions_are_symbols(tmp_path):
    sotu = recipe(
        tmp_path,
        model={"name": "core/transformer", "width": 8, "params": {"depth": 1, "heads": 1}},
        data={"name": "core/sotu_small", "batch_size": 8},
        trainer={"max_steps": 2},
    )
    run = train(load_recipe(sotu), quiet=True).run
    text = tmp_path / "text.txt"
    text.write_text("the state of the unio", encoding="utf-8")
    (answer,) = predict(run, text)
    assert isinstance(answer["next"], str) and len(answer["next"]) == 1


def test_more_than_one_best_checkpoint_is_kept(tmp_path):
    kept = train(load_recipe(recipe(tmp_path, callbacks={"checkpoint": {"keep": 3}})), quiet=True).run
    steps = sorted(int(p.stem.partition("-")[2]) for p in kept.checkpoints.glob("step-*.ckpt"))
    assert len(steps) == 3 and kept.info["best_step"] in steps
    best = torch.load(kept.best, weights_only=True)
    assert best["global_step"] == kept.info["best_step"]


def test_averaged_weights_are_what_is_scored_and_saved(tmp_path):
    run = train(load_recipe(recipe(tmp_path, callbacks={"ema": {"decay": 0.9}})), quiet=True).run
    checkpoint = torch.load(run.last, weights_only=True)
    assert any(
        not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])
        for name in checkpoint["state_dict"]
    )


def test_averaging_that_starts_later_scores_the_weights_until_then(tmp_path):
    def accuracies(**ema: Any) -> list[str]:
        made = recipe(tmp_path, callbacks={"ema": ema or None})
        rows = csv.DictReader(train(load_recipe(made), quiet=True).run.metrics.open())
        return [row["val/loss"] for row in rows if row["val/loss"]]

    plain, late = accuracies(), accuracies(decay=0.9, start_step=8)
    assert late[:2] == plain[:2] and late[2:] != plain[2:]


def test_a_dry_run_leaves_nothing(tmp_path, capsys):
    made = recipe(tmp_path / "runs", schedule={"warmup_steps": 5})
    tried = train(load_recipe(made), dry_run=True)
    assert tried.status == "dry run" and tried.step == 1 and tried.run is None and tried.exit_code == 0
    assert "val/loss" in tried.metrics and not (tmp_path / "runs").exists()
    tried.print()
    assert "went well" in capsys.readouterr().out


# -- hooks ---------------------------------------------------------------------------------------


def with_plugins(plugin_module: Any, **plugins: dict[str, Any]) -> Catalogue:
    catalogue = Catalogue.discover()
    for name, hooks in plugins.items():
        catalogue.add(plugin_module(name, **hooks), id=name)
    return catalogue


def test_a_plugin_may_refuse_a_recipe(plugin_module, tmp_path):
    def zoo_recipe_ready(recipe: Any) -> None:
        if recipe.optim.lr > 0.001:
            raise ZooError("lr is too bold for me")

    catalogue = with_plugins(plugin_module, timid={"zoo_recipe_ready": zoo_recipe_ready})
    with pytest.raises(ZooError, match="too bold"):
        train(load_recipe(recipe(tmp_path / "runs"), catalogue=catalogue), quiet=True)
    assert not (tmp_path / "runs").exists()


def test_plugins_give_trainer_options_and_hear_of_the_end(plugin_module, tmp_path):
    seen: list[Any] = []

    class Count(pl.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            seen.append("batch")

    def zoo_run_finished(run: Run) -> None:
        seen.append((run.status, run.card.is_file()))

    options = {"zoo_trainer_options": lambda recipe: {"callbacks": Count()}}
    catalogue = with_plugins(
        plugin_module, one=options, two={"zoo_run_finished": zoo_run_finished}, three=options
    )
    train(load_recipe(recipe(tmp_path, trainer={"max_steps": 3}), catalogue=catalogue), quiet=True)
    assert seen == ["batch"] * 6 + [("finished", True)]


def test_each_hook_of_a_step_reaches_callbacks_of_plugins(plugin_module, tmp_path):
    """What Lightning need not call here, it does not call; what somebody waits for, it does."""
    heard: list[str] = []
    hooks = ["on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"]
    body = {hook: lambda *_, hook=hook, **__: heard.append(hook) for hook in hooks}
    options = {"zoo_trainer_options": lambda recipe: {"callbacks": type("Hears", (pl.Callback,), body)()}}
    made = recipe(tmp_path, trainer={"max_steps": 2, "extra": {"profiler": "simple"}})
    train(load_recipe(made, catalogue=with_plugins(plugin_module, hears=options)), quiet=True)
    assert heard == hooks * 2


def test_a_report_that_fails_does_not_undo_the_run(plugin_module, tmp_path):
    def zoo_run_finished(run: Run) -> None:
        raise OSError("no network")

    catalogue = with_plugins(plugin_module, reporter={"zoo_run_finished": zoo_run_finished})
    made = recipe(tmp_path, trainer={"max_steps": 1})
    with pytest.raises(
        ZooError, match="plugin 'reporter': its hook zoo_run_finished failed: OSError: no network"
    ):
        train(load_recipe(made, catalogue=catalogue), quiet=True)
    assert find_run("latest", root=tmp_path).status == "finished"


def test_plugins_that_disagree_are_an_error(plugin_module, tmp_path):
    catalogue = with_plugins(
        plugin_module,
        one={"zoo_trainer_options": lambda recipe: {"detect_anomaly": True}},
        two={"zoo_trainer_options": lambda recipe: {"detect_anomaly": False}},
    )
    with pytest.raises(
        ZooError, match="plugin 'two' sets the Trainer's 'detect_anomaly' to False, but plugin 'one'"
    ):
        train(load_recipe(recipe(tmp_path), catalogue=catalogue), quiet=True)


# -- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trainer": {"extra": {"max_epoch": 3}}}, r"no key 'max_epoch' here. Did you mean 'max_epochs'"),
        ({"trainer": {"extra": {"max_epochs": 3}}}, r"sets the Trainer's 'max_epochs' to 3, but the recipe"),
        (
            {"trainer": {"accelerator": "cuda"}},
            r"Lightning's Trainer refuses these options.*[Cc][Uu][Dd][Aa]",
        ),
        (
            {"trainer": {"devices": 3}},
            r"batch_size: .*32 examples do not divide among 3 devices, 30 or 33 would",
        ),
        ({"optim": {"name": "nonesuchopt"}}, r"no optimiser 'nonesuchopt'"),
        ({"task": {"monitor": "val/acuracy", "mode": "max"}}, r"no metric 'val/acuracy'.*'val/accuracy'"),
    ],
)
def test_options_that_cannot_be_are_told_in_a_sentence(tmp_path, sections, message):
    if "cuda" in str(sections) and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ZooError, match=message):
        train(load_recipe(recipe(tmp_path, **sections)), quiet=True)


def test_a_warm_up_longer_than_the_run_is_cut_with_a_note(tmp_path, capsys):
    short = recipe(tmp_path, schedule={"warmup_steps": 500}, trainer={"max_steps": 4})
    assert train(load_recipe(short)).status == "finished"
    assert "warmup_steps is cut from 500 to 2: the whole run has 4 updates" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    wild = recipe(
        tmp_path,
        optim={"name": "sgd", "lr": 1e30, "weight_decay": 0.0},
        trainer={"max_epochs": 5, "eval_every_steps": 1},
    )
    with pytest.raises(Diverged, match=r"the loss is (nan|inf|-inf) at step \d+.*lower optim.lr"):
        train(load_recipe(wild), quiet=True)
    run = find_run("latest", root=tmp_path)
    assert run.status == "failed" and "Diverged" in run.info["error"] and run.last.is_file()


def test_weights_that_are_no_numbers_are_not_saved(plugin_module, tmp_path):
    """The update after a loss that still was one may spoil them; the checkpoint of before stays."""

    class Spoil(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            if trainer.global_step == 3:  # the fourth update
                next(module.model.parameters()).grad.fill_(math.nan)

    options = {"zoo_trainer_options": lambda recipe: {"callbacks": Spoil()}}
    made = recipe(tmp_path, trainer={"max_steps": 6, "eval_every_steps": 2})
    with pytest.raises(Diverged, match=r"weights are no longer numbers at step 4 \(\S+\)\. Checkpoints from"):
        train(load_recipe(made, catalogue=with_plugins(plugin_module, spoil=options)), quiet=True)
    run = find_run("latest", root=tmp_path)
    for path in (run.last, run.best):
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["global_step"] == 2
        assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert resume(run, quiet=True).step == 6  # and without the mishap it goes on


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(ZooError, match=r"taken.* cannot be written: Not a directory"):
        train(load_recipe(recipe(tmp_path / "taken")), quiet=True)


def test_a_folder_that_vanishes_during_the_run_is_named(plugin_module, tmp_path):
    class Vanish(pl.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            shutil.rmtree(find_run("latest", root=tmp_path).checkpoints)

    catalogue = with_plugins(
        plugin_module, gone={"zoo_trainer_options": lambda recipe: {"callbacks": Vanish()}}
    )
    with pytest.raises(ZooError, match=r"checkpoints' cannot be written: No such file or directory"):
        train(load_recipe(recipe(tmp_path), catalogue=catalogue), quiet=True)
    assert find_run("latest", root=tmp_path).status == "failed"


def test_not_meeting_the_expectation_is_said(tmp_path):
    expect = {"metric": "test/loss", "at_most": 1e-9, "measured_on": "2026-01-01, nowhere"}
    found = train(load_recipe(recipe(tmp_path, expect=expect, trainer={"max_steps": 1})), quiet=True)
    assert found.expected is False and "NOT met" in found.verdict() and found.run.info["expected"] is False


def test_without_metrics_file_there_are_no_curves(tmp_path):
    silent = recipe(tmp_path, output={"dir": str(tmp_path), "loggers": {"csv": None}})
    run = train(load_recipe(silent), quiet=True).run
    assert run.status == "finished" and not run.metrics.exists() and not run.curves.exists()


# -- the order of the data -----------------------------------------------------------------------


def indices(**settings: Any) -> list[list[int]]:
    wanted = {"examples": 10, "batch_size": 4, "batches": 9, "seed": 0} | settings
    return [job.indices for job in BatchStream(**wanted)]


def test_each_epoch_shows_every_example_once_in_its_own_order():
    batches = indices()
    epochs = [list(chain(*batches[i : i + 3])) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [len(batch) for batch in batches[:3]] == [4, 4, 2]
    assert batches != indices(seed=1)


@pytest.mark.parametrize("start", range(10))
def test_a_stream_from_the_middle_is_the_end_of_the_whole(start):
    assert indices(start=start) == indices()[start:]


def test_augmentation_starts_from_the_batch_with_and_without_workers():
    class Noisy:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input": torch.rand(2), "target": torch.tensor(index)}

    def batches(start: int, workers: int) -> list[torch.Tensor]:
        stream = BatchStream(examples=10, batch_size=4, batches=6, seed=0, start=start)
        return [batch["input"] for batch in train_loader(Noisy(), stream, workers=workers)]

    whole = batches(0, 0)
    for start, workers in ((4, 0), (1, 2)):
        part = batches(start, workers)
        assert all(torch.equal(a, b) for a, b in zip(part, whole[start:], strict=True))


def test_evaluation_is_in_order_and_whole():
    class Numbers:
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input": torch.full((2,), float(index)), "target": torch.tensor(index)}

    seen = torch.cat([batch["target"] for batch in eval_loader(Numbers(), batch_size=3)])
    assert seen.tolist() == list(range(7))
    assert batches_per_epoch(7, 3) == 3 and batches_per_epoch(6, 3) == 2
    assert len({derived_seed(s, p, n) for s in range(3) for p in "ab" for n in range(3)}) == 18


# -- the command line ----------------------------------------------------------------------------


def zoo(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zoo", *arguments], capture_output=True, text=True, timeout=300, **options
    )


def test_the_command_line_prints_the_table_and_nothing_of_lightning(tmp_path):
    file = tmp_path / "wine.yaml"
    file.write_text(json.dumps(recipe(tmp_path / "runs")), encoding="utf-8")
    done = zoo("train", str(file))
    assert done.returncode == 0, done.stderr
    assert "majority" in done.stdout and "Run: " in done.stdout
    lines = done.stderr.splitlines()
    assert lines[0].startswith("core/wine vector(13)") and "parameters" in lines[1]
    assert len(lines) == 2 + 4 and all("val/accuracy" in line for line in lines[2:]), done.stderr


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_in_order_with_a_hint(tmp_path, presses):
    file = tmp_path / "wine.yaml"
    long = {"max_steps": 100_000, "eval_every_steps": 20}
    file.write_text(json.dumps(recipe(tmp_path / "runs", trainer=long)), encoding="utf-8")
    command = [sys.executable, "-m", "zoo", "train", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("runs/wine/*/checkpoints/last.ckpt")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        for _ in range(presses):
            os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    run = find_run("latest", root=tmp_path / "runs")
    assert run.status == "interrupted"
    last = errors.strip().splitlines()[-1]
    assert last == f"Interrupted at step {run.info['step']}. Resume: zoo train --resume {run.path}"
    assert "Traceback" not in errors
    longer = resume(run, [f"trainer.max_steps={run.info['step'] + 5}"], quiet=True)
    assert longer.status == "finished" and math.isfinite(longer.metrics["test/loss"])


def test_a_run_in_another_thread_trains_without_ctrl_c(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(
            train, load_recipe(recipe(tmp_path, trainer={"max_steps": 2})), quiet=True
        ).result()
    assert found.status == "finished"


def test_no_run_overwrites_another(tmp_path):
    made = load_recipe(recipe(tmp_path, trainer={"max_steps": 1}))
    first, second = train(made, quiet=True).run, train(made, quiet=True).run
    assert first.path != second.path and create_run(tmp_path, "python").path not in (first.path, second.path)


# -- the same weights on other data -----------------------------------------------------------


@pytest.fixture(scope="module")
def recalling(tmp_path_factory: pytest.TempPathFactory) -> Run:
    model = {"name": "core/transformer", "width": 16, "params": {"depth": 1, "positions": "rope"}}
    data = {"name": "core/copy", "params": {"length": 12, "items": 3, "examples": 64, "eval_examples": 16}}
    folder = tmp_path_factory.mktemp("recalling")
    return train(
        load_recipe(recipe(folder, model=model, data=data, trainer={"max_steps": 2})), quiet=True
    ).run


def test_an_override_scores_the_same_weights_on_other_data(recalling):
    same, longer = evaluate(recalling), evaluate(recalling, overrides=["data.params.length=40"], quiet=True)
    assert same.metrics == pytest.approx(recalling.info["metrics"])
    assert longer.metrics["test/loss"] != same.metrics["test/loss"]
    assert longer.to_dict()["overrides"] == ["data.params.length=40"]
    blind = evaluate(recalling, overrides=["model.params.mixer_params={core/softmax: {window: 1}}"])
    assert blind.metrics["test/loss"] != same.metrics["test/loss"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "trainer.max_steps=9",
            "changes nothing in an evaluation: overrides begin with data., model. or task.",
        ),
        ("data.params.lenght=40", "length"),
        (
            "model.width=32",
            r"does not fit the model of its run: \d+ of \d+ weights have another shape, such as \S+, \(.*\) "
            r"there, \(.*\) here\. Overrides of an evaluation must leave the weights as they are$",
        ),
        ("data.params.vocab=20", "does not fit the model of its run"),
    ],
)
def test_an_override_that_cannot_be_evaluated_is_refused(recalling, override, said):
    with pytest.raises(ZooError, match=said):
        evaluate(recalling, overrides=[override])
