"""Exports, transforms of trained models, and the hub (a folder stands for it)."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors

import zoo
import zoo.core
import zoo.plugin as zp
from tests.saboteurs import plugin as saboteurs
from zoo.catalogue import Catalogue, catalogue
from zoo.cli import main
from zoo.contract import resolve
from zoo.data.describe import describe_encoding
from zoo.errors import ZooError
from zoo.kinds import Classes, Ids, NextId, Series
from zoo.layers import build_model, front_order, load_weights, save_weights
from zoo.recipe import load_recipe
from zoo.runs import Run, create_run, open_run
from zoo.sharing import export_run, push_run
from zoo.sharing import graph as graphs
from zoo.sharing.export import check_limits
from zoo.sharing.graph import Shapes
from zoo.sharing.verify import verify
from zoo.training import evaluate, predict, resume, train, transform_run

RECIPE: dict[str, Any] = {
    "schema": 1,
    "model": {"name": "core/transformer", "width": 16, "params": {"depth": 1, "heads": 2}},
    "data": {"name": "core/digits"},
    "trainer": {"max_steps": 3, "eval_every_steps": 3},
    "callbacks": {"progress": None},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run that nobody changes; tests that write into it copy it."""
    root = tmp_path_factory.mktemp("runs")
    found = train(load_recipe({**RECIPE, "output": {"dir": str(root)}}), quiet=True).run
    assert found is not None
    return found


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    folder = tmp_path / "runs" / "python" / trained.path.name
    shutil.copytree(trained.path, folder)
    return open_run(folder)


def digits() -> torch.Tensor:
    return torch.stack([zoo.create_dataset("digits").test[i]["input"] for i in range(4)])


# -- export --------------------------------------------------------------------------------------


def test_safetensors_load_again_and_say_how_to_use_them(run: Run) -> None:
    done = export_run(run, "safetensors")
    assert done.file == run.path / "exports" / "safetensors" / "model.safetensors"
    again, own = zoo.load_model(done.file), zoo.load_model(run.path)
    assert torch.equal(again(digits()), own(digits()))
    said = json.loads((done.folder / "model.json").read_text())
    assert said["targets"]["names"] == [str(i) for i in range(10)]
    raw = torch.rand(1, 8, 8)
    scale = said["preprocessing"]
    encode = zoo.create_dataset("digits").encode
    assert encode is not None
    assert torch.allclose((raw - scale["mean"]) / scale["deviation"], encode(raw))
    assert said["verified"]["largest_error"] == 0 and said["folded"] == []


@pytest.mark.parametrize("format", ["torch-export", "onnx"])
def test_a_graph_gives_what_the_model_gives_for_any_batch(run: Run, format: graphs.GraphFormat) -> None:
    if format == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    done = export_run(run, format)
    model, x = zoo.load_model(run.path), digits()
    for batch in (1, 3, 4):
        assert torch.allclose(graphs.read(format, done.file)(x[:batch]), model(x[:batch]), atol=1e-5)
    said = json.loads((done.folder / "model.json").read_text())
    assert said["graph"]["inputs"] == [{"name": "x", "type": "float32", "shape": ["any", 1, 8, 8]}]


def test_nothing_is_overwritten_unasked(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run.path)]) == 0
    assert "model.safetensors: as the run's own model on 3 shapes" in capsys.readouterr().out
    assert main(["export", str(run.path)]) == 2
    assert "is there already: --overwrite replaces it" in capsys.readouterr().err
    assert main(["export", str(run.path), "--overwrite"]) == 0
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("all of it")
    with pytest.raises(ZooError, match="is no export of the zoo, so it is not replaced"):
        export_run(run, "safetensors", output=precious, overwrite=True)
    assert (precious / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "onx"], "no format 'onx'. Did you mean 'onnx'?"),
        (["--batch-size", "2"], "safetensors holds weights, no graph"),
        (["--format", "torch-export", "--any-length"], "image(1, 8, 8) has no length"),
        (["--format", "torch-export", "--batch-size", "0"], "batch size must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_asked_for(
    run: Run, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run.path), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (run.path / "exports").exists()


def test_onnx_names_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ZooError, match=r"ONNX needs onnxscript: pip install 'archzoo\[onnx\]'"):
        export_run(run, "onnx")


def test_a_wrong_export_is_refused_and_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "read", lambda format, path: lambda x: torch.zeros(len(x), 10))
    with pytest.raises(ZooError, match="differs from the model by"):
        export_run(run, "torch-export")
    assert list((run.path / "exports").iterdir()) == []


