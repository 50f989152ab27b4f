"""Decoders of maps, transposed convolutions and embeddings: cut out, and against the whole with zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from zoo_slimmable.config import ExportConfig, SearchConfig, SlimmableConfig
from zoo_slimmable.configuration import groups_of
from zoo_slimmable.convert import make_slimmable
from zoo_slimmable.convolution import SlimmableConv2d, SlimmableConvTranspose2d
from zoo_slimmable.cost import Cost
from zoo_slimmable.export import export_slim
from zoo_slimmable.layers import SlimmableEmbedding, SlimmableLinear
from zoo_slimmable.norms import calibrate
from zoo_slimmable.widths import Channels, channels_of, set_width

import zoo
from zoo.plugin import Classes, Image, Maps, Values

TARGETS = Maps(height=16, width=12, parts={"shape": Classes(count=3), "depth": Values(count=1, missing=True)})
SHAPE, DEPTH = "head.decoders.shape", "head.decoders.depth"


def model(name: str = "slim/conv", *, norm: str = "group", unfold: int = 2, **others: Any) -> Any:
    torch.manual_seed(0)
    params = {"params": {"stages": 2, "norm": norm}} if name == "slim/conv" else {}
    return zoo.create_model(
        name,
        inputs=Image(channels=1, height=16, width=12),
        targets=TARGETS,
        width=32,
        head={"name": "slim/map_decoders", "params": {"hidden": 16, "norm": norm, "unfold": unfold}},
        **params.get("params", {}),
        **others,
    )


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 1, 16, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("norm", "unfold"), [("group", 2), ("batch", 3), ("switchable", 1)])
def test_every_pair_of_widths_can_be_cut_out(norm: str, unfold: int) -> None:
    whole, x = model(norm=norm, unfold=unfold), images()
    whole(x)
    cost = Cost(whole, x)
    assert groups_of(whole) == ("backbone", SHAPE, DEPTH)
    for encoder, shape in ((0.25, 1.0), (0.75, 0.5), (1.0, 0.25)):
        set_width(whole, {"backbone": encoder, SHAPE: shape, DEPTH: 0.75})
        calibrate(whole, [x])
        small = export_slim(whole.eval())
        assert whole(x).shape == (2, 4, 16, 12) and torch.equal(small(x), whole(x))
        assert not channels_of(small)
        assert cost.parameters() == sum(p.numel() for p in small.parameters())
        with FlopCounterMode(display=False) as counted:
            small(x[:1])
        assert 2 * cost.macs() == counted.get_total_flops()
    assert sum(cost.macs(below=name) for name in ("backbone", SHAPE, DEPTH)) == cost.macs()


def test_a_map_does_not_depend_on_the_width_of_other_decoders() -> None:
    whole, x = model().eval(), images()
    answers = []
    for depth in (0.25, 0.75):
        set_width(whole, {"backbone": 0.5, SHAPE: 0.5, DEPTH: depth})
        answers.append(whole(x)[:, :3])
    assert torch.equal(*answers)


def test_maps_from_the_pooled_features_of_a_converted_backbone() -> None:
    torch.manual_seed(0)
    inputs = Image(channels=1, height=16, width=16)
    targets = Maps(height=16, width=16, parts=TARGETS.parts)
    head = {"name": "slim/map_decoders", "params": {"hidden": 16, "unfold": 8, "norm": "batch"}}
    whole: Any = zoo.create_model(
        "timm/test_resnet", inputs=inputs, targets=targets, head=head, transforms={"slimmable": {}}
    )
    x = torch.randn(4, 1, 16, 16)
    set_width(whole, {"backbone": 0.5, SHAPE: 0.25})
    calibrate(whole, [x])
    assert torch.equal(export_slim(whole.eval())(x), whole(x)) and whole(x).shape == (4, 4, 16, 16)


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
def test_a_part_computes_what_the_whole_does_with_zeros_elsewhere(width: float) -> None:
    torch.manual_seed(0)
    a, b, c = Channels(16), Channels(24), Channels(32)
    layer = SlimmableConvTranspose2d((a, b), c, 3, stride=2, padding=1, output_padding=1).double()
    parts = nn.ModuleList([SlimmableConv2d(3, a, 1), SlimmableConv2d(3, b, 1), layer])
    set_width(parts, width)
    used = torch.cat([torch.arange(16) < a.active, torch.arange(24) < b.active])
    x = torch.randn(2, 40, 5, 4, dtype=torch.float64) * used[:, None, None]
    expected = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1, output_padding=1)[
        :, : c.active
    ]
    found = layer(x[:, used])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(export_slim(layer)(x[:, used]), found, atol=0, rtol=0)
    found.square().sum().backward()
    assert layer.weight.grad is not None
    assert not layer.weight.grad[~used].any() and not layer.weight.grad[:, c.active :].any()
    assert layer.active_parameters() == sum(p.numel() for p in export_slim(layer).parameters())


def test_groups_of_a_transposed_convolution_are_whole() -> None:
    torch.manual_seed(0)
    a, b = Channels(12, unit=4), Channels(24, unit=8)
    parts = nn.ModuleDict({"a": SlimmableConv2d(3, a, 1), "g": SlimmableConvTranspose2d(a, b, 2, groups=3)})
    x = torch.randn(1, 12, 3, 3)
    layer: Any = parts["g"]
    assert torch.equal(layer(x), F.conv_transpose2d(x, layer.weight, layer.bias, groups=3))
    set_width(parts, 2 / 3)
    small = export_slim(parts)["g"]  # type: ignore[index]
    assert torch.equal(small(x[:, :8]), layer(x[:, :8])) and small.groups == 2
    torch.testing.assert_close(
        layer(x[:, :8]), F.conv_transpose2d(x, layer.weight, layer.bias, groups=3)[:, :16]
    )
    assert layer.active_parameters() == sum(p.numel() for p in small.parameters())
    with pytest.raises(ValueError, match="inputs of 2 and outputs of 3 groups"):
        set_width(parts, {"g": 1.0})
    with pytest.raises(ValueError, match=r"must be units of whole groups: Channels\(8, unit=4\)"):
        SlimmableConvTranspose2d(Channels(8), Channels(16), 1, groups=2)
    with pytest.raises(ValueError, match=r"reads 8 of 12 channels .* but is given 12"):
        set_width(parts, 2 / 3)
        layer(x)


def test_an_embedding_gives_the_first_numbers_of_its_vectors() -> None:
    torch.manual_seed(0)
    channels = Channels(16)
    net = nn.ModuleDict({"e": SlimmableEmbedding(7, channels), "l": SlimmableLinear(channels, 3)})
    ids = torch.tensor([[1, 6, 0]])
    embedding: Any = net["e"]
    whole = embedding(ids)
    assert torch.equal(whole, F.embedding(ids, embedding.weight))
    set_width(net, 0.5)
    small = export_slim(net)
    assert torch.equal(embedding(ids), whole[..., :8])
    assert torch.equal(small["e"](ids), embedding(ids))  # type: ignore[index]
    assert torch.equal(small["l"](small["e"](ids)), net["l"](embedding(ids)))  # type: ignore[index]
    embedding(ids).sum().backward()
    assert not embedding.weight.grad[:, 8:].any() and embedding.weight.grad[ids[0], :8].all()
    assert embedding.active_parameters() == 7 * 8


def test_a_network_with_a_skip_around_transposed_convolutions_is_converted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 2, stride=2)
            self.up, self.answer = nn.ConvTranspose2d(32, 16, 2, stride=2), nn.Conv2d(32, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.enter(x))
            return self.answer(torch.cat([x, F.relu(self.up(self.down(x)))], 1))

    torch.manual_seed(0)
    net, x = Net(), torch.randn(2, 3, 8, 8)
    before = net(x)
    make_slimmable(net, SlimmableConfig(input_size=(3, 8, 8)))
    assert torch.equal(net(x), before)
    set_width(net, {"enter": 1.0, "down": 0.25, "up": 0.5})
    small = export_slim(net)
    assert torch.equal(net(x), small(x)) and small.up.out_channels == 8 and small.answer.in_channels == 24
    with FlopCounterMode(display=False) as counted:
        small(x[:1])
    assert 2 * Cost(net, x).macs() == counted.get_total_flops()


def test_a_run_on_scenes_is_searched_cut_out_and_drawn(tmp_path: Path) -> None:
    from zoo_slimmable.commands import curves, export, find, table_of
    from zoo_slimmable.config import CurvesConfig

    from zoo.training.saved import Saved

    changes = {
        "data.params.side": 16,
        "data.params.examples": 64,
        "data.params.eval_examples": 32,
        "model.width": 16,
        "model.params.blocks": 0,
        "model.head.params.hidden": 8,
        "trainer.max_epochs": 2,
        "output.dir": tmp_path,
    }
    result = zoo.train("slim/shapes", [f"{name}={value}" for name, value in changes.items()], quiet=True)
    assert result.run is not None
    run = Saved(result.run)
    table = table_of(run, (0.5, 1.0))
    assert table.tasks == ("shape", "depth")
    scores = run.score(run.model(), "test")
    full = table.quality["test"][-1][-1]
    assert full[0] == pytest.approx(scores["test/shape/miou"], abs=1e-6)
    depth = run.splits().test.targets["depth"]  # type: ignore[attr-defined]
    mean = run.splits().train.targets["depth"].nanmean()  # type: ignore[attr-defined]
    variance = float((depth - mean).square().nanmean())
    assert full[1] == pytest.approx(1 - scores["test/depth/rmse"] ** 2 / variance, abs=1e-5)
    found = find(run, SearchConfig(budget="0.7x", prefer="depth=2,shape=1", widths=(0.5, 1.0)))
    assert found.data["share"] <= 0.7
    cut = export(run, ExportConfig(widths=found.data["widths"]))
    assert cut.data["same"] and cut.data["outputs"] == [6, 16, 16]
    assert export(run, ExportConfig(widths=0.5, tasks="depth")).data["outputs"] == [1, 16, 16]
    drawn = curves(run, CurvesConfig(budgets=(0.7,), widths=(0.5, 1.0)))
    assert (
        Path(drawn.data["picture"]).is_file() and drawn.data["budgets"][0]["beside"]["searched"] is not None
    )
