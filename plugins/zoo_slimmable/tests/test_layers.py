"""Slimmable layers: against the full layer with zeros, against what is cut out, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from zoo_slimmable.convolution import SlimmableConv2d
from zoo_slimmable.cost import Cost
from zoo_slimmable.export import export_slim
from zoo_slimmable.layers import SlimmableAttention, SlimmableLinear, SlimmableMlp
from zoo_slimmable.norms import (
    SlimmableBatchNorm2d,
    SlimmableGroupNorm,
    SlimmableLayerNorm,
    SwitchableBatchNorm2d,
    calibrate,
)
from zoo_slimmable.widths import Channels, channels_of, current_width, divisible, set_width, width_scope

from zoo.layers.operations import OperationCounter

WIDTHS = (0.25, 0.5, 0.75, 1.0)


class Branches(nn.Module):
    """A residual sum, a depthwise convolution, a concatenation, and a norm after each."""

    def __init__(self, norm: str = "group") -> None:
        super().__init__()
        a, b = Channels(16, divisor=4), Channels(24, divisor=4)

        def make(channels: Channels) -> nn.Module:
            if norm == "batch":
                return SlimmableBatchNorm2d(channels, scopes=((a, b),))
            if norm == "switchable":
                return SwitchableBatchNorm2d(channels, widths=WIDTHS, scopes=((a, b),))
            return SlimmableGroupNorm(channels, group=4)

        self.first, self.norm1 = SlimmableConv2d(3, a, 3, padding=1, bias=False), make(a)
        self.again = SlimmableConv2d(a, a, 3, padding=1)
        self.up, self.norm2 = SlimmableConv2d(a, b, 1), make(b)
        self.depthwise = SlimmableConv2d(b, b, 3, padding=1, groups=24)
        self.join = SlimmableConv2d((a, b), b, 3, stride=2, padding=1)
        self.answer = SlimmableLinear(b, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.first(x)))
        x = x + self.again(x)
        y = self.depthwise(F.relu(self.norm2(self.up(x))))
        return self.answer(self.join(torch.cat([x, y], 1)).mean((2, 3)))


def batch(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("width", [*WIDTHS, 0.01])
def test_a_part_computes_what_the_whole_does_with_zeros_elsewhere(width: float) -> None:
    torch.manual_seed(0)
    a, b, c = Channels(16), Channels(24), Channels(32)
    linear = SlimmableLinear((a, b), c).double()
    conv = SlimmableConv2d((a, b), c, 3, padding=1).double()
    set_width(nn.ModuleList([SlimmableLinear(3, a), SlimmableLinear(3, b), linear]), width)
    used = torch.cat([torch.arange(16) < a.active, torch.arange(24) < b.active])
    x = torch.randn(3, 40, dtype=torch.float64) * used
    torch.testing.assert_close(linear(x[:, used]), F.linear(x, linear.weight, linear.bias)[:, : c.active])
    image = x[:, :, None, None] * torch.randn(3, 1, 5, 5, dtype=torch.float64)
    expected = F.conv2d(image, conv.weight, conv.bias, padding=1)[:, : c.active]
    torch.testing.assert_close(conv(image[:, used]), expected, atol=1e-10, rtol=1e-10)


def test_full_width_is_the_plain_layer_bit_for_bit() -> None:
    torch.manual_seed(0)
    pairs: list[tuple[nn.Module, nn.Module, Tensor]] = [
        (SlimmableLinear(Channels(57), Channels(64)), nn.Linear(57, 64), torch.randn(1, 57)),
        (SlimmableConv2d(Channels(8), Channels(12), 3), nn.Conv2d(8, 12, 3), torch.randn(2, 8, 5, 5)),
        (SlimmableLayerNorm(Channels(24)), nn.LayerNorm(24), torch.randn(2, 3, 24)),
        (SlimmableGroupNorm(Channels(24), group=8), nn.GroupNorm(3, 24), torch.randn(2, 24, 4)),
        (SlimmableBatchNorm2d(Channels(8)), nn.BatchNorm2d(8), torch.randn(4, 8, 3, 3)),
    ]
    for slim, plain, x in pairs:
        plain.load_state_dict(slim.state_dict())
        assert torch.equal(slim(x), plain(x))
        assert torch.equal(slim.eval()(x), plain.eval()(x))
        assert all(torch.equal(slim.state_dict()[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("norm", ["group", "batch", "switchable"])
def test_what_is_cut_out_agrees_bit_for_bit_and_costs_what_the_formula_says(norm: str) -> None:
    torch.manual_seed(0)
    model, x = Branches(norm), batch()
    cost = Cost(model, x)
    wanted: list[float | dict[str, float]] = [*WIDTHS]
    if norm != "switchable":
        wanted.append({"*": 0.75, "up": 0.25})
    for width in wanted:
        set_width(model, width)
        calibrate(model, [batch(4), batch(2)])
        model.eval()
        small = export_slim(model)
        assert torch.equal(model(x), small(x))
        assert not channels_of(small)
        assert {type(m).__module__.partition(".")[0] for m in small.modules() if m is not small} == {"torch"}
        assert cost.parameters() == sum(p.numel() for p in small.parameters())
        with FlopCounterMode(display=False) as counted:
            small(x[:1])
        assert 2 * cost.macs() == counted.get_total_flops()
    assert cost.macs(0.5) < cost.macs(1.0)
    assert current_width(model) == (1.0 if norm == "switchable" else {"first": 0.75, "up": 0.25})


def test_a_slice_without_a_bias_takes_torchs_way_through_a_strided_input() -> None:
    """Torch multiplies each example by itself or all at once, by whether the weight wants a gradient."""
    torch.manual_seed(0)
    layer = SlimmableLinear(386, (Channels(256),) * 3, bias=False)
    x = torch.randn(8, 386, 1).transpose(1, 2)
    for width, frozen in product((0.5, 1.0), (False, True)):
        layer.requires_grad_(not frozen)
        set_width(layer, width)
        small = export_slim(layer)
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                assert torch.equal(layer(x), small(x))
        assert layer(x[:0]).shape == (0, 1, 768 * width)


def test_attention_uses_whole_heads_and_can_be_cut_out() -> None:
    torch.manual_seed(0)
    dim = Channels(24)
    block = nn.Sequential(
        SlimmableLinear(5, dim), SlimmableAttention(dim, 3), SlimmableMlp(dim, Channels(48))
    )
    x = torch.randn(2, 7, 5)
    attention = block[1]
    for width in (1 / 3, 2 / 3, 1.0):
        set_width(block, width)
        assert attention.heads.active == round(width * 3) * 8
        small = export_slim(block)
        assert torch.equal(block(x), small(x))
        with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):  # others go uncounted
            small(x[:1])
        assert 2 * Cost(block, x).macs() == counted.get_total_flops()
    set_width(block, 0.5, strict=False)
    assert attention.heads.active == 16


def test_full_attention_is_torchs_with_the_same_weights() -> None:
    torch.manual_seed(0)
    ours, theirs = SlimmableAttention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("width", [1 / 3, 2 / 3, 1.0])
def test_fewer_heads_are_attention_with_the_first_of_them(width: float) -> None:
    torch.manual_seed(0)
    attention = SlimmableAttention(24, 3).double()
    set_width(attention, width)
    x, heads = torch.randn(2, 7, 24, dtype=torch.float64), attention.heads.active // 8
    expected = attention.proj.bias.expand(2, 7, 24)
    weights, biases = attention.qkv.weight.view(3, 3, 8, 24), attention.qkv.bias.view(3, 3, 8)
    for head in range(heads):
        q, k, v = (x @ weights[n, head].T + biases[n, head] for n in range(3))
        mixed = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v
        expected = expected + mixed @ attention.proj.weight[:, 8 * head : 8 * head + 8].T
    torch.testing.assert_close(attention(x), expected, atol=1e-10, rtol=1e-10)


def test_norms_are_those_of_their_formulas() -> None:
    torch.manual_seed(0)
    channels = Channels(24)
    norms = nn.ModuleDict(
        {
            "enter": SlimmableConv2d(3, channels, 1),
            "layer": SlimmableLayerNorm(channels),
            "group": SlimmableGroupNorm(channels, group=4),
            "batch": SlimmableBatchNorm2d(channels),
        }
    ).double()
    for parameter in norms.parameters():
        nn.init.uniform_(parameter)
    set_width(norms, 2 / 3)
    batches = [torch.randn(n, 16, 3, 2, dtype=torch.float64) for n in (4, 3)]

    def scaled(x: Tensor, name: str) -> Tensor:
        return x * norms[name].weight[:16, None, None] + norms[name].bias[:16, None, None]  # type: ignore[index, union-attr]

    def over(x: Tensor, *dims: int) -> Tensor:
        return (x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True, correction=0) + 1e-5).sqrt()

    x = batches[0]
    moved = norms["layer"](x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(moved, scaled(over(x, 1), "layer"), atol=1e-10, rtol=1e-10)
    grouped = over(x.view(4, 4, 4, 3, 2), 2, 3, 4).view_as(x)
    torch.testing.assert_close(norms["group"](x), scaled(grouped, "group"), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(norms["batch"](x), scaled(over(x, 0, 2, 3), "batch"), atol=1e-10, rtol=1e-10)
    calibrate(norms["batch"], batches)
    mean = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    variance = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    expected = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(norms["batch"].eval()(x), scaled(expected, "batch"), atol=1e-10, rtol=1e-10)


def test_gradients_of_what_is_not_used_are_zeros() -> None:
    model = Branches()
    set_width(model, 0.5)
    model(batch()).square().sum().backward()
    for name, channels in (("first", 8), ("up", 12), ("depthwise", 12), ("join", 12)):
        gradient = model.get_submodule(name).weight.grad
        assert gradient is not None and not gradient[channels:].any() and gradient[:channels].any()
    joined = model.join.weight.grad
    assert joined is not None and joined[:, :8].any() and joined[:, 16:28].any()
    assert not joined[:, 8:16].any() and not joined[:, 28:].any()


def test_statistics_of_batch_norms_are_those_of_the_network_cut_out() -> None:
    torch.manual_seed(0)
    model = Branches("batch")
    set_width(model, 0.5)
    with pytest.raises(ValueError, match=r"no statistics for these widths: call zoo_slimmable\.calibrate"):
        model.eval()(batch())
    assert calibrate(model, [batch(4), batch(3)]) == 2 and not model.training
    small = export_slim(model)
    for norm in small.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    small.train()
    for n in (4, 3):
        small(batch(n))
    assert torch.equal(small.eval()(batch()), model(batch()))
    before = model.norm1.running_mean.clone()
    model.train()(batch())
    assert torch.equal(before, model.norm1.running_mean)  # only full width keeps running statistics
    for change in (
        lambda: model.train()(batch()),
        lambda: model.load_state_dict(Branches("batch").state_dict()),
    ):
        assert calibrate(model.eval(), [batch(4)]) == 2 and model(batch()).isfinite().all()
        change()  # statistics are those of other weights then
        with pytest.raises(ValueError, match="no statistics for these widths"):
            model.eval()(batch())
    set_width(model, 1.0)
    assert calibrate(model, []) == 0
    set_width(model, {"up": 0.5})
    with pytest.raises(ValueError, match="at least one batch"):
        calibrate(model, [])


def test_switchable_norms_know_their_widths_alone() -> None:
    encoder, decoder = Channels(16), Channels(8)
    norm = SwitchableBatchNorm2d(decoder, widths=(0.5, 1.0), scopes=((encoder,), (decoder,)))
    model = nn.ModuleDict({"e": SlimmableConv2d(3, encoder, 1), "d": SlimmableConv2d(encoder, decoder, 1)})
    model["n"] = norm
    chosen = set()
    for widths in ({"e": 0.5, "d": 1.0}, {"e": 1.0, "d": 1.0}):
        set_width(model, widths)
        chosen.add(id(norm.used))
    assert len(chosen) == 2 and len(norm.norms) == 4
    set_width(model, 0.75)
    with pytest.raises(ValueError, match=r"for widths 0\.5, 1\.0 of a whole encoder or decoder only"):
        norm(torch.zeros(2, 8, 1, 1))
    with pytest.raises(ValueError, match="different numbers, at least one"):
        SwitchableBatchNorm2d(8, widths=(0.5, 0.5))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["first", "up", "*"]), st.floats(0.01, 1.0), min_size=1))
def test_any_width_of_any_layer_trains(widths: dict[str, float]) -> None:
    model = Branches("batch")
    set_width(model, widths)
    model(batch()).sum().backward()


@given(st.integers(1, 300), st.floats(0.01, 1.0), st.integers(1, 16))
def test_channels_in_use_are_a_multiple_near_what_was_asked(full: int, width: float, divisor: int) -> None:
    count = Channels(full, divisor=divisor).count(width)
    assert 1 <= count <= full and (count % divisor == 0 or count == full)
    assert count >= min(full, 0.9 * width * full) and count <= width * full + divisor
    assert divisible(37, 8) == 40 and divisible(1, 8) == 8 and divisible(11, 8) == 16


def test_widths_survive_copies_and_are_given_back() -> None:
    model = Branches()
    set_width(model, {"*": 0.5, "up": 0.25})
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert current_width(twin) == {"first": 0.5, "up": 0.25} and torch.equal(
            twin(batch()), model(batch())
        )
        set_width(twin, 1.0)
        twin.load_state_dict(model.state_dict())
    assert current_width(model) == {"first": 0.5, "up": 0.25}
    with pytest.raises(RuntimeError, match="planned"), width_scope(model, 1.0):
        assert current_width(model) == 1.0
        raise RuntimeError("planned")
    assert current_width(model) == {"first": 0.5, "up": 0.25}


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (0.0, "above 0 and at most 1, got 0"),
        (1.5, "above 0 and at most 1, got 1.5"),
        (float("nan"), "above 0 and at most 1, got nan"),
        ("half", "a width is a number, or numbers by name of a module, got 'half'"),
        ({"up": None}, "a width is a number, or numbers by name of a module, got None"),
        ({"up": 0.5, "again": 2}, "above 0 and at most 1, got 2"),
        ({"nothing": 0.5}, "no layer with a width is called 'nothing' or lies in it; there is: again, "),
        ({"first": 0.5, "again": 1.0}, "first and again write the same channels .* not 0.5 and 1"),
        ({"*": 1.0, "first": 0.5, "again": 1.0}, "first and again write the same channels .* not 0.5 and 1"),
    ],
)
def test_a_width_that_cannot_be_changes_nothing(width: float | dict[str, float], message: str) -> None:
    model = Branches()
    set_width(model, 0.75)
    with pytest.raises(ValueError, match=message):
        set_width(model, width)
    assert current_width(model) == 0.75


def test_of_widths_by_name_the_last_that_fits_counts() -> None:
    model = Branches()
    for widths, expected in (
        ({"first": 0.5, "*": 1.0}, 1.0),
        ({"*": 1.0, "first": 0.5, "up": 0.5}, 0.5),
        ({"*": 0.75, "again": 0.5, "up": 0.25, "first": 0.5}, {"first": 0.5, "up": 0.25}),
    ):
        set_width(model, widths)
        assert current_width(model) == expected


def test_heads_and_groups_are_not_torn_apart() -> None:
    a, b = Channels(12, unit=4), Channels(24, unit=8)
    model = nn.ModuleDict({"a": SlimmableConv2d(3, a, 1), "g": SlimmableConv2d(a, b, 3, groups=3)})
    with pytest.raises(
        ValueError, match=r"0\.5 of 3 heads or groups of 4 channels is 1\.5 .* fit: 0\.3333, 0\.6667, 1"
    ):
        set_width(model, 0.5)
    set_width(model, 2 / 3)
    assert model["g"](torch.randn(1, 8, 3, 3)).shape == (1, 16, 1, 1)
    assert torch.equal(export_slim(model)["g"](torch.ones(1, 8, 3, 3)), model["g"](torch.ones(1, 8, 3, 3)))
    with pytest.raises(ValueError, match="inputs of 2 and outputs of 3 groups at these widths: give both"):
        set_width(model, {"g": 1.0})
    assert current_width(model) == pytest.approx(2 / 3) and b.active == 16
    b.set(1.0)  # without the model
    with pytest.raises(ValueError, match="inputs of 2 and outputs of 3 groups"):
        model["g"](torch.randn(1, 8, 3, 3))


def test_layers_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a width of 16"):
        SlimmableAttention(16, 3)
    with pytest.raises(ValueError, match=r"must be units of whole groups: Channels\(8, unit=4\)"):
        SlimmableConv2d(Channels(8), Channels(16), 1, groups=2)
    with pytest.raises(ValueError, match="3 groups do not divide 8 inputs"):
        SlimmableConv2d(Channels(8), Channels(9), 1, groups=3)
    with pytest.raises(
        ValueError, match="groups of 5 channels do not divide 20 channels that are used in steps of 8"
    ):
        SlimmableGroupNorm(Channels(20), group=5)
    with pytest.raises(ValueError, match="a group has at least one channel, got 0"):
        SlimmableGroupNorm(Channels(20), group=0)
    for sizes, message in (
        ({"full": 0}, "channels must be at least 1, and a whole number, got 0"),
        ({"full": 2.5}, "channels must be at least 1, and a whole number, got 2.5"),
        ({"full": 8, "divisor": 0.5}, "divisor must be at least 1, and a whole number, got 0.5"),
        ({"full": 8, "unit": 0}, "unit must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Channels(**sizes)
    with pytest.raises(ValueError, match="10 channels are not whole units of 4"):
        Channels(10, unit=4)
    with pytest.raises(ValueError, match="no slimmable layers"):
        set_width(nn.Linear(2, 2), 0.5)
    a = Channels(16)
    layer = SlimmableLinear(a, 3)
    a.set(0.5)
    norms = (SlimmableLayerNorm(a), SlimmableGroupNorm(a), SlimmableBatchNorm2d(a))
    for each, x in zip((layer, *norms), (torch.zeros(1, 16),) * 3 + (torch.zeros(1, 16, 2, 2),), strict=True):
        with pytest.raises(ValueError, match=r"reads 8 of 16 channels at its present width, but is given 16"):
            each(x)
    cost = Cost(layer, torch.zeros(1, 8))
    for ask in (cost.macs, cost.parameters):
        with pytest.raises(ValueError, match="no module 'encoder', whose cost was asked for"):
            ask(below="encoder")
    with pytest.raises(ValueError, match=r"give one example or more, not \(0, 8\)"):
        Cost(layer, torch.zeros(0, 8))


class Windows(nn.Module):
    """Attention within quarters of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SlimmableAttention(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x.unflatten(1, (4, -1)).flatten(0, 1)).view_as(x)


