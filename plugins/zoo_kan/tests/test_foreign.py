"""Layers of other packages as ours: the same outputs, gradients and scores."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from zoo_kan import from_efficient_kan, from_pykan
from zoo_kan.functional import bspline_basis, extend_grid

F64 = torch.float64


@pytest.mark.parametrize("scaled", [True, False])
def test_a_layer_of_efficient_kan(scaled: bool) -> None:
    """Its forward pass, written out: base(silu x) + the basis times the scaled weights."""
    torch.manual_seed(0)
    grid = extend_grid(torch.tensor([[-1.0, -0.2, 0.1, 1.0], [-2.0, 0.0, 1.0, 2.0]], dtype=F64), 2)
    theirs = SimpleNamespace(
        grid=grid,
        spline_weight=nn.Parameter(torch.randn(3, 2, 5, dtype=F64)),
        base_weight=nn.Parameter(torch.randn(3, 2, dtype=F64)),
        spline_order=2,
        base_activation=nn.SiLU(),
    )
    weights = theirs.spline_weight
    if scaled:
        theirs.spline_scaler = nn.Parameter(torch.randn(3, 2, dtype=F64))
        weights = weights * theirs.spline_scaler.unsqueeze(-1)
    ours = from_efficient_kan(theirs)
    x = 2 * torch.rand(50, 2, dtype=F64) - 1
    y = (
        nn.functional.silu(x) @ theirs.base_weight.T
        + bspline_basis(x, grid, 2).flatten(1) @ weights.flatten(1).T
    )
    torch.testing.assert_close(ours(x), y)
    assert (ours.scale is not None) == scaled


def test_a_layer_of_pykan() -> None:
    """Outputs, gradients, edge scores, after its own grid update; where pykan is installed."""
    pykan = pytest.importorskip("kan.KANLayer")
    torch.manual_seed(0)
    theirs = pykan.KANLayer(in_dim=3, out_dim=2, num=4, k=3).double()
    with torch.no_grad():
        theirs.coef.add_(torch.randn_like(theirs.coef))
        theirs.mask[1, 0] = 0
    x = torch.rand(60, 3, dtype=F64) * 2 - 1
    theirs.update_grid_from_samples(x)
    ours = from_pykan(theirs)
    assert ours.edge_mask[0, 1] == 0
    x = x.clamp(-0.9, 0.9).requires_grad_()
    y, _, curves, _ = theirs(x)
    torch.testing.assert_close(ours(x), y, rtol=1e-9, atol=1e-10)
    gradients = [torch.autograd.grad(form.square().sum(), x)[0] for form in (ours(x), y)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ours.edge_scores(x), curves.std(0), rtol=1e-5, atol=1e-5)


def test_what_is_no_such_layer_is_refused() -> None:
    for read in (from_pykan, from_efficient_kan):
        with pytest.raises(ValueError, match=r"a Linear has no grid, "):
            read(nn.Linear(2, 2))
    other = SimpleNamespace(grid=0, spline_weight=0, base_weight=0, spline_order=3, base_activation=nn.ReLU())
    with pytest.raises(ValueError, match="must be SiLU, got ReLU"):
        from_efficient_kan(other)
