"""Conversion of models that exist: full width changes nothing, any width can be cut out."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo_slimmable.config import SlimmableConfig
from zoo_slimmable.convert import make_slimmable
from zoo_slimmable.cost import Cost
from zoo_slimmable.export import export_slim
from zoo_slimmable.norms import calibrate
from zoo_slimmable.widths import channels_of, set_width

import zoo
from zoo import torchvision_shim
from zoo.layers import load_weights, save_weights
from zoo.plugin import Classes, Image

torchvision_shim.install()

import timm  # noqa: E402


def of_timm(name: str) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    side = (
        min(64, model.pretrained_cfg["input_size"][1]) if "vit" not in name else model.patch_embed.img_size[0]
    )
    return model, torch.randn(2, 3, side, side)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "vit_tiny_patch16_224",
        "test_efficientnet",
        "test_convnext",
        "test_vit",
        "mobilenetv3_small_050",
    ],
)
def test_full_width_stays_and_half_can_be_cut_out(name: str) -> None:
    model, x = of_timm(name)
    with torch.no_grad():
        before, names = model(x), set(model.state_dict())
        make_slimmable(model, SlimmableConfig(input_size=tuple(x.shape[1:])))
        assert torch.equal(model(x), before) and set(model.state_dict()) == names
        cost = Cost(model, x)
        whole = cost.macs()
        for width in (0.3, 0.5):
            set_width(model, width, strict=False)
            calibrate(model, [x])
            small = export_slim(model)
            assert torch.equal(small(x), model(x)) and not channels_of(small)
            assert cost.parameters() == sum(p.numel() for p in small.parameters())
            assert cost.macs() < 0.7 * whole
    for parameter in small.parameters():
        assert parameter.requires_grad


def test_a_half_resnet_costs_a_third() -> None:
    model, x = of_timm("resnet18")
    make_slimmable(model, SlimmableConfig(input_size=(3, 64, 64)))
    cost = Cost(model, x)
    assert cost.macs(0.5) / cost.macs(1.0) < 0.35


def test_a_concatenation_is_read_by_its_parts() -> None:
    class Inception(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 24, 3, padding=1)
            self.c = nn.Conv2d(40, 8, 1)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([F.relu(self.a(x)), self.b(x)], 1)
            return self.head(F.adaptive_avg_pool2d(self.c(x), 1).flatten(1))

    model, x = Inception(), torch.randn(2, 3, 5, 5)
    before = model(x)
    assert make_slimmable(model, SlimmableConfig(input_size=(3, 5, 5))) == [
        "these layers keep all their outputs: head (the model gives it away)"
    ]
    assert torch.equal(model(x), before)
    set_width(model, {"a": 0.5, "b": 1 / 3, "c": 1.0})
    assert torch.equal(export_slim(model)(x), model(x))
    used = torch.cat([torch.arange(16) < 8, torch.arange(24) < 8])
    masked = torch.cat(
        [
            F.relu(F.conv2d(x, model.a.weight, model.a.bias)),
            F.conv2d(x, model.b.weight, model.b.bias, padding=1),
        ],
        1,
    )
    expected = model.head(F.conv2d(masked * used[:, None, None], model.c.weight, model.c.bias).mean((2, 3)))
    torch.testing.assert_close(model(x), expected)


def test_excluded_layers_keep_their_width() -> None:
    model, _ = of_timm("test_resnet")
    make_slimmable(model, SlimmableConfig(exclude=("layer1*", "conv1")))
    writers = {name for names in channels_of(model).values() for name in names}
    assert writers and not any(name.startswith(("layer1", "conv1")) for name in writers)


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (
            nn.Sequential(nn.Linear(4, 4)),
            SlimmableConfig(),
            "size of its images is not known: give input_size",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), SlimmableConfig(input_size=(3, 4, 4)), "the model gives it away"),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), SlimmableConfig(exclude=("x",)), "exclude: 'x' is no module"),
        (nn.ReLU(), SlimmableConfig(), "it has no weights"),
        (
            nn.Sequential(nn.Conv2d(3, 8, 1), nn.PReLU(8), nn.Conv2d(8, 8, 1)),
            SlimmableConfig(input_size=(3, 4, 4)),
            "nothing is known of its PReLU",
        ),
        (
            nn.Sequential(timm.layers.StdConv2d(3, 8, 1), timm.layers.StdConv2d(8, 8, 1)),
            SlimmableConfig(input_size=(3, 4, 4)),
            "nothing is known of its StdConv2d",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)),
            SlimmableConfig(input_size=(1, 4, 4)),
            "traced",
        ),
    ],
)
def test_a_refusal_says_why_and_changes_nothing(
    model: nn.Module, config: SlimmableConfig, message: str
) -> None:
    before = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        make_slimmable(model, config)
    assert before == [type(module) for module in model.modules()]


def test_shared_and_reshaped_channels_stay_whole() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.split, self.free = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 1)
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.shared(self.shared(self.first(x)))
            a, b = self.split(x).chunk(2, 1)
            return self.last(self.free(a * b))

    model, x = Odd(), torch.randn(2, 3, 4, 4)
    before = model(x)
    (note,) = make_slimmable(model, SlimmableConfig(input_size=(3, 4, 4)))
    assert torch.equal(model(x), before)
    assert list(channels_of(model).values()) == [["free"]]
    assert "split (chunk)" in note and "shared is used more than once" in note


def test_what_a_forward_keeps_for_later_is_not_kept_of_the_tracing() -> None:
    """As timm's LeViT keeps the biases of its attention."""

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
            self.bias = nn.Parameter(torch.randn(16))
            self.kept: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            if not self.kept:
                self.kept.append(2 * self.bias)
            return self.last(F.relu(self.first(x))) + self.kept[0][:4, None, None]

    model, x = Keeping(), torch.randn(2, 3, 4, 4)
    make_slimmable(model, SlimmableConfig(input_size=(3, 4, 4)))
    assert not model.kept and type(model(x)) is Tensor


