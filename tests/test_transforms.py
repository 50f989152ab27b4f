"""Transforms in recipes, plans, saved models and in Python, with the toy `sab/scale`."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import zoo.core
import zoo.plugin as zp
from tests.saboteurs import plugin as saboteurs
from zoo.catalogue import Catalogue
from zoo.contract import Plan, resolve
from zoo.errors import ZooError
from zoo.layers import Model, apply_transform, build_model, fold_transforms, load_weights, save_weights
from zoo.recipe import load_recipe
from zoo.training import resume, train

FACTOR = "head.linear.parametrizations.weight.0.factor"
RECIPE: dict[str, Any] = {
    "schema": 1,
    "model": {"name": "core/transformer", "width": 16, "params": {"depth": 1, "heads": 2}},
    "data": {"name": "core/digits", "params": {}},
    "trainer": {"max_steps": 2, "eval_every_steps": 1},
    "callbacks": {"progress": None},
}


def refuses(model: nn.Module, config: None) -> nn.Module:
    raise ValueError("this model has no left side")


def replaces(model: nn.Module, config: None) -> nn.Module:
    return nn.Sequential(model)


def remarks(model: nn.Module, config: None) -> zp.Transformed:
    return zp.Transformed(model=model, notes=("two layers were left alone",))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    module: Any = types.ModuleType(__name__)
    module.__zoo_api__ = 1
    specs = tuple(
        zp.TransformSpec(name=name, target=f"{__name__}:{name}")
        for name in ("refuses", "replaces", "remarks")
    )
    module.zoo_components = zp.hookimpl(lambda: specs, specname="zoo_components")
    found = Catalogue()
    for id, plugin in {"core": zoo.core, "sab": saboteurs, "odd": module}.items():
        assert found.add(plugin, id=id).problems == []
    return found


def plan_of(catalogue: Catalogue, *names: str) -> Plan:
    return resolve(
        catalogue,
        model=catalogue.part("model", "core/transformer", {"depth": 1, "heads": 2}),
        width=16,
        dataset=catalogue.part("dataset", "core/digits"),
        transforms=[catalogue.part("transform", name) for name in names],
    )


@pytest.fixture
def model(catalogue: Catalogue) -> Model:
    torch.manual_seed(0)
    return build_model(plan_of(catalogue, "scale"), catalogue=catalogue).eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


# -- recipes and plans -------------------------------------------------------------------------


def test_a_recipe_applies_them_in_the_order_written_and_null_takes_one_away(catalogue: Catalogue) -> None:
    recipe = {**RECIPE, "transforms": {"odd/remarks": {}, "scale": {}, "sab/freezes": {}}}
    loaded = load_recipe(recipe, ["transforms.sab/freezes=null"], catalogue=catalogue)
    assert [part.id for part in loaded.plan.transforms] == ["odd/remarks", "sab/scale"]
    assert loaded.plan.describe().endswith(", transformed by odd/remarks, sab/scale")
    assert loaded.notes == ("transforms.sab/freezes is null, so it is left out ({} would mean its defaults)",)


def test_what_is_rendered_is_the_same_recipe(catalogue: Catalogue, tmp_path: Path) -> None:
    loaded = load_recipe({**RECIPE, "transforms": {"scale": {}}}, catalogue=catalogue)
    rendered = tmp_path / "again.yaml"
    rendered.write_text(loaded.render())
    assert "transforms:\n  sab/scale: {}" in rendered.read_text()
    again = load_recipe(rendered, catalogue=catalogue)
    assert again.plan == loaded.plan and again.render(comments=False) == loaded.render(comments=False)


def test_a_plan_survives_json(catalogue: Catalogue) -> None:
    plan = plan_of(catalogue, "scale", "remarks")
    assert Plan.from_dict(catalogue, plan.to_dict()) == plan
    old = plan_of(catalogue).to_dict()
    del old["transforms"]  # as files say that were written before there were any
    assert Plan.from_dict(catalogue, old) == plan_of(catalogue)


def test_a_run_trains_saves_resumes_and_loads_them(catalogue: Catalogue, tmp_path: Path) -> None:
    recipe = {**RECIPE, "transforms": {"scale": {}, "remarks": {}}, "output": {"dir": str(tmp_path)}}
    result = train(load_recipe(recipe, catalogue=catalogue), quiet=True)
    assert result.run is not None
    trained = load_weights(result.run.weights, catalogue=catalogue)
    assert [part.id for part in trained.plan.transforms] == ["sab/scale", "odd/remarks"]
    assert trained.state_dict()[FACTOR] != 1.5
    with pytest.raises(ZooError, match="unknown transform 'sab/scale'"):
        resume(result.run, ["trainer.max_steps=3"])  # where the plugin is not installed


def test_notes_are_said_before_training(
    catalogue: Catalogue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {**RECIPE, "transforms": {"remarks": {}}, "output": {"dir": str(tmp_path)}}
    train(load_recipe(recipe, catalogue=catalogue))
    assert "note: odd/remarks: two layers were left alone" in capsys.readouterr().err


# -- models ------------------------------------------------------------------------------------


def test_a_plan_builds_and_a_file_gives_back(
    catalogue: Catalogue, model: Model, x: torch.Tensor, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.get_parameter(FACTOR).fill_(3.0)
    for _ in range(2):  # as built, then with another head, which is transformed too
        save_weights(model, tmp_path / "model.safetensors", catalogue=catalogue)
        again = load_weights(tmp_path / "model.safetensors", catalogue=catalogue)
        assert FACTOR in again.state_dict() and again.plan == model.plan
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
        model.reset_head(7, catalogue=catalogue)
    assert model(x).shape == (3, 7)


def test_a_model_of_the_zoo_records_what_is_applied(catalogue: Catalogue) -> None:
    model = build_model(plan_of(catalogue), catalogue=catalogue)
    with pytest.warns(UserWarning, match="odd/remarks: two layers were left alone"):
        assert apply_transform(model, "remarks", catalogue=catalogue) is model
    apply_transform(model, "scale", catalogue=catalogue)
    assert [part.id for part in model.plan.transforms] == ["odd/remarks", "sab/scale"]
    assert model.notes == ("odd/remarks: two layers were left alone",)


def test_a_strangers_model_is_transformed_and_folded_by_name(catalogue: Catalogue) -> None:
    mine = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    x, plain = torch.randn(5, 4), {name: t.clone() for name, t in mine.state_dict().items()}
    apply_transform(mine, "scale", catalogue=catalogue)
    expected = mine(x)
    with pytest.raises(ZooError, match="name the transforms to fold"):
        fold_transforms(mine, catalogue=catalogue)
    fold_transforms(mine, "scale", catalogue=catalogue)
    assert mine.state_dict().keys() == plain.keys()
    torch.testing.assert_close(mine(x), expected)
    torch.testing.assert_close(mine[2].weight, 1.5 * plain["2.weight"])


def test_applied_twice_it_is_recorded_and_folded_once(
    catalogue: Catalogue, model: Model, x: torch.Tensor
) -> None:
    expected, before = model(x), model.plan
    apply_transform(model, "scale", catalogue=catalogue)
    assert model.plan == before
    fold_transforms(model, catalogue=catalogue)
    assert model.plan == plan_of(catalogue)
    torch.testing.assert_close(model(x), expected)


def test_a_folded_model_saves_and_loads_as_a_plain_one(
    catalogue: Catalogue, model: Model, x: torch.Tensor, tmp_path: Path
) -> None:
    expected = model(x)
    fold_transforms(model, catalogue=catalogue)
    assert model.plan == plan_of(catalogue)
    save_weights(model, tmp_path / "model.safetensors", catalogue=catalogue)
    again = load_weights(tmp_path / "model.safetensors", catalogue=catalogue)
    assert FACTOR not in again.state_dict()
    torch.testing.assert_close(again(x), expected)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, c: apply_transform(m, "scael", catalogue=c), "Did you mean 'scale'"),
        (lambda m, c: apply_transform(m, "scale", catalogue=c, factor=2), "takes no parameters"),
        (lambda m, c: apply_transform(m, "refuses", catalogue=c), "cannot be applied.*no left side"),
        (
            lambda m, c: apply_transform(m, "replaces", catalogue=c),
            "gave back Sequential, expected the",
        ),
        (lambda m, c: fold_transforms(m, "remarks", catalogue=c), "'odd/remarks' was not applied"),
        (lambda m, c: fold_transforms(nn.Linear(1, 1), "remarks", catalogue=c), "it has no plain form"),
    ],
)
def test_mistakes_are_sentences_and_change_nothing(
    call: Any, says: str, catalogue: Catalogue, model: Model, x: torch.Tensor
) -> None:
    expected, plan = model(x), model.plan
    with pytest.raises(ZooError, match=says):
        call(model, catalogue)
    assert model.plan == plan
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)


def test_the_optimiser_gets_what_a_transform_adds_without_decay(catalogue: Catalogue, model: Model) -> None:
    from zoo.training.optim import build_optimizer

    groups = build_optimizer(model, name="sgd", lr=0.1, weight_decay=0.1, params={}).param_groups
    factor = model.get_parameter(FACTOR)
    (decay,) = (g["weight_decay"] for g in groups if any(p is factor for p in g["params"]))
    assert decay == 0
