"""The layers: streams, states, slopes, variants. What every mixer must do, the conformance kit checks."""

from __future__ import annotations

import pytest
import torch
from zoo_transnormer import (
    DiagAttention,
    DiagAttentionConfig,
    LightningAttention,
    LightningConfig,
    LightningState,
    MiniMaxConfig,
    NormAttention,
    NormAttentionConfig,
    Sglu,
    SgluConfig,
    TnlModuleConfig,
    decay_slopes,
)
from zoo_transnormer.parts import GATES

from zoo import torchvision_shim

WIDTH, HEADS = 24, 3


def lightning(config: LightningConfig | None = None, **place: int) -> LightningAttention:
    torch.manual_seed(0)
    layer = LightningAttention(config or LightningConfig(), width=WIDTH, heads=HEADS, causal=True, **place)
    return layer.double()


def test_streams_do_not_share_anything():
    """Two streams by turns, in steps of several tokens, with positions: each as if it were alone."""
    layer = lightning()
    x, other = torch.randn(2, 20, WIDTH).double(), torch.randn(2, 20, WIDTH).double()
    mine, theirs = layer.initial_state(2), layer.initial_state(2)
    outs = []
    for start, stop in ((0, 5), (5, 6), (6, 13), (13, 20)):
        y, mine = layer.step(x[:, start:stop], mine)
        _, theirs = layer.step(other[:, start:stop], theirs)
        outs.append(y)
    torch.testing.assert_close(torch.cat(outs, 1), layer(x))
    assert mine.tokens.tolist() == [20, 20]


def test_states_are_reordered_repeated_and_cut_off():
    """As beam search does: row 1 goes on twice, row 0 is dropped; rows may have seen different numbers."""
    layer = lightning()
    x = torch.randn(2, 9, WIDTH).double()
    _, state = layer.step(x, layer.initial_state(2))
    fresh, used = layer.initial_state(1), state.select(torch.tensor([1]))
    beams = state.select(torch.tensor([1, 1]))
    token = torch.randn(2, 1, WIDTH).double()
    y, _ = layer.step(token, beams)
    for row in range(2):
        alone, _ = layer.step(token[row : row + 1], used)
        torch.testing.assert_close(y[row : row + 1], alone)
    mixed = LightningState(*(torch.cat(pair) for pair in zip(used, fresh, strict=True)))
    y, _ = layer.step(token, mixed)
    torch.testing.assert_close(y[1:], layer(token[1:]))
    torch.testing.assert_close(y[:1], layer.step(token[:1], used)[0])
    assert state.memory.requires_grad and not state.detach().memory.requires_grad


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_a_prefill_of_any_length(tokens):
    for layer in (
        lightning(),
        NormAttention(NormAttentionConfig(), width=WIDTH, heads=HEADS, causal=True).double(),
        DiagAttention(DiagAttentionConfig(block=4), width=WIDTH, heads=HEADS, causal=True).double(),
    ):
        x = torch.randn(2, tokens + 5, WIDTH).double()
        first, state = layer.step(x[:, :tokens], layer.initial_state(2))
        second, _ = layer.step(x[:, tokens:], state)
        assert first.shape == (2, tokens, WIDTH)
        torch.testing.assert_close(torch.cat((first, second), 1), layer(x))


def test_training_evaluation_and_decoding_are_one_function():
    layer = lightning()
    x = torch.randn(2, 600, WIDTH).double()
    trained = layer.train()(x)
    assert torch.equal(trained, layer.eval()(x))
    steps, state = [], layer.initial_state(2)
    for token in x[:, :40].split(1, dim=1):
        y, state = layer.step(token, state)
        steps.append(y)
    torch.testing.assert_close(torch.cat(steps, 1), trained[:, :40])


def test_slopes_stay_float32_and_are_no_weights():
    layer = lightning(layer=1, depth=4)
    exact = decay_slopes(HEADS, 1, 4)
    for moved in (layer, layer.bfloat16(), layer.half(), layer.double()):
        assert moved.slopes.dtype == torch.float32 and torch.equal(moved.slopes, exact)
    assert "slopes" not in layer.state_dict()
    with torch.device("meta"):
        empty = LightningAttention(LightningConfig(), width=WIDTH, heads=HEADS, causal=True, layer=1, depth=4)
    assert torch.equal(empty.to_empty(device="cpu").slopes, exact)