def test_a_known_limit_is_named() -> None:
    found = Catalogue()
    found.add(zoo.core, id="core")
    limits = {"exports": "it asks its inputs"}
    spec = next(s for s in saboteurs.HONEST if s.kind == "model")
    module: Any = type(sys)("tests.saboteurs.plugin")
    module.__zoo_api__ = 1
    limited = (type(spec)(**{**vars(spec), "known_limits": limits}),)
    module.zoo_components = zp.hookimpl(lambda: limited, specname="zoo_components")
    found.add(module, id="lim")
    plan = resolve(
        found,
        model=found.part("model", "lim/stack"),
        inputs=Series(channels=2, length=5),
        targets=Classes(count=2),
    )
    check_limits(plan, "safetensors", found)
    with pytest.raises(ZooError, match=r"'lim/stack' cannot .* known limit \(exports\): it asks its inputs"):
        check_limits(plan, "onnx", found)


def test_any_length_and_masks() -> None:
    found = catalogue()
    kinds = (
        (Ids(vocab=7, length=12), NextId(vocab=7)),
        (Series(channels=2, length=12, ragged=True), Classes(count=3)),
    )
    for inputs, targets in kinds:
        plan = resolve(
            found,
            model=found.part("model", "core/transformer", {"depth": 1, "heads": 2}),
            width=16,
            inputs=inputs,
            targets=targets,
        )
        model = build_model(plan).eval()
        shapes = Shapes.of(inputs, any_length=True)
        agreement = verify(graphs.trace(model, shapes).module(), model, plan, shapes.tried(plan))
        assert {n for _, n in agreement.tried} == {1, 2, 3, 4, 5, 6, 7, 8, 11, 12}


def test_padding_moves_alike_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) > 0.4
    mask[0], mask[1] = True, False
    expected = front_order(mask)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert torch.equal(front_order(mask), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aaren/encoder", "transnormer/llm"])
def test_series_of_any_length_become_onnx_with_their_mask(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    inputs, found = Series(channels=2, length=20, ragged=True), catalogue()
    model = found.part("model", name, {"depth": 1, "heads": 2})
    plan = resolve(found, model=model, width=16, inputs=inputs, targets=Classes(count=3))
    built, shapes = build_model(plan).eval(), Shapes.of(inputs)
    graphs.write(graphs.trace(built, shapes), "onnx", tmp_path / "model.onnx")
    read = graphs.read("onnx", tmp_path / "model.onnx")
    assert {n for n, _ in verify(read, built, plan, shapes.tried(plan)).tried} == {1, 2, 5}


# -- transforms of trained models ----------------------------------------------------------------


@pytest.fixture
def scaled(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run, in a zoo that has the plugin of the toy transform."""
    found = Catalogue()
    for id, module in {"core": zoo.core, "sab": saboteurs}.items():
        found.add(module, id=id)
    for place in ("zoo.recipe.load.default_catalogue", "zoo.layers.weights.default_catalogue"):
        monkeypatch.setattr(place, lambda: found)
    return run


def test_a_transform_makes_a_new_run_that_is_used_like_any(scaled: Run, tmp_path: Path) -> None:
    done = transform_run(scaled, "scale")
    made = done.run
    assert made.path.parent == tmp_path / "runs" / "python_scale" and made.path != scaled.path
    assert made.info["transformed"]["transform"] == "sab/scale" and made.status == "transformed"
    assert done.change > 0.01  # the toy is no identity
    again = load_weights(made.weights)
    assert [part.id for part in again.plan.transforms] == ["sab/scale"]
    assert set(evaluate(made, quiet=True).metrics) == set(scaled.info["metrics"])
    picture = tmp_path / "x.npy"
    __import__("numpy").save(picture, digits()[0].numpy() * 0 + 0.5)
    assert len(predict(made, picture)) == 1
    exported = export_run(made, "safetensors")
    assert exported.folded == ("sab/scale",)
    assert torch.allclose(load_weights(exported.file)(digits()), again(digits()), atol=1e-6)
    with pytest.raises(ZooError, match=r"'sab/scale' is applied to run .* already"):
        transform_run(made, "scale")
    with pytest.raises(ZooError, match="made by 'zoo transform' and has no training to go on with"):
        resume(made)


def test_what_cannot_be_transformed_leaves_no_run(scaled: Run, tmp_path: Path) -> None:
    for name, params, said in (
        ("scal", (), "Did you mean 'scale'"),
        ("scale", ("factor=2",), "takes no parameters"),
        ("scale", ("factor",), "reads key=value, got 'factor'"),
    ):
        with pytest.raises(ZooError, match=said):
            transform_run(scaled, name, params)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["python"]


# -- the hub -------------------------------------------------------------------------------------


class FakeHub:
    """A folder for each model, as commits would leave it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def repo_exists(self, repo: str) -> bool:
        return (self.root / repo).exists()

    def create_repo(self, repo: str, *, private: bool) -> None:
        (self.root / repo).mkdir(parents=True)

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> str:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return f"hub://{repo_id}"

    def download(self, repo: str, name: str, *, revision: str | None = None) -> str:
        response: Any = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
        if not self.repo_exists(repo):
            raise errors.RepositoryNotFoundError("404", response=response)
        if revision not in (None, "main"):
            raise errors.RevisionNotFoundError("404", response=response)
        if not (self.root / repo / name).is_file():
            raise errors.LocalEntryNotFoundError("offline")
        return str(self.root / repo / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: fake)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake.download)
    return fake


def test_pushed_and_loaded_again(run: Run, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run.path), "me/digits", "--licence", "mit"]) == 0
    assert 'zoo.load_model("hf://me/digits") loads it.' in capsys.readouterr().out
    for address in ("hf://me/digits", "hf://me/digits@main"):
        assert torch.equal(zoo.load_model(address)(digits()), zoo.load_model(run.path)(digits()))
    assert main(["push", str(run.path), "me/digits"]) == 2
    assert "is on the hub already: --update adds a commit" in capsys.readouterr().err
    assert push_run(run, "me/digits", update=True, licence="mit").where == "hub://me/digits"
    card = (hub.root / "me/digits/README.md").read_text()
    assert "license: mit" in card and "core/transformer" in card and "pip install archzoo" in card
    recipe = load_recipe(hub.root / "me/digits/recipe.yaml")
    assert recipe.plan.model == load_recipe(run.resolved).plan.model
    uploaded = "".join(
        p.read_text() for p in (hub.root / "me/digits").iterdir() if p.suffix in (".md", ".json", ".yaml")
    )
    assert str(run.path.parents[2]) not in uploaded and str(Path.home()) not in uploaded


