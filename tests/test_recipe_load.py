"""The whole way: a recipe with its plan, rendered to a fixed point, checked in no time, never a traceback."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from zoo.catalogue import Catalogue, Plugin, catalogue
from zoo.errors import UnknownName
from zoo.recipe import RecipeError, find, find_recipe, list_recipes, load_recipe, optimisers, validate
from zoo.recipe.schema import Recipe, defaults
from zoo.recipe.version import unmet

SHARED = """\
schema: 1
data: {batch_size: 128}
optim: {name: adamw, lr: 1.0e-3, weight_decay: 0.05}
callbacks: {progress: {}, early_stopping: {patience: 3}}
"""
RECIPE = """\
# A transformer on digits.
schema: 1
include: [_shared.yaml]
title: "Digits: \\u2603 #1"
paper: https://arxiv.org/abs/1706.03762
plugins: {zoo: ">=0.1,<1", timm: ">=1.0"}
seed: 7
model:
  name: transformer
  width: 64
  params:
    depth: 3
    heads: 4
  stem: {name: core/patches, params: {patch: 2}}
data:
  name: digits
task: {params: {label_smoothing: 0.1}}
optim: {lr: 2e-3, params: {betas: [0.9, 1e-5], note: "no", text: '\\${x}'}}
schedule: {name: cosine, warmup_steps: 20}
trainer:
  max_steps: 50
  precision: ${oc.env:ZOO_PRECISION,32-true}
  extra: {detect_anomaly: true}
callbacks:
  early_stopping: null
  ema: {decay: 0.99}
output:
  dir: runs/${model.width}
  tags: [vision, "12:30", "on", "010", "", "null", " x", "x: y", "1e3", "é", "\\x07"]
expect: {metric: test/accuracy, at_least: 0.5, seeds: 3, measured_on: "2026-01-31, 2 CPU cores"}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("_shared.yaml").write_text(SHARED)
    Path("tiny.yaml").write_text(RECIPE)
    return Path("tiny.yaml")


