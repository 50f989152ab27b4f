"""The mixers beyond what the conformance kit builds: every plan, pooling and row summary."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from zoo_combiner import (
    AxialConfig,
    CombinerAxial,
    CombinerFixed,
    CombinerLogsparse,
    FixedCombinerCache,
    FixedConfig,
    LogsparseConfig,
    reference,
)

import zoo
from zoo.layers import load_state, put_rows, save_state, select_rows
from zoo.plugin import Labels, Series

LAYERS = {
    "fixed_deepset": (CombinerFixed, FixedConfig(block_size=4, pooling="deepset", bias=True)),
    "fixed_mean": (CombinerFixed, FixedConfig(block_size=4, pooling="mean")),
    "logsparse_deepset": (CombinerLogsparse, LogsparseConfig(pooling="deepset")),
    "rowmajor_none": (CombinerAxial, AxialConfig(block_size=4, row_summary="none")),
    "rowmajor_wsum": (CombinerAxial, AxialConfig(block_size=4, row_summary="wsum")),
    "rowmajor_proj": (CombinerAxial, AxialConfig(block_size=4, bias=True)),
    "rowmajor_wsum_proj": (CombinerAxial, AxialConfig(block_size=4, row_summary="wsum_proj")),
    "vertical": (CombinerAxial, AxialConfig(block_size=4, plan="vertical", pooling="mean")),
    "horizontal": (CombinerAxial, AxialConfig(block_size=4, plan="horizontal", pooling="deepset")),
    "mixture": (CombinerAxial, AxialConfig(block_size=4, plan="mixture")),
    "average": (CombinerAxial, AxialConfig(block_size=4, plan="average")),
}
SPARSE = {
    "fixed": (CombinerFixed, FixedConfig(block_size=4, pooling="none")),
    "logsparse": (CombinerLogsparse, LogsparseConfig(pooling="none")),
    "rowmajor": (CombinerAxial, AxialConfig(block_size=4, pooling="none")),
    "mixture": (CombinerAxial, AxialConfig(block_size=4, plan="mixture", pooling="none")),
}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", [*LAYERS, *(f"sparse_{name}" for name in SPARSE)])
def test_what_it_says_of_its_attention_is_what_it_does(name: str, causal: bool) -> None:
    layer, x = _layer(name, causal=causal), torch.randn(2, 13, 8, dtype=torch.float64)
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[1, [0, 5, 12]] = False
    for keep in (None, mask):
        probs = layer.attention_probs(x, mask=keep)
        found, seen = layer._merge(probs @ layer._project(x)[2]), mask if keep is not None else mask | True
        torch.testing.assert_close(found[seen], layer(x, mask=keep)[seen], rtol=0, atol=1e-10)
        sums = probs.sum(-1).transpose(1, 2)[seen]
        torch.testing.assert_close(sums, torch.ones_like(sums))


def _layer(name: str, *, causal: bool = True):
    kind, config = (LAYERS | {f"sparse_{n}": entry for n, entry in SPARSE.items()})[name]
    torch.manual_seed(0)
    return kind(config, width=8, heads=2, causal=causal).double()


def _x(tokens: int) -> Tensor:
    return torch.randn(2, tokens, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both"])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_the_reference_with_gradients(name, causal):
    layer, x = _layer(name, causal=causal), _x(11).requires_grad_()
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[1, [0, 4, 9, 10]] = False
    leaves = (x, *layer.parameters())
    for keep in (None, mask):
        found, expected = layer(x, mask=keep), reference.layer(layer, x, mask=keep)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
        gradients = (torch.autograd.grad(y.sin().sum(), leaves) for y in (found, expected))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("pieces", [[1] * 23, [5, 1, 1, 9, 7], [8, 4, 1, 10], [23]])
@pytest.mark.parametrize("name", [*LAYERS, *(f"sparse_{name}" for name in SPARSE)])
@torch.no_grad()
def test_steps_equal_the_parallel_form(name, pieces):
    layer, x = _layer(name), _x(23)
    state, outputs = layer.initial_state(2), []
    for piece in x.split(pieces, 1):
        y, state = layer.step(piece, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), layer(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", [*LAYERS, *(f"sparse_{name}" for name in SPARSE)])
@torch.no_grad()
def test_streams_of_different_ages_stand_side_by_side(name, tmp_path):
    layer, x = _layer(name), _x(40)
    _, old = layer.step(x[:, :14], layer.initial_state(2))
    _, young = layer.step(x[1:, :5], layer.initial_state(1))
    state = put_rows(old, torch.tensor([1]), young)  # the second stream starts anew
    save_state(state, tmp_path / "state")
    state = load_state(tmp_path / "state", like=layer.initial_state(1))
    places = torch.tensor([14, 5])
    for piece in (1, 3, 9, 1):
        rows = [x[b, at : at + piece] for b, at in enumerate(places)]
        y, state = layer.step(torch.stack(rows), state)
        expected = [layer(x[b : b + 1])[0, at : at + piece] for b, at in enumerate(places)]
        torch.testing.assert_close(y, torch.stack(expected), rtol=0, atol=1e-11)
        places += piece
    y, _ = layer.step(x[1:, 19:22], select_rows(state, torch.tensor([1])))
    torch.testing.assert_close(y, layer(x[1:])[:, 19:22], rtol=0, atol=1e-11)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both"])
@pytest.mark.parametrize("name", [*LAYERS, *(f"sparse_{name}" for name in SPARSE)])
def test_no_tokens_at_all(name, causal):
    layer, x = _layer(name, causal=causal), _x(3)[:, :0]
    assert layer(x).shape == layer(x, mask=torch.ones(2, 0, dtype=torch.bool)).shape == (2, 0, 8)
    assert layer(_x(3)[:0]).shape == (0, 3, 8)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both"])
@pytest.mark.parametrize("name", [f"sparse_{name}" for name in SPARSE])
def test_sparse_layers_take_padding(name, causal):
    layer, x = _layer(name, causal=causal), _x(11)
    mask = torch.arange(11) >= torch.tensor([[0], [4]])
    garbage = x.masked_fill(~mask.unsqueeze(-1), float("nan"))
    torch.testing.assert_close(layer(garbage, mask=mask)[1:, 4:], layer(x[1:, 4:]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_example_that_keeps_nothing_is_zero(name, causal):
    layer, x = _layer(name, causal=causal), _x(11).requires_grad_()
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[1] = False
    y = layer(x, mask=mask)
    assert y[1].eq(0).all()
    torch.testing.assert_close(y[:1], layer(x[:1]), rtol=0, atol=1e-11)
    gradients = torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))
    assert gradients[0][1].eq(0).all() and all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_autocast_keeps_the_state_in_the_type_of_the_weights(name):
    layer, x = _layer(name).float(), _x(23).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state, outputs = layer.initial_state(2), []
        for piece in x.split([9, 1, 3, 1, 9], 1):
            y, state = layer.step(piece, state)
            outputs.append(y)
        whole = layer(x)
    assert {part.dtype for part in state} == {torch.float32, torch.int64}
    for y in (torch.cat(outputs, 1), whole):
        assert (y.float() - layer(x)).abs().max() < 5e-2


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both"])
@torch.no_grad()
def test_hybrids_take_padding(causal):
    torch.manual_seed(0)
    model = zoo.create_model(
        "core/transformer",
        inputs=Series(channels=3, length=20),
        targets=Labels(count=5),
        width=16,
        heads=2,
        depth=4,
        layers=["combiner/fixed", "core/softmax", "combiner/axial", "combiner/logsparse"],
        causal=causal,
    )
    model, x = model.double().eval(), torch.randn(3, 20, 3, dtype=torch.float64)
    mask = torch.arange(20) < torch.tensor([[20], [7], [0]])
    y = model(x.masked_fill(~mask.unsqueeze(-1), 1e3), mask=mask)
    assert y.isfinite().all()
    torch.testing.assert_close(y[1:2, :7], model(x[1:2, :7]), rtol=0, atol=1e-11)


@torch.no_grad()
def test_what_the_cache_of_fixed_holds():
    layer = _layer("fixed_mean")
    _, state = layer.step(_x(23), layer.initial_state(2))
    assert isinstance(state, FixedCombinerCache)
    assert state.keys.shape == state.queries.shape == (2, 2, 3, 4)  # 23 tokens are 5 blocks of 4, and 3
    assert state.span_keys.shape == state.span_values.shape == (2, 2, 5, 4)


@pytest.mark.parametrize(("max_tokens", "size"), [(None, 32), (1, 1), (15, 2), (64, 8), (4096, 64)])
def test_blocks_fit_the_tokens_that_are_expected(max_tokens, size):
    layer = CombinerFixed(FixedConfig(), width=8, heads=2, causal=True, max_tokens=max_tokens)
    assert layer.block_size == size


def test_dropout_of_weights_is_for_training_only():
    layer = CombinerAxial(
        AxialConfig(block_size=4, weights_dropout_prob=0.5), width=8, heads=2, causal=True
    ).double()
    x = _x(11)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
