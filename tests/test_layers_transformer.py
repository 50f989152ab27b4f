"""The transformer stack and the vector baseline: claims, hybrids, streams, padding, gradients."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo.plugin as zp
from zoo.catalogue import Catalogue, catalogue
from zoo.config import build
from zoo.layers import MlpNet, MlpNetConfig, Transformer, TransformerConfig
from zoo.layers.transformer import pick_layers

WIDTH = 16
SMALL = {"depth": 2, "heads": 2}


class ToyConfig(zp.Config):
    """Parameters of the toy mixers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecayConfig(ToyConfig):
    decay: float = zp.param(0.5, "what is kept of the sum each step", at_least=0, at_most=1)


class Decay(nn.Module):
    """A decaying sum of the tokens so far: a foreign mixer with a constant state, without `rotary`."""

    def __init__(
        self, config: DecayConfig, *, width: int, heads: int, causal: bool, max_tokens: int | None
    ) -> None:
        super().__init__()
        self.decay, self.width = config.decay, width
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return self.step(x, self.initial_state(x.shape[0]), mask)[0]

    def initial_state(self, batch_size: int) -> Tensor:
        return self.project.weight.new_zeros(batch_size, self.width)

    def step(self, x: Tensor, state: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = []
        for i in range(x.shape[1]):
            new = self.decay * state + self.project(x[:, i])
            state = new if mask is None else torch.where(mask[:, i : i + 1], new, state)
            y.append(state)
        return torch.stack(y, 1), state


class Average(nn.Module):
    """The mean of all tokens: never causal, does not stream."""

    def __init__(self, config: None, *, width: int, heads: int, causal: bool, max_tokens: int | None) -> None:
        super().__init__()

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return x.mean(1, keepdim=True).expand_as(x)


@pytest.fixture(scope="module")
def toys() -> Catalogue:
    """A fresh catalogue: the core and a stranger with two mixers."""
    import zoo.core

    plugin: Any = ModuleType(__name__)
    plugin.__zoo_api__ = 1
    here = f"{__name__}:"

    @zp.hookimpl
    def zoo_components() -> tuple[zp.Spec, ...]:
        decay = zp.MixerSpec(
            name="decay",
            target=here + "Decay",
            config=here + "DecayConfig",
            causal="always",
            streaming=True,
            state="constant",
            max_tokens=500,
        )
        average = zp.MixerSpec(name="average", target=here + "Average", causal="never", min_tokens=2)
        return decay, average

    plugin.zoo_components = zoo_components
    fresh = Catalogue()
    fresh.add(zoo.core, id="core", distribution="archzoo")
    added = fresh.add(plugin, id="toy")
    assert (added.status, added.problems) == ("ok", [])
    return fresh


def config(**params: Any) -> TransformerConfig:
    return build(TransformerConfig, {**SMALL, **params})


def claims(found: Catalogue, **params: Any) -> zp.ModelSpec:
    return found.claims(found.part("model", "core/transformer", {**SMALL, **params}))


def stack(found: Catalogue | None = None, *, causal: bool = True, **params: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(config(**params), width=WIDTH, max_tokens=40, causal=causal, catalogue=found).double()


def tokens(n: int) -> Tensor:
    return torch.randn(3, n, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "rope": {"positions": "rope", "norm": "rms", "feed_forward": "core/swiglu"},
    "window": {"positions": "none", "mixer_params": {"core/softmax": {"window": 3}}},
    "hybrid": {"depth": 3, "positions": "rope", "layers": ["toy/decay", "core/softmax"]},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_streamed_equals_parallel(toys: Catalogue, variant: str, size: int) -> None:
    module, x = stack(toys, **VARIANTS[variant]), tokens(20)
    for first in (0, 5):
        state, outputs = module.initial_state(3), []
        for piece in ([x[:, :first]] if first else []) + list(x[:, first:].split(size, dim=1)):
            y, state = module.step(piece, state)
            outputs.append(y)
        torch.testing.assert_close(torch.cat(outputs, 1), module(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing_and_the_future_is_not_seen(toys: Catalogue, variant: str) -> None:
    module, x, n = stack(toys, **VARIANTS[variant]), tokens(10), 10
    expected = module(x)
    for left in (0, 2, 4):
        padded = nn.functional.pad(x, (0, 0, left, 4 - left), value=3.0)
        mask = torch.zeros(3, n + 4, dtype=torch.bool)
        mask[:, left : left + n] = True
        torch.testing.assert_close(module(padded, mask=mask)[:, left : left + n], expected)
    changed = x.clone()
    changed[:, 6:] += torch.randn(4, WIDTH)  # a constant would not pass the norm
    torch.testing.assert_close(module(changed)[:, :6], expected[:, :6], rtol=0, atol=1e-14)
    assert not torch.isclose(module(changed)[:, 6:], expected[:, 6:]).all(-1).any()
    assert torch.isfinite(module(x, mask=torch.zeros(3, n, dtype=torch.bool))).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient_and_one_example_is_as_good_as_three(
    toys: Catalogue, variant: str
) -> None:
    module, x = stack(toys, **VARIANTS[variant]), tokens(40)  # every learned position is met
    torch.testing.assert_close(torch.cat([module(row.unsqueeze(0)) for row in x]), module(x))
    (module(x) * torch.randn_like(x)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-9, name


def test_a_bidirectional_stack_sees_everything() -> None:
    module, x = stack(causal=False), tokens(10)
    changed = x.clone()
    changed[:, -1] += torch.randn(WIDTH)
    assert not torch.isclose(module(x)[:, 0], module(changed)[:, 0]).all(-1).any()
    with pytest.raises(ValueError, match="causal=True"):
        module.initial_state(1)


def test_positions_matter_only_where_asked_for() -> None:
    x = tokens(6)
    for positions, matter in (("none", False), ("learned", True), ("rope", True)):
        module = stack(causal=False, positions=positions)
        same = torch.allclose(module(x.flip(1)), module(x).flip(1))
        assert same is not matter, positions


def test_learned_positions_end(toys: Catalogue) -> None:
    module = stack(toys)
    with pytest.raises(ValueError, match=r"max_tokens=40, got 41 tokens; .*rope"):
        module(tokens(41))
    # Padding takes no position: 40 kept tokens of 45 are fine.
    x, mask = tokens(45), torch.ones(3, 45, dtype=torch.bool)
    mask[:, :5] = False
    torch.testing.assert_close(module(x, mask=mask)[:, 5:], module(x[:, 5:]))
    _, state = module.step(tokens(39), module.initial_state(3))
    _, state = module.step(tokens(1), state)
    with pytest.raises(ValueError, match="max_tokens=40, got 41"):
        module.step(tokens(1), state)
    with pytest.raises(ValueError, match=r"need max_tokens.*rope"):
        Transformer(config(), width=WIDTH, max_tokens=None, causal=True)
    stack(toys, positions="rope")(tokens(41))


def test_intermediates_are_what_the_layers_pass_on() -> None:
    module, x = stack(depth=4), tokens(5)
    passed = module.forward_intermediates(x)
    assert len(passed) == 4
    torch.testing.assert_close(module.norm(passed[-1]), module(x))
    torch.testing.assert_close(module.forward_intermediates(x, indices=[2, -4]), [passed[2], passed[0]])
    torch.testing.assert_close(module.forward_intermediates(x, indices=2), passed[2:])
    assert pick_layers([], count=4) == [] == pick_layers(0, count=4)
    for wrong in ([4], [-5], 5):
        with pytest.raises(ValueError, match="4"):
            module.forward_intermediates(x, indices=wrong)


def test_layers_repeat_until_the_depth(toys: Catalogue) -> None:
    module = stack(toys, depth=5, layers=["decay", "softmax"], mixer_params={"decay": {"decay": 0.25}})
    assert [type(b.mixer).__name__[:4] for b in module.blocks] == ["Deca", "Soft", "Deca", "Soft", "Deca"]
    assert {b.mixer.decay for b in module.blocks[::2]} == {0.25}


def test_copies_compute_the_same(toys: Catalogue) -> None:
    module, x = stack(positions="rope"), tokens(7)
    other = stack(positions="rope").requires_grad_(False)
    other.load_state_dict({name: torch.randn_like(t) for name, t in module.state_dict().items()})
    assert not torch.allclose(other(x), module(x))
    other.load_state_dict(module.state_dict())
    for copied in (other, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(copied(x), module(x))
    with torch.device("meta"):
        hollow = stack(positions="rope")
    assert hollow(x.to("meta")).shape == x.shape
    hollow.to_empty(device="cpu").load_state_dict(module.state_dict())
    assert torch.equal(hollow(x), module(x))  # nothing but the weights is kept


def test_stochastic_depth_skips_whole_examples_and_keeps_the_mean() -> None:
    from zoo.layers.drop_path import DropPath

    drop, ones = DropPath(0.25), torch.ones(4000, 3)
    torch.manual_seed(0)
    kept = drop(ones)
    assert kept.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (kept == kept[:, :1]).all() and kept.mean() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(ones), ones)
    module, x = stack(drop_path_prob=0.5, dropout_prob=0.1), tokens(4)
    assert [b.drop[1].prob for b in module.blocks] == [0.25, 0.5]
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_weights_start_at_the_promised_scale() -> None:
    torch.manual_seed(0)
    module = Transformer(TransformerConfig(depth=8), width=256, max_tokens=64)
    block = module.blocks[0]
    assert block.mixer.qkv.weight.std().item() == pytest.approx(256**-0.5, rel=0.05)
    assert block.feed_forward.out.weight.std().item() == pytest.approx((1024 * 16) ** -0.5, rel=0.05)
    last = module.forward_intermediates(torch.randn(2, 64, 256))[-1]
    assert 0.8 < last.std() < 1.5  # the stream neither grows nor fades


# -- claims ----------------------------------------------------------------------------------


def test_claims_are_the_worst_of_the_mixers(toys: Catalogue) -> None:
    plain = claims(toys)
    assert (plain.causal, plain.streaming, plain.state, plain.cost) == (
        "optional",
        True,
        "linear",
        "quadratic",
    )
    windowed = claims(toys, mixer_params={"core/softmax": {"window": 8}})
    assert (windowed.state, windowed.cost, windowed.max_tokens) == ("window", "linear", None)
    pure = claims(toys, layers=["toy/decay"])
    assert (pure.causal, pure.state, pure.cost, pure.max_tokens) == ("always", "constant", "linear", 500)
    mixed = claims(toys, layers=["toy/decay", "core/softmax"])
    assert (mixed.causal, mixed.streaming, mixed.state, mixed.cost) == ("always", True, "linear", "quadratic")
    still = claims(toys, layers=["toy/average", "core/softmax"])
    assert (still.causal, still.streaming, still.state, still.min_tokens) == ("never", False, "none", 2)
    with pytest.raises(zp.ContractError, match=r"'toy/decay' and 'toy/average' cannot stand in one stack"):
        claims(toys, layers=["toy/average", "toy/decay"])


@pytest.mark.parametrize(
    ("params", "paths", "words"),
    [
        ({"layers": ["core/softmax", "core/sofmax"]}, ["layers.1"], "core/softmax"),
        ({"layers": []}, ["layers"], "at least one"),
        ({"layers": ["core/softmax"] * 3}, ["layers"], "3 mixers, but depth is 2"),
        ({"mixer_params": {"core/softmax": {"windw": 3}}}, ["mixer_params.core/softmax.windw"], "window"),
        ({"mixer_params": {"softmax": {"window": 0}}}, ["mixer_params.softmax.window"], "at least 1"),
        ({"mixer_params": {"toy/decay": {}}}, ["mixer_params.toy/decay"], "no layer is 'toy/decay'"),
        ({"mixer_params": {"toy/dekay": {}}}, ["mixer_params.toy/dekay"], "toy/decay"),
        (
            {"mixer_params": {"softmax": {}, "core/softmax": {}}},
            ["mixer_params.core/softmax"],
            "already given",
        ),
        ({"feed_forward": "mpl"}, ["feed_forward"], "mlp"),
        ({"feed_forward_params": {"ratio": "x"}}, ["feed_forward_params.ratio"], "a number"),
        ({"layers": ["toy/decay"], "positions": "rope"}, ["positions"], "'learned' or 'none'"),
        (
            {"layers": ["nope"], "feed_forward": "nope", "mixer_params": {"nada": {}}},
            ["layers.0", "mixer_params.nada", "feed_forward"],
            "nope",
        ),
    ],
)
def test_mistakes_name_their_place(
    toys: Catalogue, params: dict[str, Any], paths: list[str], words: str
) -> None:
    with pytest.raises(zp.ConfigError) as caught:
        claims(toys, **params)
    assert [problem.path for problem in caught.value.problems] == paths
    assert words in str(caught.value)


def test_the_heads_must_divide_the_width(toys: Catalogue) -> None:
    with pytest.raises(zp.ConfigError, match="5 heads do not divide width 16; heads could be 2, 4, 8"):
        config(heads=5).check_width(16)
    with pytest.raises(zp.ConfigError, match=r"positions: .*width 6 / 2 heads is 3"):
        config(positions="rope").check_width(6)
    with pytest.raises(ValueError, match="do not divide"):
        Transformer(config(heads=5), width=16, max_tokens=4)


# -- the vector baseline ---------------------------------------------------------------------


def test_the_vector_baseline() -> None:
    torch.manual_seed(0)
    module = MlpNet(MlpNetConfig(depth=3, norm="rms", dropout_prob=0.2), width=WIDTH)
    x = torch.randn(5, WIDTH)
    assert module(x).shape == x.shape and not torch.equal(module(x), module(x))
    module.eval()
    passed = module.forward_intermediates(x)
    torch.testing.assert_close(module.norm(passed[-1]), module(x))
    assert torch.equal(module.forward_intermediates(x, indices=[1])[0], passed[1])
    torch.testing.assert_close(torch.cat([module(row.unsqueeze(0)) for row in x]), module(x))
    module(x).square().sum().mul(torch.rand(())).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
    with pytest.raises(ValueError, match="causal"):
        MlpNet(MlpNetConfig(), width=4, causal=True)


def test_core_components_load() -> None:
    """Every spec of the core that points here can be imported."""
    found = catalogue()
    for kind in ("model", "mixer", "feed_forward", "stem", "head"):
        for spec in found.specs(kind):
            if spec.target.startswith("zoo.layers."):
                assert spec.load() is not None and spec.config_class() is not None
