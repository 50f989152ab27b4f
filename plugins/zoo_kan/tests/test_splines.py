"""B-splines: against scipy and the recursion as it is written, and between curves and coefficients."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.interpolate import BSpline
from zoo_kan import bspline_basis, coef2curve, curve2coef
from zoo_kan.functional import extend_grid, refine_matrix, uniform_grid
from zoo_kan.reference import bspline

F64 = torch.float64


def grids(order: int) -> dict[str, torch.Tensor]:
    """Uniform, irregular and with repeated knots, one feature each: (1, M)."""
    core = {
        "uniform": torch.linspace(-1, 1, 6, dtype=F64),
        "irregular": torch.tensor([-1.0, -0.9, -0.2, 0.5, 0.6, 1.0], dtype=F64),
        "repeated": torch.tensor([-1.0, -0.3, -0.3, 0.2, 0.9, 1.0], dtype=F64),
    }
    return {name: extend_grid(knots[None], order) for name, knots in core.items()}


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("kind", ["uniform", "irregular", "repeated"])
def test_bases_equal_scipy_and_the_recursion(order: int, kind: str) -> None:
    grid = grids(order)[kind]
    x = torch.linspace(-1.7, 1.7, 57, dtype=F64)
    ours = bspline_basis(x[:, None], grid, order)[:, 0]  # (S, K)
    knots = grid[0].tolist()
    count = len(knots) - order - 1
    theirs = np.stack([_scipy(knots, j, order, x.numpy()) for j in range(count)], axis=1)
    slow = torch.tensor([[bspline(v, knots, j, order) for j in range(count)] for v in x.tolist()], dtype=F64)
    torch.testing.assert_close(ours, slow, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-12, atol=1e-13)


def _scipy(knots: list[float], j: int, order: int, x: np.ndarray) -> np.ndarray:
    one = np.zeros(len(knots) - order - 1)
    one[j] = 1
    inside = (x >= knots[j]) & (x < knots[j + order + 1])  # beyond its support scipy goes on
    padded = np.concatenate([np.full(order, knots[0] - 1), knots, np.full(order, knots[-1] + 1)])
    return np.where(inside, BSpline(padded, np.pad(one, order), order)(x), 0.0)


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("repeated", [False, True])
def test_the_end_of_the_grid_belongs_to_it(order: int, repeated: bool) -> None:
    """Also where all knots outside lie on the ends, as scipy has it."""
    core = torch.tensor([[-1.0, -0.2, 0.1, 0.9, 1.3]], dtype=F64)
    grid = extend_grid(core, order)
    if repeated:
        grid = torch.cat([core[:, :1].repeat(1, order), core, core[:, -1:].repeat(1, order)], dim=1)
    x = core[0, [0, 2, 4]]
    theirs = BSpline.design_matrix(x.numpy(), grid[0].numpy(), order).toarray()
    ours = bspline_basis(x[:, None], grid, order)[:, 0]
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-14)
    slow = [[bspline(v, grid[0].tolist(), j, order) for j in range(ours.shape[1])] for v in x.tolist()]
    torch.testing.assert_close(ours, torch.tensor(slow, dtype=F64), rtol=0, atol=1e-14)
    beyond = torch.tensor([[grid[0, -1] + 1e-9], [math.inf], [-math.inf], [1e300]], dtype=F64)
    assert not bspline_basis(beyond, grid, order).any()
    assert bspline_basis(torch.tensor([[math.nan]], dtype=F64), grid, order).isnan().any()


@pytest.mark.parametrize("order", range(1, 6))
def test_derivatives_equal_scipy_up_to_the_order(order: int) -> None:
    grid = grids(order)["irregular"]
    coef = torch.randn(grid.shape[1] - order - 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(-0.999, 0.999, 41, dtype=F64)
    curve = BSpline(grid[0].numpy(), coef.numpy(), order)
    for n in range(order + 1):
        ours = bspline_basis(x[:, None], grid, order, derivative=n)[:, 0] @ coef
        torch.testing.assert_close(
            ours, torch.from_numpy(curve.derivative(n)(x.numpy())), rtol=1e-9, atol=1e-9
        )
    assert not bspline_basis(x[:, None], grid, order, derivative=order + 1).any()


def test_values_worked_out_by_hand() -> None:
    """Hats, and cubic splines on whole numbers: 1, 4, 1 sixths on a knot, 1, 23, 23, 1 in 48 between two."""
    hats = bspline_basis(
        torch.tensor([[0.25]], dtype=F64), uniform_grid(0, 2, 2, 1, features=1, dtype=F64), 1
    )
    torch.testing.assert_close(hats[0, 0], torch.tensor([0.75, 0.25, 0], dtype=F64))
    one = bspline_basis(torch.tensor([0.25], dtype=F64), uniform_grid(0, 2, 2, 1, features=1, dtype=F64), 1)
    assert torch.equal(one, hats[0])
    grid = uniform_grid(0, 3, 3, 3, features=1, dtype=F64)
    x = torch.tensor([[1.0], [1.5]], dtype=F64)
    by_hand = torch.tensor([[0, 8, 32, 8, 0, 0], [0, 1, 23, 23, 1, 0]], dtype=F64) / 48
    torch.testing.assert_close(bspline_basis(x, grid, 3)[:, 0], by_hand)
    slopes = torch.tensor([[0, -1 / 2, 0, 1 / 2, 0, 0], [0, -1 / 8, -5 / 8, 5 / 8, 1 / 8, 0]], dtype=F64)
    torch.testing.assert_close(bspline_basis(x, grid, 3, derivative=1)[:, 0], slopes)


@settings(max_examples=30, deadline=None)
@given(
    order=st.integers(0, 4),
    steps=st.lists(st.floats(1e-3, 2.0), min_size=1, max_size=7),
    places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5),
)
def test_the_values_sum_to_one_within_the_grid_and_vanish_outside(
    order: int, steps: list[float], places: list[float]
) -> None:
    core = torch.tensor([[0.0, *np.cumsum(steps)]], dtype=F64)
    grid = extend_grid(core, order)
    x = torch.tensor(places, dtype=F64)[:, None] * core[0, -1]
    total = bspline_basis(x, grid, order).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)
    beyond = torch.stack([grid[0, 0] - 1e-9, grid[0, -1] + 1e-9])[:, None]
    assert not bspline_basis(beyond, grid, order).any()


def test_slopes_are_finite_where_knots_coincide() -> None:
    grid = grids(3)["repeated"]
    x = torch.tensor([[-0.3], [-0.31], [0.0]], dtype=F64, requires_grad=True)
    basis = bspline_basis(x, grid, 3)
    torch.testing.assert_close(basis.sum(-1), torch.ones(3, 1, dtype=F64))
    (basis**2).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_coefficients_of_a_curve_are_found_again(order: int) -> None:
    torch.manual_seed(0)
    grid = extend_grid(torch.tensor([[-1.0, -0.5, 0.1, 1.0], [0.0, 1.0, 2.0, 4.0]], dtype=F64), order)
    coef = torch.randn(3, 2, grid.shape[1] - order - 1, dtype=F64)
    low, high = torch.tensor([-1.0, 0.0], dtype=F64), torch.tensor([1.0, 4.0], dtype=F64)
    x = low + (high - low) * torch.rand(200, 2, dtype=F64)
    found = curve2coef(x, coef2curve(x, coef, grid, order), grid, order)
    # The ridge of the fit shows where few samples fall on a spline: in its coefficient, hardly in the curve.
    torch.testing.assert_close(found, coef, rtol=0, atol=1e-3 if order < 5 else 0.1)
    torch.testing.assert_close(
        coef2curve(x, found, grid, order), coef2curve(x, coef, grid, order), atol=1e-4, rtol=0
    )


def test_fits_stay_finite_where_there_are_few_samples_or_none() -> None:
    grid = uniform_grid(-1, 1, 8, 3, features=2, dtype=F64)
    x = torch.tensor([[0.1, 0.1], [0.1, 0.2]], dtype=F64)
    coef = curve2coef(x, torch.ones(2, 4, 2, dtype=F64), grid, 3)
    torch.testing.assert_close(
        coef2curve(x, coef, grid, 3), torch.ones(2, 4, 2, dtype=F64), atol=1e-4, rtol=0
    )
    outside = curve2coef(x + 50, torch.ones(2, 4, 2, dtype=F64), grid, 3)
    assert outside.isfinite().all() and coef.abs().max() < 5


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_a_finer_grid_holds_the_same_curves(order: int) -> None:
    core = torch.tensor([[-1.0, -0.4, 0.1, 1.0]], dtype=F64)
    fine_core = torch.tensor([[-1.0, -0.7, -0.4, -0.1, 0.1, 0.6, 1.0]], dtype=F64)
    coarse, fine = extend_grid(core, order), extend_grid(fine_core, order)
    coef = torch.randn(2, 1, coarse.shape[1] - order - 1, dtype=F64)
    x = torch.linspace(-1, 0.9999, 101, dtype=F64)[:, None]
    refined = torch.einsum("oik,ikl->oil", coef, refine_matrix(coarse, fine, order))
    torch.testing.assert_close(
        coef2curve(x, refined, fine, order), coef2curve(x, coef, coarse, order), rtol=0, atol=1e-12
    )
    with pytest.raises(ValueError, match="must hold every knot"):
        refine_matrix(fine, coarse, order)


def test_what_cannot_be_is_refused() -> None:
    good = uniform_grid(-1, 1, 5, 3, features=2)
    x = torch.zeros(4, 2)
    cases = [
        (lambda: bspline_basis(x, good.flip(1), 3), "must increase.*knots 0 and 1 of feature 0"),
        (lambda: bspline_basis(x, torch.full_like(good, 0.5), 3), "covers nothing"),
        (lambda: bspline_basis(x, good.clone().index_fill(1, torch.tensor([2]), math.nan), 3), "finite"),
        (lambda: bspline_basis(x, good[:, :7], 3), "at least one interval, .* got 0"),
        (lambda: bspline_basis(x, good, -1), "at least 0, .* got -1"),
        (lambda: bspline_basis(x.long(), good, 3), r"floating-point type, got torch\.int64"),
        (lambda: bspline_basis(x, good, 3, derivative=-1), "derivative"),
        (lambda: bspline_basis(x, good, 3, derivative=0.5), "derivative must be .* a whole number"),
        (lambda: bspline_basis(torch.zeros(4, 3), good, 3), r"expected x \(\.\.\., I\) and grid"),
        (lambda: uniform_grid(1, 1, 5, 3, features=1), "low to high"),
        (lambda: uniform_grid(-1, 1, 0, 3, features=1), "at least one interval"),
        (lambda: extend_grid(torch.zeros(2, 1), 3), "at least two knots"),
        (lambda: extend_grid(good, -1), "at least 0, .* got -1"),
        (lambda: curve2coef(x[:0], torch.zeros(0, 1, 2), good, 3), "no samples"),
        (lambda: curve2coef(x * math.nan, torch.zeros(4, 1, 2), good, 3), "finite"),
        (lambda: curve2coef(x, torch.zeros(4, 2), good, 3), "expected x"),
        (lambda: curve2coef(x, torch.zeros(4, 1, 2).long(), good, 3), "y must be of a floating-point type"),
        (lambda: coef2curve(x, torch.zeros(1, 2, 5), good, 3), r"\(O, 2, 8\)"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
