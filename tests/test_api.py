"""The Python API, as a notebook would use it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
import zoo.plugin as zp
from zoo.api import plan_model
from zoo.layers import save_weights

# ruff: noqa: E501 (a table of messages)

SMALL: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2}
TINY_RECIPE = {
    "schema": 1,
    "model": {"name": "core/mlp_net", "width": 16, "params": {"depth": 1}},
    "data": {"name": "core/wine"},
    "trainer": {"max_epochs": 1},
    "callbacks": {"progress": None},
}


def test_everything_promised_is_there_and_lazy() -> None:
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    assert set(dir(zoo)) == set(zoo.__all__)
    with pytest.raises(AttributeError, match="module 'zoo' has no attribute 'nothing'"):
        zoo.nothing  # noqa: B018
    code = "import sys, zoo; assert not {'torch', 'omegaconf', 'zoo.api'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_public_functions_hide_no_arguments() -> None:
    """Only what a component takes by name may come as keywords."""
    for name in zoo.__all__:
        if inspect.isfunction(function := getattr(zoo, name)):
            assert function.__doc__
            kinds = {
                p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD
            }
            assert kinds <= {"overrides", "params"}


def test_listing_filters() -> None:
    everything = zoo.list_models()
    assert {"core/transformer", "core/mlp_net"} <= set(everything) and everything == sorted(everything)
    assert zoo.list_models("core/*", accepts="vector") == ["core/mlp_net"]
    assert "core/mlp_net" not in zoo.list_models(causal="optional")
    assert "core/transformer" in zoo.list_models(streaming=True, tag="baseline")
    assert "core/mlp_net" not in zoo.list_models(dataset="sotu_small")
    assert set(zoo.list_models(dataset="core/wine")) <= set(everything)
    assert zoo.list_models("nothing/*") == []
    texts = zoo.list_datasets(inputs="ids", targets="next_id")
    assert {"core/associative_recall", "core/copy", "core/passkey", "core/sotu_small"} <= set(texts)
    assert not {"core/digits", "core/wine", "core/japanese_vowels"} & set(texts)
    assert "core/digits" in zoo.list_datasets("dig*")
    assert "core/digits" in zoo.list_recipes()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: zoo.list_models(accepts="token"), "accepts must be one of tokens, vector, image, got 'token'. Did you"),
        (lambda: zoo.list_models(causal="yes"), "causal must be one of never, optional, always"),
        (lambda: zoo.list_datasets(inputs="images"), "Did you mean 'image'?"),
        (lambda: zoo.list_models(dataset="digts"), "unknown dataset 'digts'. Did you mean 'digits'"),
        (lambda: zoo.create_model("transfomer", dataset="digits"), "Did you mean 'transformer'"),
        (lambda: zoo.create_model("core/transformer"), "give either a dataset, or both inputs= and targets="),
        (lambda: zoo.create_model("core/transformer", dataset="digits", dept=2), "Did you mean 'depth'?"),
        (lambda: zoo.create_model("core/transformer", dataset="digits", width=30), "4 heads do not divide width 30"),
        (lambda: zoo.create_model("core/mlp_net", dataset="sotu_small"), "sees both directions"),
        (lambda: zoo.create_model("core/mlp_net", dataset="wine", preset="x"), "has no preset 'x'"),
        (lambda: zoo.create_model("core/transformer", dataset="digits", stem={"nam": "x"}), "there is no key 'nam' here"),
        (lambda: zoo.create_model("core/transformer", dataset="digits", head="core/next_id"), "What works here: 'core/pooled_classifier'"),
        (lambda: zoo.create_dataset("sotu_small", length=0), "must be at least 2, got 0"),
        (lambda: zoo.create_dataset("wine", seed=0), "takes no parameters"),
        (lambda: zoo.load_recipe("core/digts"), "digits"),
        (lambda: zoo.load_recipe("core/digits", ["seed=-1"]), "must be at least 0, got -1"),
        (lambda: zoo.load_model("no/such/run"), "no/such/run"),
        (lambda: zp.Image(channels=0, height=8, width="8"), "Image.channels: must be at least 1, got 0; Image.width: expected a whole number"),  # type: ignore[arg-type]
        (lambda: zp.Classes(count=3, names=("a",)), "Classes.names: are 1, but there are 3 classes"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(call: Any, says: str) -> None:
    with pytest.raises((zoo.ZooError, ValueError)) as caught:
        call()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "batch"),
    [
        (zp.Image(channels=3, height=9, width=6), torch.randn(2, 3, 9, 6)),
        (zp.Ids(vocab=7, length=5), torch.randint(7, (2, 5))),
        (zp.Series(channels=3, length=5), torch.randn(2, 5, 3)),
        (zp.Vector(features=4), torch.randn(2, 4)),
    ],
)
@pytest.mark.parametrize("name", ["core/transformer", "core/mlp_net"])
def test_create_model_for_given_kinds(name: str, inputs: zp.DataKind, batch: torch.Tensor) -> None:
    options = SMALL if name == "core/transformer" else {"width": 16, "depth": 1}
    model = zoo.create_model(name, inputs=inputs, targets=zp.Classes(count=3), **options)
    outputs = model(batch)
    assert outputs.shape == (2, 3) and model.num_features == 16
    outputs.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_create_model_for_a_dataset_takes_its_batches() -> None:
    model = zoo.create_model("core/transformer", dataset="digits", **SMALL).eval()
    example = zoo.create_dataset("digits").test[0]
    batch = example["input"][None]
    outputs = model(batch)
    assert outputs.shape == (1, 10)
    features, mask = model.forward_features(batch)
    torch.testing.assert_close(model.forward_head(features, mask=mask), outputs)


def test_a_model_of_the_next_symbol_is_causal_without_asking() -> None:
    torch.manual_seed(0)
    model = zoo.create_model(
        "core/transformer", inputs=zp.Ids(vocab=9, length=6), targets=zp.NextId(vocab=9), **SMALL
    ).eval()
    ids = torch.randint(9, (1, 6))
    other = ids.clone()
    other[0, -1] = (ids[0, -1] + 1) % 9
    assert model.plan.causal
    torch.testing.assert_close(model(ids)[:, :-1], model(other)[:, :-1])
    assert not torch.equal(model(ids)[:, -1], model(other)[:, -1])


def test_parts_are_pinned_by_name_or_with_parameters() -> None:
    plan = plan_model(
        "core/transformer",
        dataset={"name": "sotu_small", "params": {"length": 64}},
        head={"name": "core/next_id", "params": {"tied": True}},
        stem="embedding",
    )
    assert plan.tokens == 64 and plan.head.config.tied and plan.stem and plan.stem.id == "core/embedding"


def test_what_create_model_says_is_what_plan_model_says() -> None:
    model = zoo.create_model("core/transformer", dataset="digits", width=16, depth=2, heads=2)
    assert model.plan == plan_model(
        "core/transformer", dataset="digits", width=16, params={"depth": 2, "heads": 2}
    )


def test_a_saved_model_loads_and_answers_the_same(tmp_path: Path) -> None:
    model = zoo.create_model("core/mlp_net", dataset="wine", width=16, depth=1).eval()
    save_weights(model, tmp_path / "model.safetensors")
    loaded = zoo.load_model(tmp_path / "model.safetensors")
    rows = torch.randn(3, 13)
    assert not loaded.training
    torch.testing.assert_close(loaded(rows), model(rows), rtol=0, atol=0)


def test_datasets_take_parameters() -> None:
    splits = zoo.create_dataset("core/copy", length=40, examples=8, eval_examples=4)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (8, 4, 4)
    assert splits.train[0]["input"].shape == (40,)


def test_train_a_mapping_and_load_what_came_out(tmp_path: Path) -> None:
    recipe = zoo.load_recipe({**TINY_RECIPE, "output": {"dir": str(tmp_path)}}, ["seed=3"])
    assert recipe.recipe.seed == 3
    result = zoo.train(recipe, quiet=True)
    assert result.run is not None and result.metrics["test/accuracy"] >= 0
    model = zoo.load_model(result.run.path)
    assert model.plan == recipe.plan
    assert torch.isfinite(model(torch.randn(3, 13))).all()
    # Training imported a package; the function must still be one.
    with pytest.raises(zoo.ZooError, match=r"overrides go to load_recipe"):
        zoo.train(recipe, ["seed=4"])


def test_a_run_is_found_scored_continued_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {**TINY_RECIPE, "title": "tiny"}
    done = zoo.train(recipe, quiet=True)
    run = zoo.find_run()
    assert done.run is not None and run.path.resolve() == done.run.path.resolve()
    assert zoo.find_run(run) is run and zoo.find_run("python").path == run.path
    assert zoo.evaluate(run, quiet=True).metrics == pytest.approx(dict(done.metrics))
    assert set(zoo.evaluate("latest", split="val").metrics) >= {"val/accuracy", "val/loss"}
    further = zoo.resume("latest", ["trainer.max_epochs=2"], quiet=True)
    assert further.step == 2 * done.step
    rows = torch.stack([zoo.create_dataset("wine").test[i]["input"] for i in range(3)])
    Path("rows.csv").write_text("\n".join(",".join(f"{v:f}" for v in row) for row in rows.tolist()))
    answers = zoo.predict(run.path, "rows.csv")
    assert len(answers) == 3 and {"class", "probability"} <= set(answers[0])
    with pytest.raises(zoo.ZooError, match="there is no split"):
        zoo.evaluate(run, split="tset")  # type: ignore[arg-type]


@pytest.mark.slow
def test_types_reach_a_users_script(tmp_path: Path) -> None:
    """What is public is typed, and what does not exist is told: a module's `__getattr__` would hide both."""
    script = tmp_path / "script.py"
    script.write_text(
        "import zoo\nimport zoo.layers\n"
        "losses: list[float] = [zoo.evaluate('latest').metrics['test/loss']]\n"
        "version: str = zoo.__version__\n"
        "zoo.create_modle\n"
        "zoo.layers.Transfomer\n"
    )
    options = ["--strict", "--no-error-summary", "--hide-error-context", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    told = [line.partition(": error: ")[2] for line in done.stdout.splitlines() if ": error: " in line]
    assert len(told) == 2 and "create_modle" in told[0] and "Transfomer" in told[1], done.stdout


def test_a_misspelt_name_is_suggested_by_python() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import zoo; zoo.create_modle"], capture_output=True, text=True
    )
    assert "Did you mean: 'create_model'?" in done.stderr
