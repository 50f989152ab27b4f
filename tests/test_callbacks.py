"""Callbacks of plugins in recipes and runs, with the toy `sab/count`."""

from __future__ import annotations

import csv
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo.core
import zoo.plugin as zp
from tests.saboteurs import plugin as saboteurs
from zoo.callbacks import Callback, LiveRun
from zoo.catalogue import Catalogue
from zoo.errors import ZooError
from zoo.recipe import load_recipe
from zoo.training import train

RECIPE: dict[str, Any] = {
    "schema": 1,
    "model": {"name": "core/mlp_net", "width": 16},
    "data": {"name": "core/wine", "batch_size": 32},
    "trainer": {"max_steps": 4, "eval_every_steps": 2, "log_every_steps": 1},
    "callbacks": {"progress": None, "count": {}},
}


class Noisy(Callback):
    """Draws random numbers, speaks, and fails when it is told to."""

    def __init__(self, config: None) -> None:
        torch.rand(1)

    def on_start(self, run: LiveRun) -> None:
        torch.rand(3)
        run.note(f"{run.steps} steps to go")

    def after_step(self, run: LiveRun, batch: Mapping[str, Any]) -> None:
        torch.rand(5)
        assert batch["input"].shape[0] <= 32 and run.model.training
        run.forward(batch)
        assert run.model.training


class Fails(Noisy):
    def after_evaluation(self, run: LiveRun) -> None:
        raise ValueError("the pen is dry")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    module: Any = types.ModuleType(__name__)
    module.__zoo_api__ = 1
    targets = {"noisy": "Noisy", "fails": "Fails", "stranger": "Catalogue"}
    specs = tuple(zp.CallbackSpec(name=n, target=f"{__name__}:{t}") for n, t in targets.items())
    module.zoo_components = zp.hookimpl(lambda: specs, specname="zoo_components")
    found = Catalogue()
    for id, plugin in {"core": zoo.core, "sab": saboteurs, "odd": module}.items():
        found.add(plugin, id=id)
    return found


def run(catalogue: Catalogue, folder: Path, **callbacks: Any) -> Any:
    given = {**RECIPE, "callbacks": {"progress": None, **callbacks}, "output": {"dir": str(folder)}}
    return train(load_recipe(given, catalogue=catalogue), quiet=True)


def test_it_stands_beside_the_built_in_ones_and_null_takes_it_away(catalogue: Catalogue) -> None:
    loaded = load_recipe(RECIPE, catalogue=catalogue)
    assert [part.id for part in loaded.callbacks] == ["sab/count"]
    assert loaded.recipe.callbacks.progress is None
    without = load_recipe(RECIPE, ["callbacks.count=null"], catalogue=catalogue)
    assert without.callbacks == () and "callbacks.count is null" in without.notes[0]


def test_what_is_rendered_is_the_same_recipe(catalogue: Catalogue, tmp_path: Path) -> None:
    loaded = load_recipe(RECIPE, catalogue=catalogue)
    (tmp_path / "again.yaml").write_text(loaded.render())
    again = load_recipe(tmp_path / "again.yaml", catalogue=catalogue)
    assert again.callbacks == loaded.callbacks
    assert again.render(comments=False) == loaded.render(comments=False)


def test_what_it_logs_and_writes_is_in_the_run(catalogue: Catalogue, tmp_path: Path) -> None:
    result = run(catalogue, tmp_path, count={})
    rows = list(csv.DictReader((result.run.path / "metrics.csv").open()))
    assert [row["train/examples"] for row in rows if row["train/examples"]] == ["32", "64", "96", "124"]
    assert (result.run.path / "count.json").read_text() == "124\n"
    checkpoint = torch.load(result.run.last, weights_only=True)
    assert checkpoint["callbacks"]["callback sab/count"] == {"seen": 124}


def test_it_does_not_change_the_run_and_notes_are_kept(catalogue: Catalogue, tmp_path: Path) -> None:
    plain, noisy = run(catalogue, tmp_path), run(catalogue, tmp_path, noisy={}, count={})
    assert noisy.metrics == plain.metrics
    assert json.loads((noisy.run.path / "run.json").read_text())["notes"] == ["odd/noisy: 4 steps to go"]


def test_what_fails_is_named(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"callback 'odd/fails' failed.*the pen is dry"):
        run(catalogue, tmp_path, fails={})
    with pytest.raises(ZooError, match=r"callback 'odd/stranger' (cannot be built|is a Catalogue)"):
        run(catalogue, tmp_path, stranger={})
