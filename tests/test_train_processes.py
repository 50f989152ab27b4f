"""Several processes train what one does: ddp and fsdp, on CPUs, started as torchrun would start them."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.test_train_resume import Kill, Killed, Press, traces, with_callback
from zoo.errors import ZooError
from zoo.recipe import load_recipe
from zoo.runs import Run, find_run
from zoo.training import evaluate, resume, train
from zoo.training.blocks import repeated_blocks
from zoo.training.loaders import BatchStream, EvalStream, part_of
from zoo.training.processes import find_processes

RECIPES: dict[str, dict[str, Any]] = {
    # Ragged series; last batches do not divide, one leaves a process idle.
    "series": {
        "model": {"name": "core/transformer", "width": 8, "params": {"depth": 2, "heads": 2}},
        "data": {"name": "core/japanese_vowels", "batch_size": 50, "eval_batch_size": 53},
    },
    # Missing values: how many answers there are differs between the processes.
    "table": {
        "model": {"name": "core/mlp_net", "width": 8, "params": {"depth": 1}},
        "data": {"name": "core/hea_strength", "batch_size": 10},
    },
}


def recipe(folder: Path, name: str = "series", **trainer: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        **RECIPES[name],
        "optim": {"lr": 0.01},
        "trainer": {
            "max_steps": 6,
            "eval_every_steps": 4,
            "accumulate_batches": 2,
            "gradient_clip_norm": 0.5,
            "log_every_steps": 1,
            "accelerator": "cpu",
            **trainer,
        },
        "callbacks": {"progress": None},
        "output": {"dir": str(folder)},
    }


def together(task: Callable[[], None], count: int = 2) -> list[str]:
    """Do this in several processes, as torchrun would start them; what each of them raised."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    pids, pipes = [], []
    for rank in range(count):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            os.environ |= {"LOCAL_WORLD_SIZE": str(count), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            outcome = ""
            try:
                task()
            except SystemExit as stop:
                outcome = f"exit {stop.code}"
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
                if not isinstance(error, (ZooError, Killed)):
                    traceback.print_exc()
            os.write(writing, outcome.encode())
            os._exit(0)
        os.close(writing)
        pids.append(pid), pipes.append(reading)
    outcomes = []
    for pid, pipe in zip(pids, pipes, strict=True):
        with os.fdopen(pipe) as said:
            outcomes.append(said.read())
        os.waitpid(pid, 0)
    return outcomes


def trained(folder: Path, name: str = "series", **trainer: Any) -> Run:
    """A finished run of two processes."""
    made = recipe(folder, name, devices=2, **trainer)
    assert together(lambda: _train(made)) == ["", "exit 0"]
    return find_run("latest", root=folder)


def _train(made: dict[str, Any], **options: Any) -> None:
    assert train(load_recipe(made, **options), quiet=True).status == "finished"


def rows(run: Run) -> list[list[float]]:
    with run.metrics.open() as file:
        return [[float(value or "nan") for value in row.values()] for row in csv.DictReader(file)]


def assert_close(run: Run, other: Run) -> None:
    """Up to rounding, which adding in another order changes."""
    ours, theirs = torch.tensor(rows(run)), torch.tensor(rows(other))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert run.info["metrics"] == pytest.approx(other.info["metrics"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_ddp_gives_the_metrics_of_one_process(tmp_path, name):
    alone = train(load_recipe(recipe(tmp_path / "one", name)), quiet=True).run
    run = trained(tmp_path / "two", name)
    assert_close(run, alone)
    assert len(list(tmp_path.glob("two/**/run.json"))) == 1, "the first process alone writes"


def test_fsdp_gives_the_metrics_of_one_process_and_can_be_read_by_one(tmp_path):
    alone = train(load_recipe(recipe(tmp_path / "one")), quiet=True).run
    run = trained(tmp_path / "two", strategy="fsdp")
    assert_close(run, alone)
    assert evaluate(run).metrics == pytest.approx(run.info["metrics"])
    whole, sharded = (torch.load(r.last, weights_only=True) for r in (alone, run))
    assert whole["state_dict"].keys() == sharded["state_dict"].keys()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_killed_they_resume_together_and_end_the_same(tmp_path, strategy):
    """Dropout, clipping, accumulation; saved after four updates, killed in the sixth."""
    whole = trained(tmp_path / "whole", strategy=strategy)
    made = recipe(tmp_path / "part", devices=2, strategy=strategy)
    killer = with_callback(Kill(11))
    assert together(lambda: _train(made, catalogue=killer)) == ["Killed: ", "Killed: "]
    run = find_run("latest", root=tmp_path / "part")
    assert run.status == "failed" and torch.load(run.last, weights_only=True)["global_step"] == 4
    assert together(lambda: resume(run, quiet=True) and None) == ["", "exit 0"]
    assert traces(find_run(run.path)) == traces(whole)


def test_a_loss_that_is_no_number_ends_all_of_them(tmp_path):
    made = recipe(tmp_path, "table", devices=2, eval_every_steps=1) | {"optim": {"name": "sgd", "lr": 1e30}}
    leader, follower = together(lambda: _train(made))
    assert leader.startswith("Diverged: the ") and follower == "exit 0"
    assert find_run("latest", root=tmp_path).status == "failed"


def test_sigterm_ends_a_run_in_order(tmp_path):
    """What a cluster sends before it takes the machine away."""
    whole = train(load_recipe(recipe(tmp_path / "whole")), quiet=True).run
    before = signal.getsignal(signal.SIGTERM)
    press = with_callback(Press(3, number=signal.SIGTERM))
    part = train(load_recipe(recipe(tmp_path / "part"), catalogue=press), quiet=True)
    assert part.status == "interrupted" and part.step == 2
    assert signal.getsignal(signal.SIGTERM) == before
    assert traces(resume(part.run, quiet=True).run) == traces(whole)


@pytest.mark.slow
def test_without_torchrun_lightning_starts_the_others(tmp_path):
    train(load_recipe(recipe(tmp_path / "one")), quiet=True)
    overrides = ["trainer.devices=2", f"output.dir={tmp_path / 'two'}"]
    resolved = str(find_run("latest", root=tmp_path / "one").resolved)
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "train", resolved, *overrides],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("Run: ") == 1 and "Warning" not in done.stderr
    assert_close(*(find_run("latest", root=tmp_path / folder) for folder in ("two", "one")))


# -- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"batch_size": 33}},
            r"batch_size: .*33 examples do not divide .* 2 devices, 32 or 34",
        ),
        ({"data": {"batch_size": 1}}, r"1 examples do not divide among 2 devices, 2 would"),
        (
            {"trainer": {"strategy": "fsdp"}, "callbacks": {"ema": {}}},
            r"callbacks.ema: averages whole weights, and fsdp leaves a device a share",
        ),
    ],
)
def test_what_two_devices_cannot_do_is_told(tmp_path, changes, message):
    made = recipe(tmp_path, devices=2)
    for section, values in changes.items():
        made[section] = made[section] | values
    with pytest.raises(ZooError, match=message):
        train(load_recipe(made), quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("devices", "nodes"), [(1, 1), (2, 2)])
