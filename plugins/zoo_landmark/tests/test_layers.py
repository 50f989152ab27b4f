"""The mixers: the definition, streams cut anyhow, streams of different ages, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zoo_landmark import LandmarkAttention, LandmarkConfig, LandmarkState, LandmarkTokens, reference

from zoo.layers import Rotary, load_state, put_rows, save_state, select_rows

MIXERS = {"landmark": LandmarkAttention, "tokens": LandmarkTokens}
#: All that changes what is computed, at sizes at which every part of it has work to do.
OPTIONS = {
    "fetching": {"block": 3, "window": 1, "top_k": 2},
    "no window": {"block": 3, "window": 0, "top_k": 1},
    "local": {"block": 3, "window": 1, "top_k": 0},
    "all blocks": {"block": 2, "window": 2, "top_k": None},
    "forgetting": {"block": 2, "window": 1, "top_k": 1, "max_blocks": 3},
    "a window of all": {"block": 2, "window": 1, "top_k": None, "max_blocks": 2},
    "by token": {"block": 2, "window": 1, "top_k": 2, "select": "token"},
    "offloaded": {"block": 3, "window": 1, "top_k": 2, "offload": True},
    "blocks of one": {"block": 1, "window": 1, "top_k": 2},
}


def _layer(kind="landmark", *, rotary=True, width=16, heads=2, **options):
    torch.manual_seed(0)
    turn = Rotary(head_width=width // heads) if rotary else None
    layer = MIXERS[kind](LandmarkConfig(**options), width=width, heads=heads, causal=True, rotary=turn)
    for parameter in layer.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)  # zero biases would hide what they do
    return layer.double().eval()


def _x(tokens=29, batch=2, width=16, seed=1):
    return torch.randn(
        batch, tokens, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("options", OPTIONS)
def test_what_it_says_of_its_attention_is_what_it_does(kind, options):
    layer, x = _layer(kind, **OPTIONS[options]), _x()
    mask = torch.ones(2, 29, dtype=torch.bool)
    mask[1, [0, 5, 28]] = False
    for keep in (None, mask):
        seen = mask if keep is not None else mask | True
        for mode in (layer.train(), layer.eval()):
            probs = mode.attention_probs(x, mask=keep)
            found = mode._merge(probs @ mode._project(x, 0)[2])
            torch.testing.assert_close(found[seen], mode(x, mask=keep)[seen], rtol=0, atol=1e-10)
            sums = probs.sum(-1).transpose(1, 2)[seen]
            torch.testing.assert_close(sums, torch.ones_like(sums))


def _stream(layer, x, sizes, state=None):
    state, outputs, start = state or layer.initial_state(len(x)), [], 0
    for size in sizes:
        y, state = layer.step(x[:, start : start + size], state)
        outputs.append(y)
        start += size
    assert start == x.shape[1]
    return torch.cat(outputs, 1), state


def _same(found, expected, atol=1e-10):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("options", [o for name, o in OPTIONS.items() if name != "by token"], ids=str)
def test_evaluation_equals_the_definition_with_gradients(kind, options):
    layer, x = _layer(kind, **options), _x(17).requires_grad_()
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[1, [0, 4, 5, 16]] = False
    form = getattr(reference, kind)
    inputs = (x, *layer.parameters())
    found, expected = (
        (y, *torch.autograd.grad(y.sin().sum(), inputs))
        for y in (layer(x, mask=mask), form(layer, x, mask=mask))
    )
    for one, other in zip(found, expected, strict=True):
        _same(one, other)


@pytest.mark.parametrize("kind", MIXERS)
def test_training_sees_all_blocks(kind):
    layer, x = _layer(kind, block=3, window=0, top_k=0).train(), _x(17)
    _same(layer(x), getattr(reference, kind)(layer, x))
    everything = _layer(kind, block=3, window=0, top_k=None)
    _same(everything(x), layer(x))
    assert (layer.eval()(x) - everything(x)).abs().max() > 0.01


@pytest.mark.parametrize("rotary", [True, False], ids=["rope", "none"])
@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_streams_equal_the_parallel_form(options, kind, rotary):
    layer, x = _layer(kind, rotary=rotary, **options), _x()
    with torch.no_grad():
        expected = layer(x)
        for sizes in ([1] * 29, [29], [2, 1, 7, 1, 5, 13], [11, 18]):
            _same(_stream(layer, x, sizes)[0], expected)


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.sets(st.integers(1, 28)),
    block=st.integers(1, 6),
    window=st.integers(0, 2),
    top_k=st.integers(0, 4),
)
def test_streams_cut_anywhere(cuts, block, window, top_k):
    layer, x = _layer(block=block, window=window, top_k=top_k), _x(batch=1)
    ends = [*sorted(cuts), 29]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    with torch.no_grad():
        _same(_stream(layer, x, sizes)[0], layer(x))


@pytest.mark.parametrize("kind", MIXERS)
def test_fetching_all_there_is_equals_one_pass_at_true_places(kind):
    x = _x()
    with torch.no_grad():
        whole = _layer(kind, block=3, window=0, top_k=None)(x)
        blocks = 29 // 3
        for top_k in (blocks, blocks + 5):
            layer = _layer(kind, block=3, window=0, top_k=top_k)
            _same(_stream(layer, x, [1] * 29)[0], whole)
            _same(_stream(layer, x, [1, 11, 17])[0], whole)


def test_fetching_more_than_a_few_blocks_changes_little_by_little():
    """What is not fetched is not seen: the change in a block reaches a later token only through a fetch."""
    layer, x = _layer(block=3, window=0, top_k=1, rotary=False), _x(batch=1)
    changed = x.clone()
    changed[:, 0:3] += 1e-4  # block 0: which blocks are fetched stays the same
    with torch.no_grad():
        reached = (layer(changed) - layer(x)).abs().amax(-1)[0, 6:] > 1e-12
    assert reached.any() and not reached.all()


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("options", ["fetching", "forgetting"])
def test_streams_of_different_ages_side_by_side(kind, options):
    layer, x = _layer(kind, **OPTIONS[options]), _x(batch=3)
    with torch.no_grad():
        expected = torch.cat([layer(row[None]) for row in x])
        _, old = _stream(layer, x[:1, :20], [20])
        _, young = _stream(layer, x[1:2, :2], [2])
        state = put_rows(layer.initial_state(3), torch.tensor([0]), old)
        state = put_rows(state, torch.tensor([1]), young)
        assert state.position.unique().numel() == 3
        y, state = layer.step(torch.stack((x[0, 20:25], x[1, 2:7], x[2, :5])), state)
        more, _ = layer.step(torch.stack((x[0, 25:29], x[1, 7:11], x[2, 5:9])), state)
        y = torch.cat((y, more), 1)
    for found, row, start in zip(y, expected, (20, 2, 0), strict=True):
        _same(found, row[start : start + 9])


def test_a_state_survives_its_file_and_can_be_reordered(tmp_path):
    layer, x = _layer(**OPTIONS["fetching"]), _x()
    with torch.no_grad():
        _, state = _stream(layer, x[:, :20], [20])
        save_state(state, tmp_path / "state.safetensors")
        state = load_state(tmp_path / "state.safetensors", like=layer.initial_state(1))
        assert isinstance(state, LandmarkState)
        rows = torch.tensor([1, 0, 1])
        y, _ = layer.step(x[rows, 20:], select_rows(state, rows))
        _same(y, layer(x)[rows, 20:])


def test_the_state_holds_as_many_blocks_as_it_may():
    bounded = _layer(block=3, window=1, top_k=1, max_blocks=4, width=8)
    free = _layer(block=3, window=1, top_k=1, width=8)
    x = _x(150, width=8)
    with torch.no_grad():
        _, state = _stream(bounded, x, [70, 1, 79])
        assert state.blocks.landmarks.shape[2] == 4
        _, state = _stream(free, x, [70, 1, 79])
        assert state.blocks.landmarks.shape[2] == 150 // 3 - 1
        assert state.keys.shape[2] == 4  # of the window, one block of three tokens and its landmark


@pytest.mark.parametrize("kind", MIXERS)
def test_padding_changes_nothing_wherever_it_is(kind):
    layer, x = _layer(kind, **OPTIONS["fetching"]), _x()
    mask = torch.rand(2, 29, generator=torch.Generator().manual_seed(3)) < 0.7
    loud = x.masked_fill(~mask.unsqueeze(-1), float("nan"))
    with torch.no_grad():
        y = layer(loud, mask=mask)
        for row in range(2):
            _same(y[row, mask[row]], layer(x[row : row + 1, mask[row]])[0])
    assert not y[~mask].any()


def test_a_landmark_knows_its_block():
    """The key of a block's landmark depends on every token in it, and on no other."""
    layer, x = _layer(block=5), _x(10)
    _, k, v = layer._project(x.requires_grad_(), 0)
    keys = layer.landmarks(k, v)  # (B, H, 2, d)
    (grad,) = torch.autograd.grad(keys[0, :, 1].sum(), x)
    assert bool((grad[0, 5:].abs().amax(-1) > 0).all()) and not grad[0, :5].any() and not grad[1].any()


