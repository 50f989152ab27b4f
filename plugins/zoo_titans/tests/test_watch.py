"""The callback that watches memories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from zoo_titans.config import MemoriesConfig
from zoo_titans.watch import MEASURES, TABLE, Memories, memory_measures

import zoo
from zoo.plugin import Ids, NextId


class Run:
    """As much of a run as the callback needs."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.step, self.steps = 0, 4
        self.logged: list[dict[str, float]] = []
        self.notes: list[str] = []

    def forward(self, batch: Any) -> torch.Tensor:
        return self.model(batch["input"])

    def log(self, values: Any) -> None:
        self.logged.append(dict(values))

    def note(self, text: str) -> None:
        self.notes.append(text)


def model_of(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    mixer = "titans/memory" if name == "titans/lmm" else name
    sizes = {
        "inputs": Ids(vocab=9, length=12),
        "targets": NextId(vocab=9),
        "width": 16,
        "depth": 2,
        "heads": 2,
    }
    return zoo.create_model(name, **sizes, mixer_params={mixer: options})


def test_every_memory_is_measured_and_a_look_changes_nothing(tmp_path: Path) -> None:
    for name in ("titans/lmm", "titans/mac", "titans/mag", "titans/mal"):
        model = model_of(name)
        batch = {"input": torch.randint(9, (3, 12))}
        before = model(batch["input"])
        run, watch = Run(model, tmp_path), Memories(MemoriesConfig(every_steps=2, examples=2))
        for run.step in range(1, 5):
            watch.after_step(run, batch)
        watch.on_end(run)
        assert torch.equal(model(batch["input"]), before)
        assert [row.keys() for row in run.logged] == [set(watch.columns)] * 3
        rows = (tmp_path / TABLE).read_text().splitlines()
        assert rows[0] == ",".join(("step", "memory", "head", *MEASURES))
        assert len(rows) == 1 + 3 * 2 * 2  # looks, layers, heads


def test_what_is_measured_is_what_the_layer_does() -> None:
    model = model_of("titans/lmm", chunk=4, alpha_init=0.25, eta_init=0.5, theta_max=0.4, max_surprise=None)
    ids = torch.randint(9, (2, 12))
    found = memory_measures(model, lambda: model(ids))
    values = dict(zip(MEASURES, next(iter(found.values())), strict=True))
    torch.testing.assert_close(values["theta"], torch.full((2,), 0.1), atol=0.02, rtol=0)
    torch.testing.assert_close(values["eta"], torch.full((2,), 0.5), atol=0.1, rtol=0)
    torch.testing.assert_close(values["alpha"], torch.full((2,), 0.25), atol=0.1, rtol=0)
    assert (values["error_after"] < values["error"]).all()
    still = model_of("titans/lmm", chunk=4, theta_max=1e-9)
    values = dict(zip(MEASURES, next(iter(memory_measures(still, lambda: still(ids)).values())), strict=True))
    assert values["surprise"].max() < 1e-6


def test_a_memory_that_unlearns_is_said_once(tmp_path: Path) -> None:
    run = Run(model_of("titans/lmm", chunk=16, theta_max=4.0, theta_init=0.9, max_surprise=None), tmp_path)
    watch = Memories(MemoriesConfig(every_steps=1))
    for run.step in (1, 2):
        watch.after_step(run, {"input": torch.zeros(2, 12, dtype=torch.int64)})
    assert [note.partition(" unlearns")[0] for note in run.notes] == [
        f"the memory of backbone.blocks.{i}.mixer.memory" for i in range(2)
    ]
    resumed = Memories()
    resumed.load_state_dict(watch.state_dict())
    assert resumed.state_dict() == watch.state_dict()


def test_a_model_without_memories_is_said_once(tmp_path: Path) -> None:
    run, watch = Run(nn.Linear(2, 2), tmp_path), Memories(MemoriesConfig(every_steps=1))
    for run.step in (1, 2):
        watch.after_step(run, {"input": torch.ones(3, 2)})
    watch.on_end(run)
    assert run.notes == ["this model has no neural memory to watch"] and not list(tmp_path.iterdir())
