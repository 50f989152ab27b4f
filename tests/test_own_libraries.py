"""`core/torchvision` and `core/hugging_face`: data that other libraries load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.catalogue import catalogue
from zoo.contract import kinds_of
from zoo.data import collate, read_inputs
from zoo.data.own.samples import image_folder, table
from zoo.errors import ZooError
from zoo.kinds import Classes, Image, Values


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(name: str, **params: Any) -> Any:
    return zoo.create_dataset(f"core/{name}", **params)


def part(name: str, **params: Any) -> Any:
    return catalogue().part("dataset", name, params)


def kinds(name: str, **params: Any) -> Any:
    return kinds_of(catalogue(), part(name, **params))


def write_mnist(root: Path) -> None:
    """Small files as torchvision's MNIST keeps them: 40 images of train, 10 of test."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 10)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        head = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(
            b"\x00\x00\x08\x01" + count.to_bytes(4, "big") + labels.tobytes()
        )


# -- torchvision -----------------------------------------------------------------------------


def test_a_class_of_torchvision_in_a_local_folder(tmp_path: Path) -> None:
    write_mnist(tmp_path / "tv")
    given = {"dataset": "MNIST", "path": str(tmp_path / "tv"), "download": False}
    image, classes = kinds("torchvision", **given)
    assert (
        image == Image(channels=1, height=28, width=28) and classes.count == 10 and "zero" in classes.names[0]
    )
    splits = load("torchvision", **given)
    assert splits.sizes == {"train": 30, "val": 10, "test": 10}  # one of each class of train validates
    assert splits.test[3]["target"] == 3 and splits.train[0]["input"].shape == (1, 28, 28)
    pixels = torch.stack([splits.train[i]["input"] for i in range(30)])
    assert abs(pixels.mean()) < 1e-5 and abs(pixels.std() - 1) < 1e-3
    small = load("torchvision", **given, size=8, augment="flip")
    assert small.test[0]["input"].shape == (1, 8, 8)


