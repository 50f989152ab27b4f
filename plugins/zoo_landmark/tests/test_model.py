"""`landmark/lm`: landmarks in the corpus, targets that step over them, as in the paper; and it streams."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from zoo_landmark import LandmarkConfig, LandmarkLm, LmConfig, insert_landmarks, shift_labels

from zoo.layers import put_rows
from zoo.plugin import ConfigError

MARK, VOCAB = 11, 11


def _model(**attention):
    torch.manual_seed(0)
    config = LmConfig(
        depth=2, heads=2, attention=LandmarkConfig(**{"block": 3, "window": 1, "top_k": 1} | attention)
    )
    model = LandmarkLm(config, width=16)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def test_it_is_the_model_with_landmarks_in_the_corpus():
    """Ids with landmarks inserted, targets that step over them: the same loss and gradients."""
    model = _model(top_k=None)
    table = torch.randn(VOCAB, 16, dtype=torch.float64, requires_grad=True)
    head = torch.randn(16, VOCAB, dtype=torch.float64)
    ids = torch.randint(VOCAB, (2, 14), generator=torch.Generator().manual_seed(1))
    plain = F.cross_entropy((model(table[ids]) @ head)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    joined, _, _ = insert_landmarks(ids, MARK, 3)
    rows = torch.cat((table, model.landmark[None]))
    logits = model.stack(rows[joined]) @ head
    labels = shift_labels(joined, MARK)
    corpus = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    inputs = (table, *model.parameters())
    for one, other in zip(
        (plain, *torch.autograd.grad(plain, inputs)),
        (corpus, *torch.autograd.grad(corpus, inputs)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sizes", [[1] * 31, [31], [4, 1, 9, 17]])
def test_streams_equal_the_parallel_form(sizes):
    """With fetching, and through the first layer, where all landmarks are equal."""
    model = _model()
    x = torch.randn(2, 31, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        state, outputs, start = model.initial_state(2), [], 0
        for size in sizes:
            y, state = model.step(x[:, start : start + size], state)
            outputs.append(y)
            start += size
        torch.testing.assert_close(torch.cat(outputs, 1), model(x), rtol=0, atol=1e-9)


def test_streams_of_different_ages_side_by_side():
    model = _model()
    x = torch.randn(2, 31, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, old = model.step(x[:1, :20], model.initial_state(1))
        state = put_rows(model.initial_state(2), torch.tensor([0]), old)
        y, state = model.step(torch.stack((x[0, 20:25], x[1, :5])), state)
        torch.testing.assert_close(y[0], model(x)[0, 20:25], rtol=0, atol=1e-9)
        torch.testing.assert_close(y[1], model(x)[1, :5], rtol=0, atol=1e-9)


def test_layers_pass_on_tokens_without_landmarks():
    model = _model()
    x = torch.randn(2, 10, 16, dtype=torch.float64)
    layers = model.forward_intermediates(x)
    assert [y.shape for y in layers] == [(2, 10, 16)] * 2
    torch.testing.assert_close(model.stack.norm(layers[-1]), model(x))
    mask = torch.arange(10) >= torch.tensor([[0], [4]])
    masked = model.forward_intermediates(x, mask=mask, indices=1)[0]
    torch.testing.assert_close(masked[1, 4:], model.forward_intermediates(x[1:, 4:])[-1][0])


def test_what_is_refused():
    with pytest.raises(ConfigError, match="do not divide width 10"):
        LandmarkLm(LmConfig(heads=4), width=10)
    with pytest.raises(ValueError, match="causal only"):
        LandmarkLm(LmConfig(), width=16, causal=False)
    with pytest.raises(ConfigError, match="max_blocks: must be at least top_k=4"):
        LandmarkConfig(max_blocks=2)
