"""Sweeps on a Ray cluster: a local one with two workers, of which one is killed in the middle of a point."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zoo.cli import main
from zoo.runs import Run, list_runs
from zoo.sweep import check_points, combine, make_sweep, parse_axes

RECIPE = """\
schema: 1
model: {name: core/mlp_net, width: 8, params: {depth: 1}}
data: {name: core/wine, batch_size: 16}
trainer: {max_steps: 300, log_every_steps: 50}
callbacks: {checkpoint: {every_steps: 20}}
"""


@pytest.fixture(autouse=True)
def in_a_folder_with_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(RECIPE, encoding="utf-8")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default: on a busy machine they would stand still
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def kill_the_first(killed: list[Run]) -> None:
    """Wait for a run that has a checkpoint and is not finished, then kill its process."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not killed:
        for run in list_runs("runs"):
            if run.status == "running" and run.last.is_file() and "pid" in run.info:
                os.kill(run.info["pid"], signal.SIGKILL)
                killed.append(run)
                return
        time.sleep(0.01)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(cluster: Any) -> None:
    swept = make_sweep(check_points("tiny.yaml", combine(parse_axes(["seed=0..3"]))))
    swept.write(["tiny.yaml", "seed=0..3"])
    killed: list[Run] = []
    killer = threading.Thread(target=kill_the_first, args=[killed])
    killer.start()
    outcomes = [outcome for _, outcome in swept.train(workers=2, retry=False, on="ray")]
    killer.join()
    assert [outcome.ending for outcome in outcomes] == ["finished"] * 4
    runs = list(list_runs("runs"))
    assert len(runs) == 4 and {run.info["seed"] for run in runs} == set(range(4))  # it went on, not anew
    (lost,) = killed
    (again,) = [run for run in runs if run.path == lost.path]
    assert again.info["pid"] != lost.info["pid"] and again.status == "finished"
    assert len({run.info["pid"] for run in runs}) >= 2

    # The same point trained at home, never killed: the same metrics, to the last digit.
    seed = again.info["seed"]
    assert main(["train", "tiny.yaml", "--quiet", f"seed={seed}", "output.dir=home"]) == 0
    (home,) = list_runs("home")
    assert home.info["metrics"] == again.info["metrics"]

    assert list(swept.train(workers=2, retry=False, on="ray")) == []  # nothing is left


def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", "tiny.yaml", "seed=0", "--on", "ray"]) == 2
    assert re.search(r"pip install 'archzoo\[ray\]'", capsys.readouterr().err)
    assert not list(list_runs("runs"))