def test_the_second_look_loads_no_torch(tmp_path: Path) -> None:
    write_mnist(tmp_path / "tv")
    given = {"dataset": "MNIST", "path": str(tmp_path / "tv"), "download": False}
    expected = kinds("torchvision", **given)[1].count
    code = (
        "import sys, zoo.data.own.library_config as c\n"
        f"count = c.TorchvisionConfig(**{given!r}).kinds()[1].count\n"
        "print(count, [n for n in ('torch', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ.copy())
    assert done.stdout.strip() == f"{expected} []", done.stderr


def test_a_mistake_in_each_parameter_of_torchvision(tmp_path: Path) -> None:
    with pytest.raises(
        ZooError, match=r"dataset: torchvision has no dataset 'CIFAR01'. Did you mean 'CIFAR10"
    ):
        kinds("torchvision", dataset="CIFAR01")
    with pytest.raises(ZooError, match=r"options.szie: FakeData has no such keyword. Did you mean 'size'"):
        kinds("torchvision", dataset="FakeData", options={"szie": 3})
    with pytest.raises(ZooError, match=r"path: there is nothing at"):
        kinds("torchvision", dataset="CIFAR10", path=str(tmp_path / "nowhere"))
    with pytest.raises(
        ZooError, match=r"MNIST cannot be found \(download: false forbids to fetch it\): RuntimeError.*Place"
    ):
        kinds("torchvision", dataset="MNIST", path=str(tmp_path), download=False)
    with pytest.raises(ZooError, match=r"size: must be at least 1"):
        part("torchvision", dataset="FakeData", size=-1)


def test_torchvision_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no network in this test")

    import urllib.request

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(ZooError, match=r"CIFAR10 cannot be downloaded: .*no network.* Place its files below"):
        kinds("torchvision", dataset="CIFAR10", path=str(tmp_path))


# -- Hugging Face ----------------------------------------------------------------------------


@pytest.fixture
def hugging_face() -> Any:
    return pytest.importorskip("datasets")


def test_tables_through_hugging_face_are_tables(tmp_path: Path, hugging_face: Any) -> None:
    params = table(tmp_path)
    one, other = load("table", **params), load("hugging_face", dataset="csv", **params)
    assert torch.equal(one.train.inputs, other.train.inputs) and torch.equal(
        one.test.targets, other.test.targets
    )
    hugging_face.Dataset.from_csv(params["path"], cache_dir=str(tmp_path / "hf")).to_parquet(
        tmp_path / "v.parquet"
    )
    third = load("hugging_face", dataset="parquet", path=str(tmp_path / "v.parquet"), target="comes_back")
    assert torch.equal(one.train.inputs, third.train.inputs)
    value = kinds("hugging_face", dataset="csv", path=params["path"], target="hours")[1]
    assert value == Values(count=1, names=("hours",))
    both = load("hugging_face", dataset="csv", **params, test_path=params["path"])
    assert both.sizes["test"] == 120
    new = read_inputs(params["path"], kinds("hugging_face", dataset="csv", **params)[0], encode=other.encode)
    assert len(new) == 120


def test_an_image_folder_through_hugging_face(tmp_path: Path, hugging_face: Any) -> None:
    params = image_folder(tmp_path)
    given = {"dataset": "imagefolder", **params}
    assert kinds("hugging_face", **given) == kinds("image_folder", **params)
    splits = load("hugging_face", **given)
    assert splits.sizes == load("image_folder", **params).sizes
    assert splits.train[0]["input"].shape == (3, 12, 16)
    assert read_inputs(
        tmp_path / "photos/left/00.png", kinds("hugging_face", **given)[0], encode=splits.encode
    )


def test_texts_with_a_class_and_texts_to_model(tmp_path: Path, hugging_face: Any) -> None:
    rows = [
        {"text": f"{'good' if i % 2 else 'bad'} {i}" * (1 + i % 3), "label": "np"[i % 2]} for i in range(60)
    ]
    (tmp_path / "t.json").write_text("\n".join(map(json.dumps, rows)))
    given = {"dataset": "json", "path": str(tmp_path / "t.json")}
    inputs, classes = kinds("hugging_face", **given, target="label", length=12)
    assert (inputs.vocab, inputs.length, inputs.ragged) == (256, 12, True) and classes == Classes(
        count=2, names=("n", "p")
    )
    splits = load("hugging_face", **given, target="label", length=12)
    example = splits.train[0]
    assert 1 <= len(example["input"]) <= 12 and splits.text
    assert collate([splits.train[i] for i in range(4)])["input"].shape[0] == 4
    words = {
        bytes(splits.train[i]["input"].tolist())[:1]: int(splits.train[i]["target"])
        for i in range(len(splits.train))
    }
    assert words == {b"b": 0, b"g": 1}
    inputs, following = kinds("hugging_face", **given, input="text", length=8, unit="character")
    assert following.unit == "character" and inputs.vocab == following.vocab < 30
    modelled = load("hugging_face", **given, input="text", length=8, unit="character")
    assert modelled.decode(modelled.test[0]["input"]).strip() and modelled.train[0]["target"].shape == (8,)


def test_offline_it_says_at_once_what_to_do(monkeypatch: pytest.MonkeyPatch, hugging_face: Any) -> None:
    from huggingface_hub import constants

    from zoo.data.own import hub

    tried: list[Any] = []

    def refuse(*address: Any, **_: Any) -> Any:
        tried.append(address)
        raise OSError("unreachable")

    monkeypatch.setattr(hub.socket, "create_connection", refuse)
    monkeypatch.setattr(hub, "getproxies", dict)
    with pytest.raises(
        ZooError,
        match=r"hub cannot be reached, and 'no/such_set' is not kept here .*hf download .*core/table",
    ):
        kinds("hugging_face", dataset="no/such_set", target="label")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ZooError, match=r"HF_HUB_OFFLINE is set, and 'no/such_set' is not kept here"):
        kinds("hugging_face", dataset="no/such_set", target="label")
    assert len(tried) == 1  # the library alone would try for 24 s, twice


def test_a_mistake_in_each_parameter_of_hugging_face(tmp_path: Path, hugging_face: Any) -> None:
    params = table(tmp_path)
    with pytest.raises(ZooError, match=r"path: is required for csv"):
        part("hugging_face", dataset="csv")
    with pytest.raises(ZooError, match=r"path: goes with a local builder .*'imdb' is a name on the hub"):
        part("hugging_face", dataset="imdb", path=params["path"])
    with pytest.raises(ZooError, match=r"target: csv has no column 'comes_bak'. Did you mean 'comes_back'"):
        kinds("hugging_face", dataset="csv", path=params["path"], target="comes_bak")
    with pytest.raises(ZooError, match=r"input: csv has no column 'citi'. Did you mean 'city'"):
        kinds("hugging_face", dataset="csv", **params, input="citi")
    with pytest.raises(ZooError, match=r"path: there is nothing at"):
        kinds("hugging_face", dataset="csv", path=str(tmp_path / "no.csv"), target="x")
    (tmp_path / "broken.json").write_text("{not json")
    with pytest.raises(ZooError, match=r"json cannot read .*broken.json: "):
        kinds("hugging_face", dataset="json", path=str(tmp_path / "broken.json"), target="x")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for name in ("hugging_face", "hub"):
        monkeypatch.delitem(sys.modules, f"zoo.data.own.{name}", raising=False)
    with pytest.raises(ZooError, match=r"pip install 'archzoo\[hf\]'"):
        kinds("hugging_face", dataset="csv", **table(tmp_path))
