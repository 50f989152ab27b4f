"""What the zoo builds of KAN layers: its settings, what it passes on, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from zoo_kan.config import (
    GridsConfig,
    KanConfig,
    KanConvConfig,
    KanFeedForwardConfig,
    KanHeadConfig,
    RawConfig,
)
from zoo_kan.model import Kan, KanHead, Raw

from zoo.plugin import ConfigError, Values, Vector


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KanConfig(hidden=()), "hidden: must name at least one layer"),
        (lambda: KanConfig(hidden=(0,)), "hidden"),
        (lambda: KanConfig(hidden=(4, 3), products=(1,)), "products: must have as many numbers as hidden, 2"),
        (lambda: KanConfig(hidden=(4, 3), products=(1, 4)), "products: cannot be more than the outputs"),
        (lambda: KanConfig(grid_intervals=0), "grid_intervals"),
        (lambda: KanConfig(order=-1), "order"),
        (lambda: KanConfig(low=1.0, high=1.0), r"high: must be above low \(1\), got 1"),
        (lambda: KanConfig(low=-math.inf), "low: must be finite, got -inf"),
        (lambda: KanHeadConfig(high=math.inf), "high: must be finite, got inf"),
        (lambda: KanFeedForwardConfig(sparsity=math.inf), "sparsity: must be finite, got inf"),
        (lambda: KanConfig(grid_intervals=2.5), "grid_intervals"),  # type: ignore[arg-type]
        (lambda: KanConfig(order=3.0), "order"),  # type: ignore[arg-type]
        (lambda: KanConfig(dropout_prob=1.0), "dropout_prob"),
        (lambda: KanConfig(sparsity=-1.0), "sparsity"),
        (lambda: KanHeadConfig(basis="rbf", grid_intervals=1, order=0), "basis rbf needs .* at least 2"),
        (lambda: KanFeedForwardConfig(ratio=0.0), "ratio"),
        (lambda: KanConvConfig(channels=()), "channels: must name at least one convolution"),
        (lambda: KanConvConfig(kernel=2), "kernel: must be odd, .* got 2"),
        (lambda: KanConvConfig(basis="fourier", grid_intervals=1, order=0), "basis fourier needs"),
        (lambda: GridsConfig(adapt_every=-1), "adapt_every"),
        (lambda: GridsConfig(uniform_share=1.5), "uniform_share"),
    ],
)
def test_settings_that_cannot_be_name_the_setting(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_what_layers_pass_on_and_which_there_are() -> None:
    torch.manual_seed(0)
    model = Kan(KanConfig(hidden=(6, 4, 3), products=(0, 1, 0)), width=5)
    x = torch.randn(7, 5)
    passed = model.forward_intermediates(x)
    assert [tuple(each.shape) for each in passed] == [(7, 6), (7, 4), (7, 3)]
    torch.testing.assert_close(passed[-1], model(x))
    for indices, wanted in ((1, [2]), (2, [1, 2]), ([0, -1], [0, 2])):
        for got, n in zip(model.forward_intermediates(x, indices=indices), wanted, strict=True):
            torch.testing.assert_close(got, passed[n])
    with pytest.raises(ValueError, match=r"layers are 0 to 2, or -3 to -1, got \[3\]"):
        model.forward_intermediates(x, indices=[3])


def test_nothing_stands_before_the_first_edge() -> None:
    stem = Raw(RawConfig(), inputs=Vector(features=3), width=5)
    x = torch.randn(4, 3)
    tokens, mask = stem(x)
    assert mask is None and torch.equal(tokens[:, :3], x) and not tokens[:, 3:].any()
    assert not list(stem.parameters())
    with pytest.raises(ValueError, match=r"expected \(B, 3\), got \(4, 2\)"):
        stem(x[:, :2])
    with pytest.raises(ConfigError, match="at least the number of features, 3"):
        Raw(RawConfig(), inputs=Vector(features=3), width=2)


def test_a_head_of_edges_has_a_bias_and_its_layer_none_without() -> None:
    head = KanHead(KanHeadConfig(), width=4, targets=Values(count=2))
    assert head(torch.randn(5, 4)).shape == (5, 2)
    assert head.layer.bias is not None and Kan(KanConfig(), width=4).layers[0].bias is None