class Crossing(nn.Module):
    """Two convolutions of as many channels that meet in an operation."""

    def __init__(self, meet: Any) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
        self.bilinear, self.meet = nn.Bilinear(4, 4, 4), meet

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.meet(self, F.relu(self.a(x)), F.relu(self.b(x))))


@pytest.mark.parametrize(
    "meet",
    [
        lambda net, a, b: torch.matmul(a, b),
        lambda net, a, b: a.matmul(b),
        lambda net, a, b: torch.maximum(a, b),
        lambda net, a, b: net.bilinear(a, b),
        lambda net, a, b: torch.where(a > 0, a, b),
        lambda net, a, b: a * torch.linspace(0, 1, 16)[:, None, None] + b,
        lambda net, a, b: torch.cat(torch.chunk(a * b, 2, 1)[::-1], 1),
        lambda net, a, b: torch.cat(tensors=(a[:, :8], b[:, 8:]), dim=1),
        lambda net, a, b: torch.cat(tensors=[a, b], dim=1)[:, :16],
    ],
)
def test_what_meets_in_an_operation_stays_whole_on_both_sides(meet: Any) -> None:
    torch.manual_seed(0)
    model, x = Crossing(meet), torch.randn(2, 3, 4, 4)
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(ValueError, match="no channels of it can be slimmed"):
        make_slimmable(model, SlimmableConfig(input_size=(3, 4, 4)))
    assert names == [name for name, _ in model.named_modules()] and model(x).shape == (2, 4, 4, 4)
    assert not any(name.startswith("_tensor_constant") for name in vars(model))


class Trained(nn.Module):
    """A network that does something else in training."""

    def __init__(self, way: Any) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1)
        self.more, self.other, self.last = nn.Conv2d(16, 16, 1), nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
        self.post, self.way = nn.BatchNorm2d(16), way

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.a(x))
        return self.last(F.relu(self.way(self, x, y) if self.training else self.b(self.post(y))))


@pytest.mark.parametrize(
    ("way", "slimmed"),
    [
        (lambda net, x, y: net.b(y) + net.more(y), [{"a"}, {"b", "more"}]),
        (lambda net, x, y: net.b(y + net.other(x)), [{"a", "other"}, {"b"}]),
        (lambda net, x, y: net.b(torch.maximum(y, net.other(x))), [{"b"}]),
        (lambda net, x, y: net.b(y) * torch.linspace(0, 1, 16)[:, None, None], [{"a"}]),
        (lambda net, x, y: net.b(net.norm(y)), [{"b"}]),
        (lambda net, x, y: net.b(x[:, :1].repeat(1, 16, 1, 1)), [{"b"}]),
        (lambda net, x, y: net.b(y) + net.post(x[:, :1].repeat(1, 16, 1, 1)), []),
        (lambda net, x, y: net.b(net.post(x[:, :1].repeat(1, 16, 1, 1))), [{"b"}]),
        (lambda net, x, y: net.b(torch.cat([net.other(x)[:, :8], y[:, 8:]], 1)), [{"b"}]),
    ],
)
def test_what_is_done_in_training_only_is_seen(way: Any, slimmed: list[set[str]]) -> None:
    torch.manual_seed(0)
    model, x = Trained(way), torch.randn(2, 3, 4, 4)
    before, mode = copy.deepcopy(model), model.training
    config = SlimmableConfig(input_size=(3, 4, 4))
    if not slimmed:
        with pytest.raises(ValueError, match="no channels of it can be slimmed"):
            make_slimmable(model, config)
        return
    make_slimmable(model, config)
    assert [set(names) - {"norm", "post"} for names in channels_of(model).values()] == slimmed
    assert model.training is mode
    for training in (True, False):
        assert torch.equal(model.train(training)(x), before.train(training)(x))
    set_width(model, 0.5)
    assert model.train()(x).shape == (2, 4, 4, 4)
    calibrate(model, [x])
    assert model.eval()(x).shape == (2, 4, 4, 4)


