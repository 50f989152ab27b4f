"""The layers: equal to their slow forms, streams in any split, documents apart, and who sees what."""

from __future__ import annotations

import pytest
import torch
from zoo_titans import MemoryConfig, NeuralMemory, reference
from zoo_titans.config import MacConfig, WindowConfig
from zoo_titans.mac import MemoryAsContext
from zoo_titans.window import MemoryAsGate, MemoryAsLayer

from zoo.layers import Rotary, put_rows, select_rows
from zoo.plugin import ConfigError

WIDTH, TOKENS = 16, 13
SHORT = {"chunk": 4, "window": 5, "persistent": 3}
LAYERS = {
    "memory": (NeuralMemory, MemoryConfig, {"chunk": 4}, reference.memory_layer),
    "mac": (MemoryAsContext, MacConfig, {"segment": 5, "persistent": 3}, reference.mac),
    "mag": (MemoryAsGate, WindowConfig, SHORT, reference.mag),
    "mal": (MemoryAsLayer, WindowConfig, SHORT, reference.mal),
}


def build(name: str, **options):
    make, config, short, _ = LAYERS[name]
    torch.manual_seed(0)
    more = {} if name == "memory" else {"rotary": Rotary(head_width=8)}
    return make(config(**{**short, **options}), width=WIDTH, heads=2, **more).double()


def tokens(n: int = TOKENS, batch: int = 2, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, WIDTH, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", [{}, {"gates": "chunk", "conv": 1}], ids=["by-token", "by-chunk"])
def test_equals_the_slow_form_with_gradients(name, options):
    layer, slow, x = build(name, **options), LAYERS[name][3], tokens().requires_grad_()
    mask = torch.rand(2, TOKENS, generator=torch.Generator().manual_seed(2)) > 0.2
    for given in (None, mask):
        found, expected = (
            (y, *torch.autograd.grad(y.sin().sum(), (x, *layer.parameters())))
            for y in (layer(x, mask=given), slow(layer, x, mask=given))
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", [{}, {"gates": "chunk"}], ids=["by-token", "by-chunk"])
@pytest.mark.parametrize("pieces", [[1] * TOKENS, [3, 1, 7, 2], [12, 1]])
def test_any_split_gives_the_same(name, options, pieces):
    layer, x = build(name, **options), tokens()
    _, whole = layer.step(x, layer.initial_state(2))
    state, outputs = layer.initial_state(2), []
    for piece in x.split(pieces, 1):
        y, state = layer.step(piece, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), layer(x))
    kept, expected = (s if name == "memory" else s.memory for s in (state, whole))
    for one, other in zip(kept.memory, expected.memory, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", LAYERS)
def test_streams_of_any_age_stand_side_by_side(name):
    layer, x = build(name), tokens(20, batch=3)
    _, state = layer.step(x[:, :7], layer.initial_state(3))
    state = put_rows(state, torch.tensor([1]), layer.initial_state(1))
    y, _ = layer.step(x[:, 7:20], state)
    torch.testing.assert_close(y[0], layer(x[:1, :20])[0, 7:])
    torch.testing.assert_close(y[1], layer(x[1:2, 7:20])[0])
    swapped, _ = layer.step(x[[2, 0], 7:20], select_rows(state, torch.tensor([2, 0])))
    torch.testing.assert_close(swapped, y[[2, 0]])


@pytest.mark.parametrize("name", LAYERS)
def test_documents_of_a_row_are_apart(name):
    layer, x = build(name), tokens()
    starts = torch.zeros(2, TOKENS, dtype=torch.bool)
    starts[0, 6] = starts[1, 0] = starts[1, 5] = starts[1, 6] = True
    mask = torch.ones_like(starts)
    mask[0, 2] = mask[1, 9] = False
    y = layer(x, starts=starts)
    torch.testing.assert_close(y[0, :6], layer(x[:1, :6])[0])
    torch.testing.assert_close(y[0, 6:], layer(x[:1, 6:])[0])
    torch.testing.assert_close(y[1, 5:6], layer(x[1:, 5:6])[0])
    padded = layer(x, starts=starts, mask=mask)
    kept = [t for t in range(6, TOKENS) if t != 9]
    torch.testing.assert_close(padded[1, kept], layer(x[1:, kept])[0])
    assert not padded[1, 9].any()
    with pytest.raises(ValueError, match=r"starts must be bool \(2, 13\)"):
        layer(x, starts=starts.long())


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_memories_of_any_depth(depth):
    layer, x = build("memory", depth=depth, residual=True), tokens()
    torch.testing.assert_close(layer(x), reference.memory_layer(layer, x))
    assert len(layer.memory.first) == depth


def test_segments_are_independent_without_a_memory():
    """Only the memory crosses segments: with one that gives zeros and learns nothing, nothing does."""
    layer, x = build("mac"), tokens(20)
    with torch.no_grad():
        layer.memory.first[-1].zero_()
        layer.memory.theta_max = 0.0
    layer.gate = torch.nn.Module()
    layer.gate.forward = lambda y, read: y
    whole = layer(x)
    for start in range(0, 20, 5):
        torch.testing.assert_close(whole[:, start : start + 5], layer(x[:, start : start + 5]))
    layer.memory.theta_max = 0.1
    assert (layer(x)[:, 5:] - whole[:, 5:]).abs().max() > 1e-6


def test_retrieval_takes_the_weights_from_before_the_segment():
    layer, x = build("mac"), tokens(10)
    seen = []
    recall = layer.memory.recall
    layer.memory.recall = lambda q, weights: seen.append(weights[0]) or recall(q, weights)
    changed = x.clone()
    changed[:, 6:] += 1.0  # tokens of the second segment
    layer(x)
    layer(changed)
    first, second, _, second_changed = seen
    torch.testing.assert_close(first[0], layer.memory.first[0])
    torch.testing.assert_close(second, second_changed)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ["mac", "mag", "mal"])
def test_persistent_tokens_are_seen_by_all_and_learn(name):
    layer, x = build(name), tokens()
    layer(x)[:, -1].sum().backward()
    assert layer.attention.persistent.grad.abs().min(1).values.max() > 0
    without = build(name, persistent=0)
    assert without.attention.persistent is None
    torch.testing.assert_close(without(x), LAYERS[name][3](without, x))


@pytest.mark.parametrize("name", ["mag", "mal"])
def test_the_window_ends_where_it_says(name):
    """With a memory that learns nothing and no convolutions, a change is seen for `window` tokens."""
    layer, x = build(name, conv=1, max_surprise=None), tokens(70)
    memory = layer.memory if name == "mag" else layer.memory.memory
    memory.theta_max = 0.0
    torch.nn.init.zeros_(memory.gate.weight)  # all tokens forget alike
    changed = x.clone()
    changed[:, 10] += 1.0
    moved = (layer(changed) - layer(x)).abs().amax((0, 2)) > 1e-12
    assert moved.nonzero().squeeze(1).tolist() == list(range(10, 15))


def test_half_precision_keeps_a_full_state():
    layer, x = build("mag").float(), tokens().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer.step(x, layer.initial_state(2))
    assert all(w.dtype == torch.float32 for w in state.memory.memory.weights)
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_layer_refuses(name):
    make, config, short, _ = LAYERS[name]
    with pytest.raises(ValueError, match="causal only"):
        make(config(**short), width=16, heads=2, causal=False)
    with pytest.raises(ValueError, match="must be a multiple of heads"):
        make(config(**short), width=16, heads=3)
    layer = build(name)
    with pytest.raises(ValueError, match=r"expected x \(B, N, 16\), got \(2, 16\)"):
        layer(torch.zeros(2, 16))
    with pytest.raises(ValueError, match="state is of 3 streams, but x holds 2"):
        layer.step(tokens(4), layer.initial_state(3))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"conv": 2}, r"state.*tail must be \(2, 3, 48\) in this layer, got \(2, 1, 48\)"),
        ({"expansion": 1.0}, r"weights.0 must be \(2, 2, 8, 16\) in this layer, got \(2, 2, 8, 8\)"),
        ({"depth": 3}, r"weights.1 must be \(2, 2, 16, 8\) in this layer, got \(2, 2, 16, 16\)"),
        ({"chunk": 16, "segment": 16}, "(must stay below chunk=|must be)"),
        ({"persistent": 2}, r"must be \(2, 2, 3, 8\) in this layer, got \(2, 2, 2, 8\)"),
    ],
)
@pytest.mark.parametrize("name", LAYERS)
def test_a_state_of_a_layer_with_other_parameters_is_refused(name, other, message):
    layer, short = build(name), LAYERS[name][2]
    known = {key: value for key, value in other.items() if key in short or key not in SHORT | {"segment": 0}}
    if not known or (name == "mac" and "persistent" in known):  # it has no such thing in its state
        return
    stranger = build(name, **known)
    _, state = stranger.step(tokens(7), stranger.initial_state(2))
    with pytest.raises(ValueError, match=message):
        layer.step(tokens(4), state)


