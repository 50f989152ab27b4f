"""Runs in which grids move and become finer: resumed, saved, loaded, and refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from zoo_kan import KANLinear
from zoo_kan.model import kan_layers

import zoo
from zoo.plugin import ZooError

GRIDS = {"refine_at": [3, 6], "refine_to": [10, 20], "adapt_every": 2, "adapt_until": 4}


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "model": {
            "name": "kan/kan",
            "width": 10,
            "params": {"hidden": [3], "norm": "none", "sparsity": 1e-3},
            "stem": {"name": "kan/raw"},
            "head": {"name": "kan/regressor"},
        },
        "data": {"name": "core/diabetes", "batch_size": 64},
        "schedule": {"name": "constant"},
        "optim": {"lr": 1e-2},
        "trainer": {"max_steps": 8, "eval_every_steps": 4, "log_every_steps": 1, "accelerator": "cpu"},
        "callbacks": {"kan/grids": GRIDS},
        "output": {"dir": str(folder)},
        **changes,
    }


def test_a_resumed_run_with_changing_grids_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = zoo.train(recipe(tmp_path / "whole"), quiet=True)
    assert whole.run is not None
    from zoo.training import resume

    short = recipe(tmp_path / "parts")
    short["trainer"] = {**short["trainer"], "max_steps": 4}  # after the first refinement, before the second
    part = zoo.train(short, quiet=True)
    assert part.run is not None
    ended = resume(part.run, ["trainer.max_steps=8"], quiet=True)
    assert ended.run is not None
    first, second = (torch.load(run.last, weights_only=True)["state_dict"] for run in (whole.run, ended.run))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert [each.metrics["test/mse"] for each in (whole, ended)] == [whole.metrics["test/mse"]] * 2
    with whole.run.metrics.open() as file:
        logged = [float(row["train/grid_intervals"] or 0) for row in csv.DictReader(file)]
    assert [size for size in logged if size] == [5, 10, 10, 20]

    model = zoo.load_model(whole.run.weights)
    layers = kan_layers(model)
    assert list(layers) == ["backbone.layers.0", "head.layer"]
    assert {layer.grid_intervals for layer in layers.values()} == {20}
    assert not any(layer.basis.uniform for layer in layers.values())


def test_what_cannot_follow_changing_shapes_is_refused(tmp_path: Path) -> None:
    changed = recipe(tmp_path)
    changed["callbacks"] = {"kan/grids": GRIDS, "ema": {"decay": 0.9}}
    with pytest.raises(ZooError, match=r"callbacks\.ema.*kan/grids"):
        zoo.train(changed, quiet=True)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"refine_at": [3, 6], "refine_to": [10, 5]}, "finer grids"),
        ({"refine_at": [6, 3], "refine_to": [5, 10]}, "must increase"),
        ({"refine_at": [0], "refine_to": [10]}, "at least 1"),
        ({"refine_at": [3], "refine_to": []}, "as many numbers"),
    ],
)
def test_schedules_that_cannot_be(tmp_path: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.load_recipe(recipe(tmp_path, callbacks={"kan/grids": params}))


def test_grids_that_would_not_become_finer_are_refused_before_it_trains(tmp_path: Path) -> None:
    for intervals in (3, 5):
        changed = recipe(tmp_path, callbacks={"kan/grids": {"refine_at": [3], "refine_to": [intervals]}})
        with pytest.raises(
            ZooError, match=rf"kan/grids.*finer .* 5 intervals; got {intervals} after update 3"
        ):
            zoo.train(changed, quiet=True)


def test_what_grids_will_not_do_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = recipe(tmp_path, callbacks={"kan/grids": {"refine_at": [3, 30], "refine_to": [10, 20]}})
    zoo.train(late, quiet=True)
    assert "kan/grids: the run ends after 8 updates: grids are not refined at [30]" in capsys.readouterr().err
    plain = recipe(tmp_path)
    plain["model"] = {"name": "core/mlp_net", "width": 8}
    zoo.train(plain, quiet=True)
    said = capsys.readouterr().err
    assert said.count("this model has no KAN layer on splines") == 1


def test_a_width_below_the_features_is_refused(tmp_path: Path) -> None:
    changed = recipe(tmp_path)
    changed["model"]["width"] = 5
    with pytest.raises(ZooError, match="number of features, 10"):
        zoo.train(changed, quiet=True)


def test_the_penalty_is_part_of_the_training_loss_only() -> None:
    torch.manual_seed(0)
    layer = KANLinear(3, 2, sparsity=0.5)
    x = torch.randn(20, 3)
    layer(x)
    penalty = layer.penalty()
    assert penalty is not None and penalty.item() == pytest.approx(0.5 * layer.regularization_loss(x).item())
    assert layer.penalty() is None
    layer.eval()(x)
    assert layer.penalty() is None
