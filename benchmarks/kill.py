"""Runs killed with SIGKILL at random moments, resumed, and compared with an uninterrupted run, bit for bit.

    python benchmarks/kill.py [--runs 30] [--jobs 2] [--seed 0] [--folder DIR]

Three recipes: a text model with dropout, averaged weights and accumulated gradients; an image model with data
in a worker process; a table saved at every step, so that kills fall into saves. Each run is a process of its
own (forked from one that has imported torch) and killed once to three times, at moments drawn from its whole
life: from the making of its folder to the last report. Then `zoo train --resume` must end with the same
metrics.csv, weights, checkpoints and scores. With --folder, a second call goes on where the first one was
stopped. Exits with 1 where an end differs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a run must be the same beside another

import torch

from zoo.cli import main

for heavy in ("zoo.training.fit", "zoo_aaren.layers", "matplotlib.figure", "matplotlib.backends.backend_agg"):
    importlib.import_module(heavy)

#: Small enough for a few seconds each.
RECIPES: dict[str, dict[str, Any]] = {
    "text": {
        "model": {"name": "core/transformer", "width": 16, "params": {"depth": 1, "dropout_prob": 0.2}},
        "data": {"name": "core/sotu_small", "batch_size": 8, "eval_batch_size": 256},
        "schedule": {"warmup_steps": 5},
        "trainer": {"max_steps": 40, "eval_every_steps": 13, "accumulate_batches": 2, "log_every_steps": 3},
        "callbacks": {"ema": {"decay": 0.9}, "checkpoint": {"every_steps": 5}},
    },
    "images": {
        "model": {"name": "aaren/encoder", "width": 16, "params": {"depth": 1, "dropout_prob": 0.1}},
        "data": {"name": "core/digits", "batch_size": 64, "workers": 1},
        "trainer": {"max_epochs": 2, "eval_every_steps": 7, "gradient_clip_norm": 1.0, "log_every_steps": 5},
        "callbacks": {"checkpoint": {"keep": 2}, "early_stopping": {"patience": 3}},
    },
    "table": {
        "model": {"name": "core/mlp_net", "width": 256, "params": {"depth": 2, "dropout_prob": 0.2}},
        "data": {"name": "core/wine", "batch_size": 16},
        "schedule": {"name": "plateau", "params": {"patience": 1}},
        "trainer": {"max_steps": 50, "eval_every_steps": 11, "log_every_steps": 1},
        "callbacks": {"ema": {"decay": 0.8, "start_step": 10}, "checkpoint": {"every_steps": 1}},
    },
}


@dataclass(frozen=True)
class Kill:
    """One run to be killed. seed: of the moments."""

    number: int
    recipe: str
    seed: int

    def shares(self, attempt: int) -> list[float]:
        """At which shares of an uninterrupted run's time, one after another."""
        draw = random.Random(f"{self.seed}/{self.number}/{attempt}")
        return [draw.uniform(0, 0.7) for _ in range(draw.choice((1, 1, 2, 3)))]


def command() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30, help="how many are killed, over all recipes")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="keep everything there, and go on from there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return measure(options, options.folder or Path(temporary))


def measure(options: argparse.Namespace, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for name, recipe in RECIPES.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"schema": 1, **recipe}))
    wholes = {name: uninterrupted(folder, name) for name in RECIPES}
    names = list(RECIPES)
    kills = [Kill(i, names[i % len(names)], options.seed) for i in range(options.runs)]
    for worker in [
        fork(lambda i=i: work(kills[i :: options.jobs], folder, wholes)) for i in range(options.jobs)
    ]:
        worker.wait()
    results = [outcome(folder, kill, wholes[kill.recipe]) for kill in kills]
    same = sum(not result["differs"] for result in results)
    moments = [moment for result in results for moment in result["kills"]]
    print(f"{len(moments)} kills in {len(results)} runs; {same} ends are bit for bit the uninterrupted one")
    for moment in sorted(set(moments)):
        print(f"  {moments.count(moment):>3} {moment}")
    return 0 if same == len(results) else 1


def uninterrupted(folder: Path, name: str) -> dict[str, Any]:
    """Seconds (once its folder is there) and traces of the recipe's whole run."""
    record = folder / f"{name}.json"
    if not record.exists():
        process = run(folder / name, "train", str(folder / f"{name}.yaml"))
        begun = has_begun(process, folder / name)
        process.wait()
        if process.code:
            sys.exit(f"{name} fails: see {folder / name / 'log.txt'}")
        seconds = time.monotonic() - begun
        record.write_text(json.dumps({"seconds": seconds, "traces": traces(folder / name)}))
    return json.loads(record.read_text())


