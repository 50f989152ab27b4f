"""`KANConv2d`: equal to `KANLinear` on patches, differentiable, and refusing what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from zoo_kan import KANConv2d, KANLinear
from zoo_kan.config import KanConvConfig
from zoo_kan.conv import KanConv

from zoo.plugin import Image

F64 = torch.float64


@pytest.mark.parametrize("basis", ["bspline", "rbf", "chebyshev", "fourier"])
@pytest.mark.parametrize(
    "options", [{}, {"padding": 1, "stride": 2}, {"base": "none"}, {"order": 2, "grid_intervals": 3}]
)
def test_equals_kan_linear_on_patches(basis: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    conv = KANConv2d(2, 4, 3, basis=basis, **options).double()
    functions = {name: value for name, value in options.items() if name not in ("padding", "stride")}
    linear = KANLinear(2 * 9, 4, basis=basis, **functions).double()
    with torch.no_grad():  # both have a patch as channel, row, column
        linear.coef.copy_(conv.coef.flatten(1, 3))
        if conv.base_weight is not None and linear.base_weight is not None:
            linear.base_weight.copy_(conv.base_weight.flatten(1))
    x = torch.randn(2, 2, 7, 6, dtype=F64)
    y = conv(x)
    patches = F.unfold(x, 3, padding=conv.padding, stride=conv.stride).mT  # (B, L, C 9)
    torch.testing.assert_close(linear(patches).mT, y.flatten(2))


def test_gradients_and_what_is_kept() -> None:
    torch.manual_seed(0)
    conv = KANConv2d(1, 2, 2, grid_intervals=2).double()
    x = torch.randn(1, 1, 3, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, x) and torch.autograd.gradgradcheck(conv, x)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        conv(x)
    assert sum(kept) < 9 * conv.basis.count + 100  # the planes once, and little else


def test_the_model_halves_sides_and_has_its_layers_features() -> None:
    image = Image(channels=3, height=8, width=9)
    model = KanConv(KanConvConfig(channels=(4, 6)), width=1, causal=False, inputs=image)
    x = torch.randn(2, 3, 8, 9)
    assert model(x).shape == (2, 6)
    assert [tuple(f.shape[1:]) for f in model.forward_intermediates(x)] == [(4, 8, 9), (6, 4, 5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1"),
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"kernel_size": 3.0}, "kernel_size must be at least 1, and a whole number"),
        ({"padding": 0.5}, "padding must be at least 0, and a whole number"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"padding": -1}, "padding must be at least 0"),
        ({"base": "relu"}, "base must be one of"),
        ({"grid_intervals": 0}, "at least one interval"),
    ],
)
def test_sizes_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KANConv2d(**{"in_channels": 1, "out_channels": 1, "kernel_size": 3, **options})


def test_other_channels_and_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected x \(B, 3, H, W\)"):
        KANConv2d(3, 2, 3)(torch.zeros(1, 2, 5, 5))
    with pytest.raises(ValueError, match=r"floating-point type, got torch.uint8: convert it"):
        KANConv2d(3, 2, 3)(torch.zeros(1, 3, 5, 5, dtype=torch.uint8))