def test_a_forward_that_fails_in_training_is_refused() -> None:
    model = Trained(lambda net, x, y: net.b(x))
    with pytest.raises(ValueError, match=r"cannot be traced in training .*expected input"):
        make_slimmable(model, SlimmableConfig(input_size=(3, 4, 4)))
    assert type(model.a) is nn.Conv2d


@pytest.mark.parametrize("parts", [lambda x: torch.split(x, 8, 1), lambda x: x.chunk(2, 1)])
def test_parts_of_channels_stay_whole_however_they_are_taken(parts: Any) -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.free, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = parts(self.first(x))
            return self.last(self.free(a * b))

    model, x = Split(), torch.randn(2, 3, 4, 4)
    make_slimmable(model, SlimmableConfig(input_size=(3, 4, 4)))
    set_width(model, 0.5)
    assert list(channels_of(model).values()) == [["free"]]
    assert torch.equal(export_slim(model)(x), model(x))


class Sized(nn.Module):
    """Looks at the shape of 16 channels on its way, and does with it what it is told."""

    def __init__(self, way: Any) -> None:
        super().__init__()
        self.first, self.twin, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        b, c, h, w = y.shape
        return self.last(self.way(self, x, y, b, c, h, w) + 0 * y.mean((2, 3), keepdim=True))


@pytest.mark.parametrize(
    "way",
    [
        lambda net, x, y, b, c, h, w: net.twin(x).reshape(b, c, h, w),
        lambda net, x, y, b, c, h, w: x[:, :1].expand(b, c, h, w),
        lambda net, x, y, b, c, h, w: x[:, :1].repeat(1, 16 if c == 16 else 1, 1, 1),
        lambda net, x, y, b, c, h, w: y * c**-0.5,
        lambda net, x, y, b, c, h, w: y / math.sqrt(y.size(1)),
        lambda net, x, y, b, c, h, w: x[:, :1].expand(y.numel() // (b * h * w * 16) * b, 16, h, w),
    ],
)
def test_channels_whose_number_counts_stay_whole(way: Any) -> None:
    """As in `reshape(b, h * w, c)` of something else, which has another number of channels then."""
    model, x = Sized(way), torch.randn(2, 3, 4, 6)
    with pytest.raises(ValueError, match=r"something is made of how many there are|numel"):
        make_slimmable(model, SlimmableConfig(input_size=(3, 4, 6)))
    free = Sized(lambda net, x, y, b, c, h, w: F.adaptive_avg_pool2d(y, (h // 2, w // 2)).mean((2, 3), True))
    make_slimmable(free, SlimmableConfig(input_size=(3, 4, 6)))
    set_width(free, 0.5)
    assert free(x).shape == (2, 4, 1, 1)


def test_the_zoos_timm_models_are_converted_by_name_and_others_refused(tmp_path: Path) -> None:
    inputs, targets = Image(channels=1, height=32, width=32), Classes(count=4)
    model = zoo.create_model("timm/test_resnet", inputs=inputs, targets=targets)
    x = torch.randn(2, 1, 32, 32)
    twin = copy.deepcopy(model).eval()
    with pytest.warns(UserWarning, match="keep all their outputs"):
        zoo.apply_transform(model, "slimmable")
    assert torch.equal(model.eval()(x), twin(x)) and model.plan.transforms[0].id == "slim/slimmable"
    model.reset_head(7)
    set_width(model, 0.5)
    calibrate(model, [x])
    assert model(x).shape == (2, 7)
    save_weights(model, tmp_path / "model.safetensors")
    again = load_weights(tmp_path / "model.safetensors")
    set_width(again, 0.5)
    calibrate(again, [x])
    assert torch.equal(again(x), model(x))
    with pytest.raises(zoo.ZooError, match=r"cannot be applied.*it works on tokens"):
        zoo.apply_transform(zoo.create_model("core/transformer", inputs=inputs, targets=targets), "slimmable")
