"""What `zoo train` adds to a step, and whether the data is there in time.

    python benchmarks/training.py [--steps 60] [--json PATH]

Each case trains a recipe as the command would (schedule, clipping, metrics.csv, checkpoints), and between any
two of its steps a bare PyTorch loop makes one with a copy of the model: batch from a `DataLoader`, forward,
backward, clipping, optimiser, schedule, the loss noted. So both meet the same machine. A step of the zoo is
all the time from one bare step to the next, whatever it goes into. `wait` is the part of it spent waiting for
the next batch.

Targets: at most 1.05 times the bare step, for steps of 20 ms or more; exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

import zoo.plugin as zp
from zoo.catalogue import Catalogue
from zoo.data.batch import collate, mask_of
from zoo.recipe import load_recipe
from zoo.training import train
from zoo.training.lightning import pl
from zoo.training.setup import prepare

TARGET = 1.05
SHORTEST = 0.020  # seconds: shorter steps are shown, not judged
WARM_UP = 5

CASES: dict[str, dict[str, Any]] = {
    "images": {
        "model": {"name": "core/transformer", "width": 64, "params": {"depth": 4}},
        "data": {"name": "core/digits", "batch_size": 64},
    },
    "tokens": {
        "model": {"name": "core/transformer", "width": 64, "params": {"depth": 2, "positions": "rope"}},
        "data": {"name": "core/sotu_small", "batch_size": 16},
    },
    "series": {
        "model": {"name": "aaren/encoder", "width": 64, "params": {"depth": 3}},
        "data": {"name": "core/japanese_vowels", "batch_size": 64},
    },
    "tables": {
        "model": {"name": "core/mlp_net", "width": 384, "params": {"depth": 4}},
        "data": {"name": "core/breast_cancer", "batch_size": 128},
    },
    "tables, a worker": {
        "model": {"name": "core/mlp_net", "width": 384, "params": {"depth": 4}},
        "data": {"name": "core/breast_cancer", "batch_size": 128, "workers": 1},
    },
}


@dataclass(frozen=True)
class Measured:
    """One line of the table; times are medians, in seconds."""

    case: str
    bare: float
    zoo: float
    ratio: float
    wait: float

    @property
    def judged(self) -> bool:
        return self.bare >= SHORTEST

    @property
    def ok(self) -> bool:
        return self.ratio <= TARGET or not self.judged


class Clock:
    """Time spent in `next(batches)`."""

    def __init__(self) -> None:
        self.waited = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        original = _BaseDataLoaderIter.__next__

        def timed(iterator: Any) -> Any:
            begun = time.perf_counter()
            try:
                return original(iterator)
            finally:
                self.waited += time.perf_counter() - begun

        _BaseDataLoaderIter.__next__ = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            _BaseDataLoaderIter.__next__ = original  # type: ignore[method-assign]


class Bare:
    """The loop that everybody writes."""

    def __init__(self, setup: Any) -> None:
        recipe = setup.loaded.recipe
        self.task, self.clip = setup.task, recipe.trainer.gradient_clip_norm
        self.model = copy.deepcopy(setup.model).train()
        self.optimizer, _ = setup.make_optimizer(self.model)
        steps = recipe.trainer.max_steps
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.losses: list[float] = []
        self.loader = DataLoader(
            setup.splits.train,
            batch_size=recipe.data.batch_size,
            shuffle=True,
            collate_fn=collate,
            num_workers=recipe.data.workers,
        )
        self.batches = iter(self.loader)

    def step(self) -> None:
        try:
            batch = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        loss = self.task.loss(self.model(batch["input"], mask=mask_of(batch)), batch)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(loss.item())


class Beside(pl.Callback):
    """Makes a bare step between two of the zoo's, and times both."""

    def __init__(self, bare: Bare, clock: Clock) -> None:
        self.bare, self.clock = bare, clock
        self.begun: float | None = None
        self.pairs: list[tuple[float, float, float]] = []  # (zoo, bare, wait)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        now, waited = time.perf_counter(), self.clock.waited
        self.bare.step()
        bare = time.perf_counter() - now
        if self.begun is not None:
            self.pairs.append((now - self.begun, bare, waited))
        self.begun, self.clock.waited = time.perf_counter(), 0.0


def measure(case: str, steps: int) -> Measured:
    """Train the case beside the bare loop."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = {
            "schema": 1,
            **CASES[case],
            "trainer": {
                "max_steps": WARM_UP + steps + 1,
                "eval_every_steps": 10_000,
                "gradient_clip_norm": 1.0,
                "log_every_steps": 10,
                "accelerator": "cpu",
            },
            "output": {"dir": folder},
        }
        clock = Clock()
        beside = Beside(Bare(prepare(load_recipe(recipe))), clock)
        with clock.listening():
            train(load_recipe(recipe, catalogue=with_callback(beside)))
    zoo, bare, wait = zip(*beside.pairs[WARM_UP:], strict=True)
    ratio = statistics.median(z / b for z, b in zip(zoo, bare, strict=True))
    return Measured(case, statistics.median(bare), statistics.median(zoo), ratio, statistics.median(wait))


def with_callback(callback: pl.Callback) -> Catalogue:
    """What is installed, and a plugin that adds a callback."""
    plugin = types.ModuleType("beside")
    plugin.__zoo_api__ = 1  # type: ignore[attr-defined]
    plugin.zoo_trainer_options = zp.hookimpl(  # type: ignore[attr-defined]
        _named("zoo_trainer_options", callback)
    )
    catalogue = Catalogue.discover()
    catalogue.add(plugin, id="beside")
    return catalogue


def _named(name: str, callback: pl.Callback) -> Any:
    def options(recipe: Any) -> dict[str, Any]:
        return {"callbacks": [callback]}

    options.__name__ = name
    return options


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="steps of each kind and case")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that the two loops and a worker do not fight over two cores
    results = [measure(case, options.steps) for case in options.case or CASES]
    print(f"{'case':<17} {'bare ms':>8} {'zoo ms':>8} {'ratio':>6} {'wait ms':>8} {'wait %':>7}")
    for r in results:
        remark = "" if r.ok else "  MISSED"
        print(
            f"{r.case:<17} {1e3 * r.bare:>8.2f} {1e3 * r.zoo:>8.2f} {r.ratio:>6.3f} "
            f"{1e3 * r.wait:>8.3f} {100 * r.wait / r.zoo:>7.2f}{remark}"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results]))
    return 0 if all(r.ok for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