def work(kills: Sequence[Kill], folder: Path, wholes: dict[str, Any]) -> int:
    for kill in kills:
        outcome(folder, kill, wholes[kill.recipe])
    return 0


def outcome(folder: Path, kill: Kill, whole: dict[str, Any]) -> dict[str, Any]:
    """Kill, resume, compare; what was found is kept beside."""
    record = folder / f"kill-{kill.number}.json"
    if record.exists():
        return json.loads(record.read_text())
    place, attempt = folder / f"kill-{kill.number}", 0
    while not (moments := killed(place, folder / f"{kill.recipe}.yaml", kill.shares(attempt), whole)):
        attempt += 1  # that run ended before its moment, which is no kill
    if not has_ended(place):
        run(place, "train", "--resume", "latest").wait()
    ended = traces(place)
    differs = sorted(key for key in {*whole["traces"], *ended} if ended.get(key) != whole["traces"].get(key))
    result = {"recipe": kill.recipe, "attempts": attempt + 1, "kills": moments, "differs": differs}
    record.write_text(json.dumps(result))
    print(f"{kill.number:>3} {kill.recipe:<7} {', '.join(moments)}: {differs or 'the same'}", flush=True)
    return result


def killed(place: Path, recipe: Path, shares: Sequence[float], whole: dict[str, Any]) -> list[str]:
    """A new run, killed at each of these shares of its time that it lives to see; what it was doing then."""
    shutil.rmtree(place, ignore_errors=True)  # of an attempt before
    moments: list[str] = []
    arguments = ["train", str(recipe)]
    for share in shares:
        process = run(place, *arguments)
        if process.wait(until=has_begun(process, place) + share * whole["seconds"]):
            break
        if has_ended(place):
            process.wait()
            break
        moments.append(phase(place))
        process.kill()
        arguments = ["train", "--resume", "latest"] if found(place) else arguments
    return moments


def run(place: Path, *arguments: str) -> Process:
    """`zoo ...` with its runs in `place`; what it says goes to a file there."""
    place.mkdir(exist_ok=True)

    def zoo() -> int:
        os.chdir(place)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        return main([*arguments, "--quiet"])

    return fork(zoo)


class Process:
    """A child of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None

    def wait(self, until: float = math.inf) -> bool:
        """Whether it has ended before that time."""
        while self.code is None and time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.005)
        return self.code is not None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()


def fork(task: Callable[[], int]) -> Process:
    """A process that does this and ends; what is imported here need not be imported again."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = task()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    return Process(pid)


def found(place: Path) -> Path | None:
    """The folder of the one run."""
    records = list(place.glob("runs/**/run.json"))
    return records[0].parent if records else None


def has_ended(place: Path) -> bool:
    """Whether the run says that it is finished."""
    folder = found(place)
    return folder is not None and json.loads((folder / "run.json").read_text())["status"] == "finished"


def phase(place: Path) -> str:
    """What the run seems to be doing."""
    folder = found(place)
    if folder is None:
        return "before the folder was there"
    if list(folder.glob("checkpoints/.*.partial")):
        return "inside a save"
    if (folder / "model.safetensors").exists() or (folder / "curves.png").exists():
        return "while reporting"
    if (folder / "checkpoints/last.ckpt").exists():
        return "after a save"
    return "training, before the first save" if (folder / "metrics.csv").exists() else "while starting"


def has_begun(process: Process, place: Path) -> float:
    """Wait until this process has the run's folder; when that was."""
    while not process.wait(until=time.monotonic() + 0.01):
        folder = found(place)
        if folder is not None and json.loads((folder / "run.json").read_text()).get("pid") == process.pid:
            break
    return time.monotonic()


def traces(place: Path) -> dict[str, str]:
    """Everything that must not differ, as digests."""
    folder = found(place)
    if folder is None:
        return {}
    info = json.loads((folder / "run.json").read_text())
    kept = ("status", "metrics", "baselines", "best_step", "best_value", "step", "expected")
    contents = {"scores": repr([info.get(name) for name in kept]).encode()}
    contents |= {
        path.name: path.read_bytes() for path in folder.glob("m*.*")
    }  # metrics.csv, model.safetensors
    for path in folder.glob("checkpoints/*"):  # not byte for byte: two archives of one content may differ
        contents[path.name] = repr(plain(torch.load(path, weights_only=True))).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def plain(value: Any) -> Any:
    """With tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes().hex()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    sys.exit(command())
