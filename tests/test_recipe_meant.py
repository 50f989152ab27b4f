"""What a recipe's author meant: keys out of place, names nearly right, settings for something else."""

from __future__ import annotations

from typing import Any

import pytest

from zoo.errors import close_names, suggest_id
from zoo.recipe import Report, load_recipe, validate

DIGITS: dict[str, Any] = {
    "schema": 1,
    "model": {
        "name": "core/transformer",
        "width": 32,
        "stem": {"name": "core/patches", "params": {"patch": 2}},
        "head": {"name": "core/pooled_classifier", "params": {"pool": "max"}},
    },
    "data": {"name": "core/digits"},
    "task": {"params": {"label_smoothing": 0.1}, "monitor": "val/accuracy", "mode": "max"},
    "expect": {"metric": "test/accuracy", "at_least": 0.9, "measured_on": "2026-11-28, here"},
}


def says(*overrides: str, recipe: Any = DIGITS) -> str:
    report: Report = validate(recipe, overrides)
    return "\n".join(mistake.message for mistake in report.mistakes)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("lr=3", "'optim.lr'?"),
        ("trainer.lr=3", "'optim.lr'?"),
        ("epochs=3", "'trainer.max_epochs'?"),
        ("depth=3", "'model.params.depth'?"),
        ("model.depth=3", "'model.params.depth'?"),  # not 'width', which resembles it
        ("stem.name=core/patches", "'model.stem'?"),  # not 'schema'
        ("model.params.width=3", "'model.width'?"),
        ("model.pool=max", "'model.head.params.pool'?"),
        ("model.dpeth=3", "'model.params.depth'?"),
        ("patience=3", "'callbacks.early_stopping.patience'?"),
        ("seeds=3", "'seed'?"),  # not expect.seeds: the nearer one
        ("model.params.num_heads=3", "'heads'?"),
    ],
)
def test_a_key_out_of_place_is_told_its_place(override: str, meant: str) -> None:
    key = override.partition("=")[0].rpartition(".")[2].removesuffix(".name")
    message = says(override)
    assert message.endswith(f"Did you mean {meant}"), message
    assert "there is no key" in message and (key in message or "stem" in message)


def test_a_key_that_resembles_nothing_is_told_all_there_is() -> None:
    assert "There is: callbacks, data, expect, model, optim" in says("zebra=3")


@pytest.mark.parametrize("override", ["model=kan/kan", "data=wine", "optim=sgd", "task=regression"])
def test_a_name_in_place_of_a_section_is_told_how_to_write_it(override: str) -> None:
    assert f"As a mapping: {{name: {override.partition('=')[2]}}}." in says(override)


def test_a_callback_is_not_switched_on_by_true() -> None:
    assert "got true. For its defaults, write {}." in says("callbacks.ema=true")


def test_names_inside_of_a_models_parameters_are_reported_with_all_other_mistakes() -> None:
    message = says("model.params.layers=[softmx]", "model.params.feed_forward=swigluu", "data.name=digts")
    for name in ("softmax", "swiglu", "digits"):
        assert f"Did you mean '{name}'" in message


@pytest.mark.parametrize("version", [">9", ">=9", ">9,<10"])
def test_a_version_on_the_command_line_is_no_block_of_text(version: str) -> None:
    assert f"needs archzoo {version}, but" in says(f"plugins.zoo={version}")


def test_what_suits_another_kind_of_data_gives_way_with_a_note() -> None:
    loaded = load_recipe(DIGITS, ["data.name=diabetes"])
    plan = loaded.plan
    assert (plan.stem and plan.stem.id, plan.head.id) == ("core/features", "core/pooled_regressor")
    assert plan.task and (plan.task.id, plan.monitor) == ("core/regression", "val/mse")
    assert loaded.recipe.expect is None
    notes = "\n".join(loaded.notes)
    for path in ("model.stem", "model.head", "task", "expect"):
        assert f"{path} (<python>) is dropped" in notes
    load_recipe({**DIGITS, "schema": 1}, ["data.name=diabetes"]).render()


def test_what_suits_the_other_data_too_stays() -> None:
    loaded = load_recipe(DIGITS, ["data.name=mnist1d", "model.params.depth=1"])  # a series with classes
    assert loaded.plan.stem and loaded.plan.stem.id != "core/patches"
    assert loaded.plan.head.config.pool == "max" and loaded.plan.task
    assert loaded.plan.task.config.label_smoothing == 0.1


def test_what_suits_another_kind_of_model_gives_way() -> None:
    loaded = load_recipe(DIGITS, ["model.name=timm/test_vit"])
    assert loaded.plan.stem is None and loaded.plan.head.id == "core/image_classifier"


def test_what_is_asked_for_in_the_same_breath_is_not_dropped() -> None:
    message = says("data.name=diabetes", "model.head.name=core/pooled_classifier")
    assert "head 'core/pooled_classifier' turns tokens into classes, but here" in message


@pytest.mark.parametrize(
    ("override", "holds"),
    [
        ("seed=3", True),
        ("output.dir=elsewhere", True),
        ("data.workers=2", True),
        ("model.width=32", True),  # what it is
        ("trainer.max_steps=20", False),
        ("optim.lr=0.5", False),
        ("callbacks.ema.decay=0.5", False),
        ("model.params.layers=[aaren]", False),
    ],
)
def test_an_expectation_holds_for_the_recipe_as_it_stands(override: str, holds: bool) -> None:
    loaded = load_recipe(DIGITS, [override])
    assert (loaded.recipe.expect is not None) is holds
    assert any("expect" in note for note in loaded.notes) is not holds


IDS = ("a/encoder", "b/encoder", "b/digits", "a/pooled_classifier", "b/pooled_regressor")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("encodr", " Did you mean 'a/encoder' or 'b/encoder'?"),  # the short name would be refused
        ("a/encodr", " Did you mean 'a/encoder' or 'b/encoder'?"),
        ("digts", " Did you mean 'digits'?"),  # once, not by its full name as well
        ("a/digits", " Did you mean 'b/digits'?"),
        ("pooled", " Did you mean 'pooled_classifier' or 'pooled_regressor'?"),
        ("b", " Plugin 'b' has: b/digits, b/encoder, b/pooled_regressor."),
        ("zzz", ""),
    ],
)
def test_suggested_names_are_understood(name: str, hint: str) -> None:
    assert suggest_id(name, IDS) == hint


def test_names_that_begin_alike_follow_those_that_are_close() -> None:
    assert close_names("poo", ["pooled_classifier", "pool", "spool"]) == [
        "pool",
        "spool",
        "pooled_classifier",
    ]
