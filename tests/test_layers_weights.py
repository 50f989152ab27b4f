"""Weights on disk: what is saved comes back, and what is not ours is refused with nothing executed."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import zoo.plugin as zp
from zoo.catalogue import catalogue
from zoo.contract import resolve
from zoo.layers import Model, build_model, load_weights, save_weights

IDS = zp.Ids(vocab=11, length=6)


def make(*, tied: bool = True) -> Model:
    found = catalogue()
    plan = resolve(
        found,
        model=found.part("model", "core/transformer", {"depth": 1, "heads": 2}),
        width=16,
        inputs=IDS,
        targets=zp.NextId(vocab=11, unit="character"),
        head=found.part("head", "core/next_id", {"tied": tied}),
        causal=True,
    )
    torch.manual_seed(0)
    return build_model(plan)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_weights(make(), path)
    return path


def rewrite(
    path: Path, *, header: Callable[[Any], Any] = lambda h: h, **tensors: torch.Tensor | None
) -> None:
    """The same file with another header and other tensors (`None` removes one; `__` stands for a dot)."""
    with safe_open(path, framework="pt") as file:
        held = {name: file.get_tensor(name) for name in list(file.keys())}
        written = header(json.loads(file.metadata()["archzoo"]))
    for key, tensor in tensors.items():
        held.pop(key.replace("__", "."), None)
        if tensor is not None:
            held[key.replace("__", ".")] = tensor
    metadata = (
        {} if written is None else {"archzoo": written if isinstance(written, str) else json.dumps(written)}
    )
    save_file(held, path, metadata=metadata)


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_saved_comes_back(tmp_path: Path, tied: bool) -> None:
    module, x, path = make(tied=tied), torch.randint(11, (2, 6)), tmp_path / "model.safetensors"
    save_weights(module, path)
    loaded = load_weights(path)
    assert torch.equal(loaded(x), module(x)) and not loaded.training
    assert loaded.plan == module.plan
    assert (loaded.head.linear.weight is loaded.stem.token_embedding.weight) is tied  # type: ignore[union-attr]
    assert os.listdir(tmp_path) == ["model.safetensors"]
    save_weights(loaded, path)  # over itself
    assert torch.equal(load_weights(path)(x), module(x))


def test_half_precision_is_read_into_full(tmp_path: Path) -> None:
    module, path = make().bfloat16(), tmp_path / "model.safetensors"
    save_weights(module, path)
    loaded = load_weights(path)
    assert loaded.head.linear.weight.dtype == torch.float32
    assert torch.equal(loaded.head.linear.weight, module.head.linear.weight.float())


def test_the_header_says_what_it_is(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["archzoo"])
    assert header["plan"]["model"]["id"] == "core/transformer"
    assert header["plan"]["targets"] == {"kind": "next_id", "vocab": 11, "unit": "character"}
    assert set(header["revisions"]) == {
        "stem core/embedding",
        "model core/transformer",
        "head core/next_id",
        "mixer core/softmax",
        "feed_forward core/mlp",
    }


class Bomb:
    """Touches a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "zip", "legacy"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, how: str) -> None:
    path, proof = tmp_path / "model.safetensors", tmp_path / "executed"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(proof)))
    else:
        torch.save(Bomb(proof), path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(zp.ZooError, match=r"model\.safetensors: is a pickle .*Nothing of it was executed"):
        load_weights(path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(Bomb(proof)))  # the bomb does work
    assert proof.exists()


def test_a_header_of_any_length_is_no_pickle(saved: Path) -> None:
    """The file starts with the length of its header, whose first byte may be that of a pickle."""
    seen = set()
    for size in range(0, 256, 8):
        rewrite(saved, header=edit("padding", to=" " * size))
        seen.add(saved.read_bytes()[0])
        load_weights(saved)
    assert 0x80 in seen


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_files_are_refused(saved: Path, keep: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(zp.ZooError, match="truncated, damaged or no safetensors file"):
        load_weights(saved)


def test_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not weights at all, but long enough to look at")
    with pytest.raises(zp.ZooError, match="no safetensors file"):
        load_weights(text)
    with pytest.raises(zp.ZooError, match=r"missing\.safetensors: cannot be read: No such file"):
        load_weights(tmp_path / "missing.safetensors")
    with pytest.raises(zp.ZooError, match="cannot be read"):
        load_weights(tmp_path)


def edit(*path: str, to: Any) -> Callable[[Any], Any]:
    def change(header: Any) -> Any:
        inner = header
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return header

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: None, "has no 'archzoo' header"),
        (lambda h: "{", "header is damaged"),
        (lambda h: [], "header is damaged"),
        (lambda h: {"format": 1}, "header is damaged: KeyError"),
        (edit("plan", to=3), "header is damaged"),
        (edit("format", to=2), "format 2, this zoo reads 1; upgrade archzoo"),
        (edit("plan", "model", to={}), "plan is damaged: KeyError"),
        (edit("plan", "inputs", "kind", to="smell"), "smell"),
        (edit("plan", "model", "params", "depht", to=2), "depht.*Did you mean 'depth'"),
        (edit("plan", "model", "id", to="os/system"), "unknown model 'os/system'"),
        (edit("plan", "model", "params", "layers", to=["nobody/mixer"]), "unknown mixer 'nobody/mixer'"),
        (edit("revisions", "mixer nobody/mixer", to=1), "unknown mixer 'nobody/mixer'"),
        (
            edit("revisions", "mixer core/softmax", to=7),
            "revision 7 of mixer 'core/softmax'.*upgrade the plugin 'core'",
        ),
        (edit("revisions", "model core/transformer", to=0), "revision 0 of model .* train it again"),
    ],
)
def test_bad_headers_are_refused(saved: Path, change: Callable[[Any], Any], message: str) -> None:
    rewrite(saved, header=change)
    with pytest.raises(zp.ZooError, match=message) as caught:
        load_weights(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"backbone__norm__weight": None}, r"backbone\.norm\.weight is missing"),
        ({"backbone__extra": torch.zeros(1)}, r"backbone\.extra is unexpected"),
        ({"head__linear__bias": torch.zeros(12)}, r"head\.linear\.bias is \(12,\), expected \(11,\)"),
        ({"head__linear__bias": torch.zeros(11, dtype=torch.int64)}, r"int64, expected torch\.float32"),
    ],
)
def test_tensors_of_another_model_are_named(saved: Path, tensors: dict[str, Any], message: str) -> None:
    rewrite(saved, **tensors)
    with pytest.raises(zp.ZooError, match=message):
        load_weights(saved)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(zp.ZooError, match="cannot be written"):
        save_weights(make(), tmp_path / "missing" / "model.safetensors")
    (tmp_path / "taken").mkdir()
    with pytest.raises(zp.ZooError, match="cannot be written"):
        save_weights(make(), tmp_path / "taken")
    assert os.listdir(tmp_path) == ["taken"]


def test_an_older_model_keeps_its_revision(tmp_path: Path) -> None:
    """Saving again does not pretend that weights were trained with what is installed now."""
    module = make()
    module.plan = replace(module.plan, model=replace(module.plan.model, revision=99))
    save_weights(module, tmp_path / "old")
    with pytest.raises(zp.ZooError, match="revision 99 of model 'core/transformer'"):
        load_weights(tmp_path / "old")