def test_a_dry_run_writes_what_would_be_uploaded(run: Run, hub: FakeHub) -> None:
    dry = push_run(run, "me/digits", dry_run=True)
    assert set(dry.files) >= {"README.md", "model.safetensors", "model.json", "recipe.yaml"}
    assert not hub.root.exists()
    assert push_run(run, "me/digits").files == dry.files
    for name in dry.files:
        assert (Path(dry.where) / name).read_bytes() == (hub.root / "me/digits" / name).read_bytes()
    with pytest.raises(ZooError, match="is there already"):
        push_run(run, "me/digits", dry_run=True)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://digits", "called hf://owner/name"),
        ("hf:/me/digits", "called hf://owner/name"),
        ("hf://me/none", "no such model on the hub, or it is private"),
        ("hf://me/empty@v2", "has no revision 'v2'"),
        ("hf://me/empty", "not kept here from an earlier time"),
    ],
)
def test_what_cannot_be_loaded(hub: FakeHub, address: str, said: str) -> None:
    hub.create_repo("me/empty", private=False)
    with pytest.raises(ZooError, match=said):
        zoo.load_model(address)


def test_a_refusal_of_the_hub_is_a_sentence(run: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*args: Any, **kwargs: Any) -> None:
        raise PermissionError("401 Unauthorized")

    monkeypatch.setattr(FakeHub, "create_repo", refuses)
    with pytest.raises(ZooError, match=r"cannot be pushed: PermissionError: 401 .*hf auth login"):
        push_run(run, "me/digits")
    with pytest.raises(ZooError, match="is called owner/name, got 'digits'"):
        push_run(run, "digits")


def test_a_missing_plugin_is_named_with_its_package(tmp_path: Path) -> None:
    found = Catalogue()
    for id, module in {"core": zoo.core, "sab": saboteurs}.items():
        found.add(module, id=id)
    plan = resolve(
        found,
        model=found.part("model", "sab/stack"),
        inputs=Series(channels=2, length=5),
        targets=Classes(count=2),
    )
    file = tmp_path / "model.safetensors"
    save_weights(build_model(plan, catalogue=found), file, catalogue=found)
    with pytest.raises(ZooError, match=r"needs the plugin 'sab' .* not installed: pip install"):
        load_weights(file)


def test_a_run_without_weights_is_not_pushed(tmp_path: Path, hub: FakeHub) -> None:
    with pytest.raises(ZooError, match="has no weights yet"):
        push_run(create_run(tmp_path, "mine"), "me/mine")


def test_foreign_preprocessing_is_named() -> None:
    assert describe_encoding(None) is None
    assert describe_encoding(digits) == {"kind": "other", "name": f"{__name__}.digits", "summary": ""}
    text = zoo.create_dataset("sotu_small", length=32)
    said = describe_encoding(text.encode)
    assert said is not None and said["vocabulary"][1:4] == list(text.decode(torch.tensor([1, 2, 3])))  # type: ignore[misc]