def test_a_recipe_is_typed_planned_and_frozen(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_PRECISION", "bf16-mixed")
    loaded = load_recipe(recipe, ["seed=8"])
    assert isinstance(loaded.recipe, Recipe)
    assert loaded.name == "tiny" and loaded.text == RECIPE
    assert [source.name for source in loaded.sources] == ["tiny.yaml", "_shared.yaml"]
    assert loaded.recipe.seed == 8
    assert loaded.recipe.data.batch_size == 128
    assert loaded.recipe.trainer.precision == "bf16-mixed"
    assert loaded.recipe.trainer.max_epochs is None
    assert loaded.recipe.output.dir == "runs/64"
    assert loaded.recipe.optim.params["text"] == "${x}"
    assert loaded.recipe.callbacks.ema is not None and loaded.recipe.callbacks.early_stopping is None
    plan = loaded.plan
    assert plan.model.id == "core/transformer" and plan.model.config.depth == 3 and plan.width == 64
    assert plan.stem is not None and plan.stem.config.patch == 2 and plan.tokens == 16
    assert plan.task is not None and plan.task.config.label_smoothing == 0.1
    assert (plan.monitor, plan.mode) == ("val/accuracy", "max")
    assert str(loaded.origins["seed"]) == "command line override (seed=8)"
    assert str(loaded.origins["data.batch_size"]) == "_shared.yaml:2:8"
    assert str(loaded.origins["trainer.precision"]) == "tiny.yaml:22:3, from ZOO_PRECISION"
    assert "paper" in loaded.origins and "workers" not in loaded.origins
    with pytest.raises(FrozenInstanceError):
        loaded.recipe.seed = 9  # type: ignore[misc]


def test_neither_epochs_nor_steps_means_ten_epochs() -> None:
    assert load_recipe(SMALL).recipe.trainer.max_epochs == 10


SMALL: dict[str, Any] = {
    "schema": 1,
    "model": {"name": "core/transformer", "params": {"depth": 1}},
    "data": {"name": "core/digits"},
}


def test_a_mapping_is_a_recipe_too(recipe: Path) -> None:
    loaded = load_recipe(SMALL, ["trainer.max_steps=3"])
    assert loaded.name == "python" and loaded.plan.model.config.depth == 1
    assert load_recipe(loaded_from_text(loaded.text)).plan == loaded.plan
    assert load_recipe({**SMALL, "include": ["_shared.yaml"]}).recipe.data.batch_size == 128
    with pytest.raises(RecipeError, match=r"<python>: model\.width: must be at least 1, got 0"):
        load_recipe({**SMALL, "model": {"name": "core/transformer", "width": 0}})
    with pytest.raises(RecipeError, match="not plain data"):
        load_recipe({**SMALL, "title": object()})


def loaded_from_text(text: str) -> Path:
    path = Path("again.yaml")
    path.write_text(text)
    return path


def test_the_task_of_the_recipe_decides_what_is_monitored() -> None:
    loaded = load_recipe({**SMALL, "task": {"monitor": "val/loss", "mode": "min"}})
    assert (loaded.plan.monitor, loaded.plan.mode) == ("val/loss", "min")


# -- rendering ---------------------------------------------------------------------------------


def test_a_model_sees_the_future_or_not_as_the_recipe_says() -> None:
    for override, causal in (((), False), (("model.causal=true",), True)):
        loaded = load_recipe("core/italy_power_demand", override)
        assert loaded.plan.causal is causal
        assert f"  causal: {'true' if causal else 'null'}\n" in loaded.render(comments=False)
    for name, override, reason in (
        ("aaren/digits", "model.causal=false", "is always causal"),
        ("core/breast_cancer", "model.causal=true", "cannot be built causal"),
        ("core/hawkes", "model.causal=false", "the answer would leak"),
    ):
        with pytest.raises(RecipeError, match=reason):
            load_recipe(name, [override])


def test_rendering_is_a_fixed_point(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_PRECISION", "16-mixed")
    loaded = load_recipe(recipe, ["optim.weight_decay=1e-5", "data.workers=2"])
    monkeypatch.delenv("ZOO_PRECISION")
    Path("resolved.yaml").write_text(loaded.render())
    again = load_recipe("resolved.yaml")
    assert again.render(comments=False) == loaded.render(comments=False)
    assert again.plan == loaded.plan
    # Names are spelt out and the contract's choices pinned; apart from that the sections are the same.
    for section in (
        "title",
        "paper",
        "plugins",
        "seed",
        "optim",
        "schedule",
        "trainer",
        "callbacks",
        "output",
    ):
        assert getattr(again.recipe, section) == getattr(loaded.recipe, section)
    assert again.recipe.model.head is not None


def test_each_line_of_a_rendered_recipe_says_where_its_value_comes_from(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_PRECISION", "64-true")
    text = load_recipe(recipe, ["seed=8"]).render()
    remarks = dict(re.findall(r"^ *(\w+): .*?  # (.*)$", text, re.MULTILINE))
    assert remarks["seed"] == "command line override (seed=8)"
    assert remarks["batch_size"] == "_shared.yaml:2:8"
    assert remarks["precision"] == "tiny.yaml:22:3, from ZOO_PRECISION"
    assert remarks["monitor"] == "contract"
    assert remarks["devices"] == "default"
    for line in text.splitlines():
        assert not line or line.startswith("#") or line.endswith(":") or "  # " in line


def test_remarks_cannot_smuggle_in_lines(recipe: Path) -> None:
    text = load_recipe(recipe, ['title="a\nseed: 99"']).render()
    Path("resolved.yaml").write_text(text)
    assert load_recipe("resolved.yaml").recipe.seed == 7


@pytest.mark.parametrize("path", [file.path for file in list_recipes()], ids=lambda path: str(path.name))
def test_every_shipped_recipe_is_right_and_renders_to_a_fixed_point(path: Path, tmp_path: Path) -> None:
    loaded = load_recipe(path)
    again = tmp_path / "resolved.yaml"
    again.write_text(loaded.render())
    assert load_recipe(again).render(comments=False) == loaded.render(comments=False)


# -- reports -----------------------------------------------------------------------------------


def test_the_report_counts_mistakes_by_level(recipe: Path) -> None:
    report = validate(recipe, ["optim.nme=x", "model.params.depth=0", "data.name=digit", "title=no"])
    assert not report.ok and report.loaded is None
    assert report.levels == (
        ("syntax", "1 mistake"),
        ("schema", "1 mistake"),
        ("names and versions", "1 mistake"),
        ("parameters", "1 mistake"),
        ("contract", "not reached"),
    )
    assert json.loads(json.dumps(report.to_dict()))["mistakes"][0]["path"]
    good = validate(recipe)
    assert good.ok and {outcome for _, outcome in good.levels} == {"ok"}
    assert "core/transformer" in str(good)


def test_one_place_is_reported_once(recipe: Path) -> None:
    report = validate(recipe, ["optim.lr=12:30", "seed=${nowhere}"])
    assert [mistake.path for mistake in report.mistakes] == ["optim.lr", "seed"]


def test_what_an_unreadable_include_may_have_said_is_not_missed(recipe: Path) -> None:
    Path("half.yaml").write_text("schema: 1\ninclude: [broken.yaml]\ndata: {name: digits, zebra: 1}\n")
    Path("broken.yaml").write_text("model: {name: transformer\n")
    report = validate("half.yaml")
    assert [mistake.origin.source.name for mistake in report.mistakes] == ["broken.yaml", "half.yaml"]
    assert report.mistakes[1].path == "data.zebra"


def test_five_mistakes_cost_no_torch(recipe: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("max_steps: 50", "max_epoch: 50").replace("seed: 7", "seed: seven")
    text = text.replace("depth: 3", "dept: 3").replace("name: digits", "name: digitz")
    text = text.replace("core/patches", "core/patch").replace("dir: runs", "dri: runs")
    Path("five.yaml").write_text(text)
    code = (
        "import sys\nfrom zoo.recipe import validate\nprint(validate('five.yaml'))\n"
        "print('loaded:', {'torch', 'timm', 'torchvision', 'pytorch_lightning'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.stderr == "" and "loaded: set()" in result.stdout
    for path in (
        "trainer.max_epoch",
        "seed",
        "model.params.dept",
        "data.name",
        "model.stem.name",
        "output.dri",
    ):
        assert f" {path}: " in result.stdout


def test_a_recipe_cannot_name_code(recipe: Path, tmp_path: Path) -> None:
    for name in ("os.system", "os:system", "zoo.layers.transformer:Transformer", "../../x", ""):
        with pytest.raises(RecipeError, match=r"model\.name"):
            load_recipe({**SMALL, "model": {"name": name}})


# -- finding -----------------------------------------------------------------------------------


def test_recipes_are_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("toy/one", "toy/two", "kit/two", "toy/_shared"):
        path = tmp_path / "recipes" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**SMALL, "title": name}, indent=1))
    monkeypatch.setattr(find, "own_folders", lambda: (tmp_path / "recipes",))
    empty = Catalogue()
    assert [(file.name, file.title) for file in list_recipes("*", empty)] == [
        ("kit/two", "kit/two"),
        ("toy/one", "toy/one"),
        ("toy/two", "toy/two"),
    ]
    assert [file.name for file in list_recipes("t*", empty)] == ["kit/two", "toy/one", "toy/two"]
    assert find_recipe("toy/one", empty) == tmp_path / "recipes/toy/one.yaml"
    assert find_recipe("one", empty) == tmp_path / "recipes/toy/one.yaml"
    assert find_recipe("recipes/toy/one.yaml", empty) == Path("recipes/toy/one.yaml")
    for name, message in [
        ("two", "ambiguous: write 'kit/two' or 'toy/two'"),
        ("toy/ones", "Did you mean 'toy/one'"),
        ("toy/_shared", "unknown recipe"),
        ("recipes/toy/on.yaml", "Did you mean 'one.yaml'"),
        ("nowhere/a.yaml", "the folder 'nowhere' does not exist"),
        ("recipes/toy", "is a folder"),
        ("\0", "unknown recipe"),
    ]:
        with pytest.raises(UnknownName, match=re.escape(message)):
            find_recipe(name, empty)


def test_a_recipe_in_its_folder_keeps_its_full_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes" / "toy"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(json.dumps(SMALL, indent=1))
    monkeypatch.setattr(find, "own_folders", lambda: (tmp_path / "recipes",))
    assert load_recipe("toy/tiny").name == "toy/tiny"
    assert load_recipe(folder / "tiny.yaml").name == "toy/tiny"


# -- schema ------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_sections() -> None:
    assert defaults()["optim"] == {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "params": {}}
    assert defaults()["callbacks"]["checkpoint"] == {"keep": 1, "every_minutes": 10.0, "every_steps": None}
    assert "name" not in defaults()["model"] and "schema" not in defaults()


@pytest.mark.parametrize("name", ["adamw", "AdamW", "lookahead_adamw", "sgd", "muon", "bnblion"])
def test_optimisers_that_timm_may_know(name: str) -> None:
    assert optimisers.misspelt(name) == ""


def test_a_mistyped_parameter_of_an_optimiser_is_told_before_anything_runs(recipe: Path) -> None:
    good = "optim: {name: adamw, params: {betas: [0.9, 0.95], from_a_newer_timm: 1}}\n"
    Path("optim.yaml").write_text("include: [tiny.yaml]\nschema: 1\n" + good)
    assert validate("optim.yaml").mistakes == ()
    Path("optim.yaml").write_text("include: [tiny.yaml]\nschema: 1\n" + good.replace("betas", "beta"))
    (mistake,) = validate("optim.yaml").mistakes
    assert mistake.path == "optim.params.beta" and "'betas'" in mistake.message
    Path("optim.yaml").write_text("include: [tiny.yaml]\nschema: 1\n" + good.replace("betas", "weight_decay"))
    (mistake,) = validate("optim.yaml").mistakes
    assert mistake.path == "optim.params.weight_decay" and "optim.weight_decay" in mistake.message


def test_optimisers_that_timm_does_not_know_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'adamw'" in optimisers.misspelt("adamv")
    assert "'sgd'" in optimisers.misspelt("sgdd")
    assert "no optimiser 'zorgy'. There are adamw" in optimisers.misspelt("zorgy")
    assert optimisers.misspelt("name") and optimisers.misspelt("lr")  # other words of timm's file
    monkeypatch.setattr(optimisers, "_listed_by_timm", lambda: {"adamv", "zorgy"})  # a newer timm
    assert optimisers.misspelt("adamv") == optimisers.misspelt("zorgy") == ""
    monkeypatch.setattr(optimisers, "_listed_by_timm", frozenset)  # one that lists them elsewhere
    assert optimisers.misspelt("zorgy") == "" and "'sgd'" in optimisers.misspelt("sgdd")


# -- whatever is typed -------------------------------------------------------------------------


def mutant(text: str, rng: random.Random) -> str:
    """The text with one to three slips of the keyboard."""
    for _ in range(rng.randint(1, 3)):
        lines = text.splitlines(keepends=True)
        at = rng.randrange(len(text))
        words = [match.span() for match in re.finditer(r"[\w./-]+", text)]
        start, end = rng.choice(words)
        other = text[slice(*rng.choice(words))]
        kind = rng.randrange(8)
        if kind == 0:  # a line is lost
            del lines[rng.randrange(len(lines))]
            text = "".join(lines) or "x"
        elif kind == 1:  # a word is mistyped
            text = text[:start] + text[start:end][::-1] + text[end:]
        elif kind == 2:  # ... or taken from elsewhere
            text = text[:start] + other + text[end:]
        elif kind == 3:  # ... or is of another type
            word = rng.choice(
                ["null", "[]", "{}", "-1", "1e9", "no", "[1, {a: b}]", "{name: 3}", "???", "${seed}"]
            )
            text = text[:start] + word + text[end:]
        elif kind == 4:  # a character too many
            text = text[:at] + rng.choice("{}[]:,-&*!|>'\"%@`#? \n\tx0$") + text[at:]
        elif kind == 5:  # ... or too few
            text = text[:at] + text[at + 1 :] or "x"
        elif kind == 6:  # lines change places
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
            text = "".join(lines)
        else:  # another indentation
            i = rng.randrange(len(lines))
            lines[i] = " " * rng.randrange(5) + lines[i].lstrip()
            text = "".join(lines)
    return text


@pytest.mark.parametrize("seed", range(8))
def test_no_slip_of_the_keyboard_ends_in_a_traceback(seed: int, recipe: Path) -> None:
    rng = random.Random(seed)
    outcomes = {"ok": 0, "refused": 0}
    for _ in range(60):
        text = mutant(RECIPE, rng)
        recipe.write_text(text)
        try:
            loaded = load_recipe(recipe)
        except RecipeError as error:
            outcomes["refused"] += 1
            assert error.mistakes and "Error" not in str(error).replace("OmegaConfBaseException", "Error")
        else:
            outcomes["ok"] += 1
            Path("resolved.yaml").write_text(loaded.render())
            assert load_recipe("resolved.yaml").render(comments=False) == loaded.render(comments=False)
    assert min(outcomes.values()) > 0


def test_overrides_never_end_in_a_traceback(recipe: Path) -> None:
    rng = random.Random(0)
    keys = [
        "model.params.depth",
        "model",
        "optim.lr",
        "trainer",
        "a.b.c",
        "data.params",
        "callbacks.ema",
        "seed",
    ]
    values = [
        "",
        "3",
        "null",
        "[1",
        "{a: b}",
        "x: y",
        "&a *a",
        "!!x y",
        "'",
        "${seed}",
        "${",
        "no",
        "-",
        "# c",
        "\t",
    ]
    for _ in range(150):
        texts = [f"{rng.choice(keys)}={rng.choice(values)}" for _ in range(rng.randint(1, 3))]
        try:
            load_recipe(recipe, texts)
        except RecipeError as error:
            assert str(error)


def test_recipes_are_read_without_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, zoo.recipe\n"
        "names = [module.name for module in pkgutil.iter_modules(zoo.recipe.__path__)]\n"
        "[importlib.import_module('zoo.recipe.' + name) for name in names]\n"
        "print({'torch', 'timm', 'omegaconf', 'pytorch_lightning'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
    assert catalogue() is catalogue() and os.environ.get("ZOO_PLUGINS") is None


@pytest.mark.parametrize(
    ("name", "requirement", "message"),
    [
        ("toy", ">=1,<2", ""),
        ("toy", ">=1.2", "needs zoo-toy >=1.2, but 1.2rc1 is installed"),
        ("zoo_toy", ">=1", ""),
        ("zoo", ">=0.0.1", ""),
        ("timm", ">=1", ""),
        ("lost", ">=1", "plugin 'lost' is installed but not in use: no such module"),
        ("tory", ">=1", "plugin 'tory' is not installed. Did you mean 'toy'?"),
    ],
)
def test_versions_are_checked_by_metadata(name: str, requirement: str, message: str) -> None:
    found = Catalogue()
    found.plugins += [
        Plugin(id="toy", value="zoo_toy", distribution="zoo-toy", version="1.2rc1"),
        Plugin(
            id="lost", value="zoo_lost", distribution="zoo-lost", status="failed", reason="no such module"
        ),
    ]
    assert unmet(name, requirement, found).startswith(message)
    assert bool(unmet(name, requirement, found)) == bool(message)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"task": {"monitor": "val/acuracy", "mode": "max"}},
            "no metric 'val/acuracy'. ",
        ),
        ({"task": {"monitor": "train/accuracy", "mode": "max"}}, "must be a metric of the val split"),
        ({"task": {"monitor": "test/accuracy", "mode": "max"}}, "must be a metric of the val split"),
        (
            {"data": {"name": "cartpole"}, "task": {"monitor": "val/return", "mode": "max"}},
            "task.monitor: 'val/return' is scored by playing, after training, on the test split alone",
        ),
        (
            {"expect": {"metric": "val/accuracy", "at_least": 0.5, "measured_on": "2026-11-27, here"}},
            "expect.metric: must be a metric of the test split, but 'val/accuracy' is none",
        ),
    ],
)
def test_what_is_monitored_is_of_val_and_what_is_expected_of_test(sections: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe({**SMALL, **sections})


def test_returns_of_playing_can_be_expected() -> None:
    expect = {"metric": "test/return", "at_least": 475, "measured_on": "2026-11-27, here"}
    loaded = load_recipe({**SMALL, "data": {"name": "cartpole"}, "expect": expect})
    assert loaded.recipe.expect is not None and loaded.plan.monitor == "val/loss"