def test_a_memory_of_as_many_channels_but_more_layers_is_refused():
    one, two = build("memory", depth=1, expansion=1.0), build("memory", depth=2, expansion=1.0)
    with pytest.raises(ValueError, match="must be of 1 layers here, got 2"):
        one.step(tokens(4), two.initial_state(2))
    with pytest.raises(ValueError, match=r"weights.1 must be a tensor \(2, 2, 8, 8\), got a NoneType"):
        two.step(tokens(4), one.initial_state(2))
    by_token, by_chunk = build("memory"), build("memory", gates="chunk")
    with pytest.raises(ValueError, match=r"state.gates must be a tensor \(2, 6\), got a NoneType"):
        by_chunk.step(tokens(4), by_token.initial_state(2))


def test_the_step_starts_at_the_stability_rule():
    layer = build("memory", chunk=32, loss_scale=0.5)
    theta = layer.memory.theta_max * 0.25
    assert 2 * 0.5 * theta * 32 / (1 - 0.5) <= 1.0 + 1e-9


@pytest.mark.parametrize("name", LAYERS)
def test_a_state_from_before_the_first_weights_changed_is_pointed_out(name, recwarn):
    layer, x = build(name), tokens(4)
    _, state = layer.step(x, layer.initial_state(2))
    layer.step(x, select_rows(state, torch.tensor([1, 0])))
    assert not recwarn.list
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.01)
    layer(x).sum().backward()
    optimiser.step()
    with pytest.warns(UserWarning, match="first weights have changed since this state began"):
        layer.step(x, state)
    layer.step(x, layer.initial_state(2))


def test_a_token_may_begin_by_asking_for_what_followed_it():
    """`init: recall`: queries are the keys of the next token, nearly, and of no other."""
    layer = build("memory", init="recall")
    told, _, _ = layer.memory.tell(tokens(40), layer.memory.initial_state(2), phase=0)
    likeness = told.q @ told.k.mT  # (B, H, N, N)
    assert likeness.diagonal(1, -2, -1).mean() > 0.9
    assert likeness.mean() < 0.5
    with pytest.raises(ConfigError, match="recall needs convolutions"):
        MemoryConfig(init="recall", conv=1)
