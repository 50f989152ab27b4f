"""Pretrained weights: from the cache without a network, or one sentence at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from zoo_timm import TimmConfig, build

import zoo
from zoo import torchvision_shim
from zoo.layers import load_weights, save_weights
from zoo.plugin import Classes, Image, ZooError

torchvision_shim.install()

import timm  # noqa: E402

NAME = "test_efficientnet.r160_in1k"
IMAGES = Image(channels=3, height=32, width=32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that nobody answers for."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "hub"


def put(cache: Path, name: str) -> dict[str, torch.Tensor]:
    """Random weights of timm's whole model, laid where the hub's client keeps them."""
    torch.manual_seed(7)
    state = timm.create_model(name).state_dict()
    repository = cache / f"models--timm--{name}"
    snapshot = repository / "snapshots/0123abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0123abc", encoding="utf-8")
    save_file(state, snapshot / "model.safetensors")
    return state


def make(name: str, inputs: Image = IMAGES, **options: Any) -> Any:
    return build(TimmConfig(pretrained=True), member=name, width=1, causal=False, inputs=inputs, **options)


def test_cached_weights_need_no_network(cache: Path) -> None:
    state = put(cache, NAME)
    ours = make(NAME).model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.items())
    assert set(state) - set(ours) == {"classifier.weight", "classifier.bias"}


def test_the_first_layer_is_fitted_to_other_channels(cache: Path) -> None:
    state = put(cache, NAME)
    grey = make(NAME, Image(channels=1, height=32, width=32)).model.state_dict()
    torch.testing.assert_close(grey["conv_stem.weight"], state["conv_stem.weight"].sum(1, keepdim=True))


def test_out_of_reach_is_one_sentence() -> None:
    with pytest.raises(ZooError) as caught:
        make(NAME)
    text = str(caught.value)
    assert "\n" not in text
    for part in (NAME, f"timm/{NAME}/model.safetensors", "pretrained: false", "HF_HOME"):
        assert part in text


def test_a_model_without_weights_says_so() -> None:
    with pytest.raises(ZooError, match="timm has no pretrained weights for 'test_vit4'"):
        make("test_vit4")


def test_a_tag_that_only_timm_can_tell_is_refused_when_built() -> None:
    with pytest.raises(
        ZooError, match=r"unknown model 'timm/qwen3_vit_306m_enc\.wrong'\. There is: timm/qwen3"
    ):
        make("qwen3_vit_306m_enc.wrong")


def test_damaged_weights_are_a_sentence(cache: Path) -> None:
    put(cache, NAME)
    file = next(cache.rglob("model.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ZooError, match="test_efficientnet"):
        make(NAME)


def test_a_saved_model_is_loaded_without_fetching_again(cache: Path, tmp_path: Path) -> None:
    put(cache, NAME)
    model = zoo.create_model(f"timm/{NAME}", inputs=IMAGES, targets=Classes(count=3), pretrained=True)
    save_weights(model, tmp_path / "model.safetensors")
    for file in cache.rglob("model.safetensors"):
        file.unlink()
    again = load_weights(tmp_path / "model.safetensors")
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(x), model.eval()(x))