def test_other_processes_than_the_recipe_asks_for_are_refused(tmp_path, monkeypatch, devices, nodes):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "2" if name == "WORLD_SIZE" else "0")
    made = load_recipe(recipe(tmp_path, devices=devices, nodes=nodes))
    total = devices * nodes
    with pytest.raises(ZooError, match=rf"2 processes were started .* {devices} x {nodes} = {total}; start"):
        find_processes(made)


def test_slurm_says_which_process_this_is(tmp_path, monkeypatch):
    given = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
    for name, value in {**given, "SLURM_JOB_NAME": "job", "SLURM_NTASKS_PER_NODE": "2"}.items():
        monkeypatch.setenv(name, value)
    found = find_processes(load_recipe(recipe(tmp_path, devices=2, nodes=2), ["data.batch_size=52"]))
    assert (found.count, found.per_node, found.nodes, found.rank, found.leads) == (4, 2, 2, 3, False)
    alone = find_processes(load_recipe(recipe(tmp_path)))  # four tasks that train a run each
    assert alone.count == 1 and alone.leads


# -- who does what -------------------------------------------------------------------------------


@given(st.integers(0, 30), st.integers(1, 7))
def test_each_example_counts_in_one_process(size, processes):
    batch = list(range(size))
    parts = [part_of(batch, rank, processes) for rank in range(processes)]
    counted = list(chain(*(indices for indices, idle in parts if not idle)))
    assert sorted(counted) == batch
    assert all(indices == batch[:1] for indices, idle in parts if idle)


def test_the_processes_together_see_what_one_sees():
    def stream(**share: int) -> list[Any]:
        return list(BatchStream(examples=10, batch_size=4, batches=6, seed=0, **share))

    alone, both = stream(), [stream(rank=rank, processes=2) for rank in (0, 1)]
    for whole, *parts in zip(alone, *both, strict=True):
        assert sorted(chain(*(part.indices for part in parts))) == sorted(whole.indices)
        assert parts[0].seed == whole.seed != parts[1].seed
    assert len(EvalStream(examples=7, batch_size=3)) == len(list(EvalStream(examples=7, batch_size=3))) == 3


def test_the_blocks_of_a_backbone_are_found():
    from torch import nn

    block = lambda: nn.ModuleDict({"a": nn.Linear(2, 2)})  # noqa: E731
    tree = nn.Module()
    tree.first = nn.Sequential(nn.Linear(2, 2), nn.GELU())  # plain layers
    tree.stack = nn.ModuleList([block(), block()])
    tree.inner = nn.Module()
    tree.inner.stages = nn.ModuleList([nn.ModuleList([block(), block()]), nn.ModuleList([block(), block()])])
    assert len(repeated_blocks(tree)) == 6
    assert repeated_blocks(nn.Linear(2, 2)) == []
