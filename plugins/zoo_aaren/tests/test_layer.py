"""The mixer: parallel equals streaming, padding changes nothing, parameters are those of the paper."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from zoo_aaren import Aaren, AarenConfig, reference


def _layer(*, width: int = 24, heads: int = 3, **options) -> Aaren:
    torch.manual_seed(0)
    layer = Aaren(AarenConfig(**options), width=width, heads=heads, causal=True, max_tokens=None)
    for parameter in layer.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)  # zero biases would hide what they do
    return layer


def _x(tokens: int = 50, width: int = 24) -> Tensor:
    return torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("masked", [False, True], ids=["all", "padded"])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"scale": 3.0}, {"block_size": 5}])
def test_equals_the_formula_of_the_paper_with_gradients(options, masked):
    layer, x = _layer(**options).double(), _x().double().requires_grad_()
    mask = (torch.arange(50) >= torch.tensor([[0], [20]])) if masked else None
    found, expected = (
        (y, *torch.autograd.grad(y.sin().sum(), (x, *layer.parameters())))
        for y in (layer(x, mask=mask), reference.aaren(layer, x, mask=mask))
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "padded"])
def test_what_it_says_of_its_attention_is_what_it_does(masked):
    layer, x = _layer().double(), _x().double()
    mask = (torch.arange(50) >= torch.tensor([[0], [20]])) if masked else torch.ones(2, 50, dtype=torch.bool)
    values = layer.value(x).unflatten(-1, (3, 8)).transpose(1, 2)
    found = layer._merge(layer.attention_probs(x, mask=mask) @ values)
    torch.testing.assert_close(found[mask], layer(x, mask=mask)[mask], rtol=0, atol=1e-10)


@pytest.mark.parametrize("pieces", [[1] * 50, [7] * 7 + [1], [49, 1], [50], [1, 16, 33]])
def test_steps_equal_the_parallel_form(pieces):
    layer, x = _layer(), _x()
    state, outputs = layer.initial_state(2), []
    size = [part.untyped_storage().nbytes() for part in state]
    for piece in x.split(pieces, 1):
        y, state = layer.step(piece, state)
        outputs.append(y)
        assert [part.untyped_storage().nbytes() for part in state] == size
    torch.testing.assert_close(torch.cat(outputs, 1), layer(x), rtol=0, atol=1e-5)
    assert sum(part.numel() for part in state) == 2 * (2 * layer.heads + 24)  # (2 H + width) per row


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(side):
    layer, x = _layer(), _x()
    lengths = torch.tensor([31, 50])
    mask = torch.arange(50) < lengths.unsqueeze(1)
    padded = x.masked_fill(~mask.unsqueeze(-1), 1e4)
    if side == "left":
        padded, mask = padded.flip(1), mask.flip(1)
    y = layer(padded, mask=mask)
    for row, length in enumerate(lengths):
        alone = x[row, :length] if side == "right" else x[row, :length].flip(0)
        torch.testing.assert_close(y[row, mask[row]], layer(alone.unsqueeze(0))[0], rtol=0, atol=1e-5)
    assert y.isfinite().all()
    if side == "left":
        assert y[0, : 50 - 31].eq(0).all()  # nothing to see yet


@pytest.mark.parametrize("heads", [1, 3])
def test_rows_of_a_batch_do_not_meet(heads):
    layer, x = _layer(heads=heads), _x()
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]), rtol=0, atol=1e-6)
    both, alone = layer.step(x, layer.initial_state(2))[1], layer.step(x[:1], layer.initial_state(1))[1]
    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one[:1], other, rtol=0, atol=1e-5)


def test_the_future_has_no_influence():
    layer, x = _layer(), _x()
    changed = x.clone()
    changed[:, 30:] += 1
    assert torch.equal(layer(x)[:, :30], layer(changed)[:, :30])
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[:, 20].sum(), x)
    assert gradient[:, 21:].eq(0).all() and gradient[:, :21].ne(0).any(-1).all()


def test_one_query_token_more_than_self_attention():
    for width, heads in ((24, 3), (512, 8)):
        ours = sum(p.numel() for p in _layer(width=width, heads=heads).parameters())
        theirs = sum(p.numel() for p in nn.MultiheadAttention(width, heads).parameters())
        assert ours - theirs == width


def test_every_parameter_learns_except_the_key_bias():
    layer, x = _layer().double(), _x().double()
    layer(x).sin().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None
        if name == "key.bias":  # adds the same to all scores of a head: no output depends on it
            assert parameter.grad.abs().max() < 1e-10
        else:
            assert parameter.grad.abs().max() > 1e-6, name


def test_a_query_token_of_zero_is_a_running_mean():
    layer, x = _layer(query_init_std=0.0, bias=False), _x()
    nn.init.zeros_(layer.query_token)
    means = x.cumsum(1) / torch.arange(1, 51).view(-1, 1)
    torch.testing.assert_close(layer(x), layer.out(layer.value(means)), rtol=0, atol=1e-5)


def test_options_reach_the_layer():
    assert _layer(scale=0.5).scale == 0.5 and _layer().scale == pytest.approx(8**-0.5)
    layer, x = _layer(dropout_prob=0.5), _x()
    assert (layer(x) == 0).float().mean() > 0.3
    assert torch.equal(layer.eval()(x), layer(x))
    torch.manual_seed(0)
    small = Aaren(AarenConfig(query_init_std=0.01), width=512, heads=4, causal=True, max_tokens=9)
    assert small.query_token.std().item() == pytest.approx(0.01, rel=0.2)


def test_autocast_keeps_the_state_in_float32():
    layer, x = _layer(), _x(200)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        first, state = layer.step(x[:, :120], layer.initial_state(2))
        second, state = layer.step(x[:, 120:], state)
        one, _ = layer.step(x[:, :1], layer.initial_state(2))
        y.float().sum().backward()
    assert y.dtype == one.dtype == torch.bfloat16 and all(part.dtype == torch.float32 for part in state)
    scale = exact.abs().max()
    assert (y.float() - exact).abs().max() < 2e-2 * scale
    assert (torch.cat([first, second], 1).float() - exact).abs().max() < 2e-2 * scale
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_a_bfloat16_layer_sums_in_float32():
    layer, x = _layer(), _x(200)
    exact = layer(x)
    layer, x = layer.bfloat16(), x.bfloat16()
    y, state = layer.step(x, layer.initial_state(2))
    assert y.dtype == torch.bfloat16 and all(part.dtype == torch.float32 for part in state)
    torch.testing.assert_close(y, layer(x))
    assert (y.float() - exact).abs().max() < 3e-2 * exact.abs().max()


def test_it_learns_what_a_running_mean_cannot():
    """Recall the marked token: the query must find the mark."""
    torch.manual_seed(0)
    layer = _layer(width=16, heads=2)
    readout = nn.Linear(16, 15)
    optim = torch.optim.Adam([*layer.parameters(), *readout.parameters()], lr=0.01)
    losses = []
    for _ in range(150):
        x = torch.randn(32, 20, 16)
        x[..., 0] = 0
        marked = torch.randint(0, 20, (32,))
        x[torch.arange(32), marked, 0] = 1
        target = x[torch.arange(32), marked, 1:]
        loss = (readout(layer(x)[:, -1]) - target).square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.3 < 0.9 < losses[0]  # the best constant answer has a loss of 1


def test_shapes_without_data():
    layer = _layer().to("meta")
    y, state = layer.step(_x().to("meta"), layer.initial_state(2))
    assert y.shape == layer(_x().to("meta")).shape == (2, 50, 24) and state.w.shape == (2, 3, 8)


def test_specs_and_config_need_no_torch():
    code = (
        "import sys, zoo_aaren, zoo_aaren.config, zoo_aaren.plugin as p;"
        "specs = p.zoo_components(); [s.config_class() for s in specs];"
        "assert {s.name for s in specs} == {'aaren', 'encoder'} and p.__zoo_api__ == 1;"
        "assert 'torch' not in sys.modules and 'Aaren' in dir(zoo_aaren)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_gives_what_it_lists():
    import zoo_aaren

    for name in zoo_aaren.__all__:
        assert getattr(zoo_aaren, name).__module__.startswith("zoo_aaren.")
    with pytest.raises(AttributeError, match="no attribute 'Bahdanau'"):
        zoo_aaren.Bahdanau  # noqa: B018