def test_what_is_refused():
    config = LandmarkConfig()
    with pytest.raises(ValueError, match="landmark attention is causal only"):
        LandmarkAttention(config, width=16, heads=2, causal=False)
    with pytest.raises(ValueError, match="width 16 must be a multiple of heads 3"):
        LandmarkTokens(config, width=16, heads=3, causal=True)
    layer = _layer(block=3)
    with pytest.raises(ValueError, match=r"x must be \(B, N, 16\)"):
        layer(_x(width=8))
    with pytest.raises(ValueError, match=r"mask must be bool \(2, 29\)"):
        layer(_x(), mask=torch.ones(2, 29))
    with pytest.raises(ValueError, match="the state is of 3 streams, but x holds 2"):
        layer.step(_x(), layer.initial_state(3))
    with pytest.raises(ValueError, match=r"state.blocks.keys must be \(2, \d, any, \d, \d\)"):
        layer.step(_x(), _layer(block=4).initial_state(2))
    narrow = _layer(block=3, window=0)
    _, state = narrow.step(_x(), narrow.initial_state(2))
    with pytest.raises(ValueError, match="got 9 and 2: it is of one with another window or max_blocks"):
        _layer(block=3, window=2).step(_x(), state)
    with pytest.raises(ValueError, match="state must be a LandmarkState"):
        layer.step(_x(), None)
    with pytest.raises(ValueError, match="cannot stand side by side"):
        put_rows(layer.initial_state(2), torch.tensor([0]), _layer(block=4).initial_state(1))