def test_lrpe_in_the_first_layer_only():
    found = [lightning(layer=index, depth=3).lrpe is not None for index in range(3)]
    assert found == [True, False, False]
    assert lightning(LightningConfig(lrpe="all"), layer=2, depth=3).lrpe is not None
    assert lightning(LightningConfig(lrpe="none")).lrpe is None
    theta = lightning().lrpe.theta  # over the channels of all heads; one dimension: no weight decay
    torch.testing.assert_close(
        theta, 10_000.0 ** (-2 * torch.arange(WIDTH).double() / WIDTH), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("gate", GATES)
def test_gates(gate):
    """The gate multiplies what comes out of the norm, by something made of the same token."""
    layer = lightning(LightningConfig(gate=gate))
    x = torch.randn(1, 9, WIDTH).double()
    one = torch.ones_like(x)
    gated = layer.gate(x, one)
    expected = {
        "none": lambda: one,
        "linear": lambda: x @ layer.gate.linear.weight.T,
        "sigmoid": lambda: (x @ layer.gate.linear.weight.T).sigmoid(),
        "lowrank_sigmoid": lambda: (x @ layer.gate.down.weight.T @ layer.gate.up.weight.T).sigmoid(),
    }
    torch.testing.assert_close(gated, expected[gate]())
    torch.testing.assert_close(layer.gate(x, 3 * one), 3 * gated)


def test_variants_are_what_they_are_called():
    minimax = lightning(MiniMaxConfig(), layer=0, depth=2)
    torch.testing.assert_close(minimax.slopes, decay_slopes(HEADS, 0, 2, "minimax"))
    assert minimax.lrpe is None and minimax.norm.weight.shape == (WIDTH,)
    module = lightning(TnlModuleConfig())
    assert isinstance(module.norm, torch.nn.LayerNorm) and module.gate.down.weight.shape == (8, WIDTH)
    assert sum(p.numel() for p in lightning().parameters()) == 5 * WIDTH**2 + WIDTH  # W_qkvu, W_o, theta


def test_the_norm_takes_the_scale_of_the_values():
    """As a denominator would: values twice as large give the same output (up to the norm's epsilon)."""
    layer = lightning()
    x = torch.randn(2, 30, WIDTH).double()
    before = layer(x)
    with torch.no_grad():
        layer.qkv.weight[2 * WIDTH :] *= 10
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-4)


def test_values_of_minimax_are_activated():
    layer = lightning(MiniMaxConfig())
    with torch.no_grad():
        layer.qkv.weight[2 * WIDTH :] = -torch.eye(WIDTH)
    x = torch.randn(1, 1, WIDTH).double()
    values = layer._project(x)[2].flatten()
    torch.testing.assert_close(values, torch.nn.functional.silu(-x.flatten()))


def test_sglu():
    layer = Sglu(SgluConfig(ratio=2.75), width=16)
    assert layer.out.in_features == 44
    x = torch.randn(2, 3, 16)
    one, other = (x @ layer.inner.weight.T).chunk(2, -1)
    torch.testing.assert_close(layer(x), (one * other) @ layer.out.weight.T)


def test_norm_attention_gradients_stay_bounded():
    """Why a norm: with a denominator, a query whose scores nearly cancel has a gradient of any size."""
    v = torch.randn(1, 1, 2, 4).double()
    sizes = {"norm": [], "denominator": []}
    for total in (1.0, 1e-3, 1e-6):
        for form, found in sizes.items():
            scores = torch.tensor([total / 2 + 1, total / 2 - 1], dtype=torch.float64, requires_grad=True)
            mixed = scores @ v[0, 0]
            scale = (mixed.square().mean() + 1e-6).sqrt() if form == "norm" else scores.sum()
            (gradient,) = torch.autograd.grad((mixed / scale).sum(), scores)
            found.append(gradient.norm().item())
    assert max(sizes["norm"]) < 10 * min(sizes["norm"])
    assert sizes["denominator"][-1] > 1e9 * sizes["denominator"][0]


@pytest.mark.parametrize("layer", [0, 2])
def test_minimax_is_the_layer_of_hugging_face(layer):
    """Outputs and gradients of theirs, with our names for its weights; padding on the left."""
    torchvision_shim.install()
    pytest.importorskip("transformers")
    from transformers import MiniMaxConfig as TheirConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    channels, depth = WIDTH // HEADS, 4
    config = TheirConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=channels,
        num_hidden_layers=depth,
        block_size=8,
    )
    theirs, ours = (
        MiniMaxLightningAttention(config, layer),
        lightning(MiniMaxConfig(), layer=layer, depth=depth),
    )
    fused = theirs.qkv_proj.weight.unflatten(0, (HEADS, 3, channels)).transpose(0, 1).flatten(0, 2)
    weights = {
        "qkv.weight": fused,  # theirs are laid out by head
        "gate.linear.weight": theirs.output_gate.weight,
        "out.weight": theirs.out_proj.weight,
        "norm.weight": theirs.norm.weight,
    }
    ours.float().load_state_dict(weights)
    mask = torch.ones(2, 21, dtype=torch.bool)
    mask[1, :6] = False
    x, seen = torch.randn(2, 21, WIDTH, requires_grad=True), mask.unsqueeze(-1)
    expected = theirs(x, None, mask)[0].masked_fill(~seen, 0.0)
    found = ours(x, mask=mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    wanted = torch.randn_like(found)
    grads = [torch.autograd.grad((y * wanted).sum(), x)[0].masked_fill(~seen, 0.0) for y in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)
