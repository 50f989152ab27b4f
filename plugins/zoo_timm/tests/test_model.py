"""Backbones equal what timm gives, for any channels and sizes, and say what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from zoo_timm import TimmBackbone, TimmConfig, build

import zoo
from zoo import torchvision_shim
from zoo.layers import Model, load_weights, save_weights
from zoo.plugin import Classes, ConfigError, ContractError, Image, Values, ZooError

torchvision_shim.install()

import timm  # noqa: E402

#: One of each large family, with images that suit it.
MODELS: list[tuple[str, Image, dict[str, Any]]] = [
    ("test_resnet", Image(channels=1, height=8, width=8), {}),
    ("test_efficientnet", Image(channels=3, height=19, width=23), {}),
    ("test_convnext", Image(channels=2, height=32, width=48), {}),
    ("test_vit", Image(channels=1, height=8, width=12), {"patch_size": 4}),
    ("test_vit3", Image(channels=3, height=32, width=48), {}),
    ("test_mambaout", Image(channels=1, height=16, width=16), {}),
    ("test_byobnet", Image(channels=3, height=24, width=24), {}),
    ("test_nfnet", Image(channels=3, height=32, width=32), {}),
    ("test_maxvit", Image(channels=3, height=64, width=64), {}),
    ("mobilenetv3_small_050", Image(channels=1, height=28, width=28), {}),
]
IDS = [name for name, _, _ in MODELS]


def make(name: str, inputs: Image, **params: Any) -> TimmBackbone:
    torch.manual_seed(0)
    return build(TimmConfig(**params), member=name, width=1, causal=False, inputs=inputs)


def images(inputs: Image, batch: int = 2) -> Tensor:
    shape = (batch, inputs.channels, inputs.height, inputs.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "inputs", "kwargs"), MODELS, ids=IDS)
def test_features_are_those_of_timm_before_its_classifier(
    name: str, inputs: Image, kwargs: dict[str, Any]
) -> None:
    backbone = make(name, inputs, kwargs=kwargs).eval()
    size = {"img_size": (inputs.height, inputs.width)} if "vit" in name else {}
    theirs = timm.create_model(name, in_chans=inputs.channels, num_classes=7, **size, **kwargs).eval()
    loaded = theirs.load_state_dict(backbone.model.state_dict(), strict=False)
    assert loaded.unexpected_keys == []
    assert all(key.startswith(theirs.default_cfg["classifier"]) for key in loaded.missing_keys)
    x = images(inputs)
    with torch.no_grad():
        features = backbone(x)
        expected = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
    assert features.shape == (2, backbone.num_features)
    torch.testing.assert_close(features, expected.reshape(features.shape))


@pytest.mark.parametrize(("name", "inputs", "kwargs"), MODELS, ids=IDS)
def test_our_heads_sit_on_top_and_the_backbone_gets_gradients(
    name: str, inputs: Image, kwargs: dict[str, Any]
) -> None:
    model = zoo.create_model(f"timm/{name}", inputs=inputs, targets=Values(count=3), kwargs=kwargs)
    assert model(images(inputs)).shape == (2, 3)
    model(images(inputs)).square().sum().backward()
    first = next(model.backbone.parameters())
    assert first.grad is not None and first.grad.any() and first.grad.isfinite().all()
    assert model.num_features == model.head.linear.in_features
    model.reset_head(Classes(count=5))
    assert model.eval()(images(inputs)).shape == (2, 5)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit3"])
def test_stages_are_shown(name: str) -> None:
    inputs = Image(channels=3, height=32, width=32)
    model = zoo.create_model(f"timm/{name}", inputs=inputs, targets=Classes(count=2)).eval()
    with torch.no_grad():
        stages = model.forward_intermediates(images(inputs))
        last = model.forward_intermediates(images(inputs), indices=1)
    assert len(stages) > 1 and all(stage.dim() == 4 for stage in stages)
    assert len(last) == 1
    torch.testing.assert_close(last[0], stages[-1])


def test_building_is_repeatable_and_leaves_statistics_alone() -> None:
    inputs = Image(channels=1, height=8, width=8)
    one, two = make("test_efficientnet", inputs), make("test_efficientnet", inputs)
    assert one.training and one.model.training
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    assert int(one.state_dict()["model.bn1.num_batches_tracked"]) == 0


def test_dropout_and_drop_path_reach_timm() -> None:
    inputs = Image(channels=3, height=32, width=32)
    backbone = make("test_efficientnet", inputs, dropout_prob=0.25, drop_path_prob=0.5)
    assert backbone.model.drop_rate == 0.25
    rates = [getattr(module, "drop_prob", 0.0) for module in backbone.modules()]
    assert 0 < max(rates) <= 0.5
    x = images(inputs)
    assert not torch.equal(backbone(x), backbone(x))
    backbone.eval()
    assert torch.equal(backbone(x), backbone(x))


def test_a_feature_map_is_fine_too() -> None:
    inputs = Image(channels=3, height=64, width=64)
    given: dict[str, Any] = {"inputs": inputs, "targets": Classes(count=4), "kwargs": {"global_pool": ""}}
    model = zoo.create_model("timm/test_efficientnet", **given).eval()
    features, _ = model.forward_features(images(inputs))
    assert features.shape == (2, model.num_features, 2, 2)
    assert model(images(inputs)).shape == (2, 4)


def test_tokens_that_are_not_pooled_are_averaged() -> None:
    backbone = make("test_vit3", Image(channels=3, height=32, width=48), kwargs={"global_pool": ""}).eval()
    x = images(Image(channels=3, height=32, width=48))
    assert backbone(x).shape == (2, backbone.num_features) == (2, 96)
    torch.testing.assert_close(backbone(x), backbone.model(x).mean(1))


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("test_vit", (8, 8), "takes images from 16 x 16 on, got 8 x 8 .*With a smaller patch_size in kwargs"),
        ("test_convnext", (8, 8), "takes images from 32 x 32 on, got 8 x 8 "),
        ("test_maxvit", (8, 8), "takes images from .* on, got 8 x 8 .*timm/test_efficientnet"),
        ("test_vit", (40, 36), "cannot take images of 40 x 36 .*; 16 x 16 would work"),
    ],
)
def test_a_size_that_does_not_fit_is_answered_with_one_that_does(
    name: str, size: tuple[int, int], words: str
) -> None:
    with pytest.raises(ZooError, match=words):
        make(name, Image(channels=1, height=size[0], width=size[1]))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"kwargs": {"patch_sise": 2}},
            r"takes no argument 'patch_sise' \(kwargs\). Did you mean 'patch_size'",
        ),
        ({"kwargs": {"qqq": 2}}, "takes no argument 'qqq' .*It takes: .*depth"),
        ({"kwargs": {"depth": "x"}}, "cannot be built for images of 32 x 32 .TypeError"),
    ],
)
def test_arguments_are_checked_against_the_model(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        make("test_vit", Image(channels=3, height=32, width=32), **params)


def test_a_rate_that_a_model_does_not_have() -> None:
    with pytest.raises(ZooError, match="vgg11 has no drop_path_rate; leave drop_path_prob at 0"):
        make("vgg11", Image(channels=3, height=32, width=32), drop_path_prob=0.1)


@pytest.mark.parametrize("name", ["num_classes", "in_chans", "img_size", "checkpoint_path", "pretrained_cfg"])
def test_what_is_settled_elsewhere_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigError, match=f"kwargs.{name}: cannot be given here: "):
        TimmConfig(kwargs={name: 1})


def test_other_data_is_refused_with_what_works() -> None:
    with pytest.raises(ContractError, match=r"takes images, but the dataset gives vector.*core/mlp_net"):
        zoo.create_model("timm/resnet18", dataset="wine")
    with pytest.raises(ZooError, match="causal"):
        build(
            TimmConfig(),
            member="test_vit",
            width=1,
            causal=True,
            inputs=Image(channels=3, height=32, width=32),
        )


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit.r160_in1k"])
def test_weights_survive_their_file(name: str, tmp_path: Path) -> None:
    inputs = Image(channels=1, height=32, width=32)
    model: Model = zoo.create_model(f"timm/{name}", inputs=inputs, targets=Classes(count=3))
    model(images(inputs))  # moves the running statistics
    save_weights(model, tmp_path / "model.safetensors")
    again = load_weights(tmp_path / "model.safetensors")
    assert again.plan.model == model.plan.model
    with torch.no_grad():
        assert torch.equal(again(images(inputs)), model.eval()(images(inputs)))