def test_attention_within_windows_costs_less() -> None:
    model, x = Windows(), torch.randn(3, 20, 16)
    cost = Cost(model, x)
    for width in (0.5, 1.0):
        set_width(model, width)
        with OperationCounter() as counted:
            export_slim(model)(x)
        assert 2 * cost.macs() * len(x) == counted.total


class ByHand(nn.Module):
    """A layer, and a product and attention by functions, inside a decoder and outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = SlimmableConv2d(3, Channels(16), 3)
        self.decoder = ByHand.Decoder()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.flatten(2).unsqueeze(1)
        return self.layer(x), self.decoder(rows) + F.scaled_dot_product_attention(rows, rows, rows).sum()

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(3, 5)

        def forward(self, rows: Tensor) -> Tensor:
            return F.linear(self.map(rows.mT), self.map.weight.mT)


def test_what_is_computed_without_a_layer_has_its_cost() -> None:
    model, x = ByHand(), torch.randn(2, 3, 6, 5)
    cost = Cost(model, x)
    for width in WIDTHS:
        set_width(model, width)
        with OperationCounter() as counted:
            export_slim(model)(x)
        assert 2 * cost.macs() * len(x) == counted.total
    assert cost.macs(below="decoder") == 2 * 30 * 3 * 5
    assert cost.macs(1.0) == cost.macs(1.0, below="layer") + 2 * 30 * 3 * 5 + 2 * 3 * 3 * 30


def test_convolutions_of_every_number_of_sides_cost_what_torch_counts() -> None:
    torch.manual_seed(0)
    for plain, x in (
        (nn.Conv1d(4, 6, 3, groups=2, padding=1), torch.randn(2, 4, 9)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2), torch.randn(1, 4, 9)),
        (nn.Conv2d(4, 6, (3, 1), stride=2), torch.randn(3, 4, 9, 7)),
        (nn.Conv3d(2, 3, 2), torch.randn(1, 2, 5, 4, 3)),
    ):
        with FlopCounterMode(display=False) as counted:
            plain(x)
        assert 2 * Cost(plain, x).macs() * len(x) == counted.get_total_flops()
