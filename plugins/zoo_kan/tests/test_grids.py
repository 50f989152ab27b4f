"""Grids that follow their samples, and grids that become finer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from zoo_kan import KANLinear, curve2coef
from zoo_kan.grids import SMALLEST_GAP

F64 = torch.float64


def layer(inputs: int = 3, *, seed: int = 0, dtype: torch.dtype = F64, **options: object) -> KANLinear:
    torch.manual_seed(seed)
    made = KANLinear(inputs, 4, **options).to(dtype)  # type: ignore[arg-type]
    torch.nn.init.normal_(made.coef)
    return made


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("edge_scale", [False, True])
@pytest.mark.parametrize(("dtype", "error"), [(F64, 1e-12), (torch.float32, 5e-6)])
def test_refining_by_a_multiple_changes_no_function(
    adaptive: bool, edge_scale: bool, dtype: torch.dtype, error: float
) -> None:
    made = layer(dtype=dtype, edge_scale=edge_scale)
    if adaptive:
        made.update_grid(torch.rand(300, 3, dtype=dtype) ** 2)
    low, high = made.basis.core()[:, 0], made.basis.core()[:, -1]
    x = low + (high - low) * torch.rand(200, 3, dtype=dtype)
    before, held = made(x), made.coef
    for intervals in (5, 10, 30):
        assert made.refine(intervals) is made
        assert made.grid_intervals == intervals and made.coef.shape == (4, 3, intervals + 3)
        assert (made(x) - before).abs().max() <= error * before.abs().max().clamp_min(1)
    assert made.coef is held and held.grad is None  # optimisers hold on to it


def test_refining_to_any_number_drifts_less_the_finer_it_gets() -> None:
    x = torch.rand(500, 3, dtype=F64) * 2 - 1
    drifts = []
    for intervals in (7, 13, 29, 59):
        made = layer()
        before = made(x)
        drifts.append(((made.refine(intervals)(x) - before).abs().max() / before.std()).item())
    assert drifts == sorted(drifts, reverse=True) and drifts[-1] < 2e-2


def test_a_coarser_grid_is_refused_and_so_is_one_that_is_not_there() -> None:
    made = layer().refine(10)
    with pytest.raises(ValueError, match="there are 10 intervals, 5 are coarser"):
        made.refine(5)
    for call in (
        lambda: KANLinear(2, 2, basis="rbf").refine(10),
        lambda: KANLinear(2, 2, basis="fourier").grid_intervals,
    ):
        with pytest.raises(ValueError, match="has no grid"):
            call()


def test_grids_follow_the_samples_and_functions_stay() -> None:
    made = layer(grid_intervals=20)
    x = torch.rand(4000, 3, dtype=F64) * 1.9 - 0.95
    before = made(x)
    drift = made.update_grid(x, uniform_share=1.0)
    core = made.basis.core()
    assert made.basis.uniform and drift.frozen == 0
    assert (core[:, 0] <= x.amin(0)).all() and (core[:, -1] >= x.amax(0)).all()
    assert drift.largest == pytest.approx((made(x) - before).abs().max().item())
    assert drift.relative < 0.3  # of coefficients that are pure noise
    skewed = torch.rand(4000, 3, dtype=F64) ** 4
    made.update_grid(skewed, uniform_share=0.0)
    below = (skewed < made.basis.core()[:, 10]).double().mean(0)
    torch.testing.assert_close(below, torch.full((3,), 0.5, dtype=F64), atol=0.15, rtol=0)


def test_smooth_functions_move_with_their_grids_the_less_the_finer_these_are() -> None:
    x = torch.rand(2000, 3, dtype=F64) * 1.9 - 0.95
    drifts = []
    for intervals in (5, 10, 20, 40):
        made = layer(grid_intervals=intervals)
        curves = torch.stack([torch.sin((o + 1) * x) for o in range(4)], dim=1)
        with torch.no_grad():
            made.coef.copy_(curve2coef(x, curves, made.basis.grid, 3))
        drifts.append(made.update_grid(x).relative)
    assert drifts == sorted(drifts, reverse=True) and drifts[-1] < 1e-4


def test_scales_are_counted_once() -> None:
    """Others fit the scaled curves and scale them again."""
    made = layer(edge_scale=True)
    assert made.scale is not None
    torch.nn.init.constant_(made.scale, 3.0)
    x = torch.rand(2000, 3, dtype=F64) * 1.9 - 0.95
    plain = layer()
    assert made.update_grid(x).relative < 1.5 * plain.update_grid(x).relative + 1e-3


@pytest.mark.parametrize(
    "kind",
    ["constant", "sparse", "outlier", "few", "one", "nan", "all_nan", "infinite", "outside", "two_values"],
)
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_samples_of_every_kind_leave_all_finite(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 3, dtype=dtype) * 2 - 1
    if kind == "constant":
        x[:, 1] = 0.3
    elif kind == "sparse":
        x = x.relu() * (torch.rand(200, 3) > 0.8)
    elif kind == "outlier":
        x[0] = 1e4
    elif kind in ("few", "one"):
        x = x[: 2 if kind == "few" else 1]
    elif kind == "nan":
        x[::3] = math.nan
    elif kind == "all_nan":
        x[:, 0] = math.nan
    elif kind == "infinite":
        x[5] = math.inf
    elif kind == "outside":
        x = x + 100
    else:
        x = x.sign()
    made = layer(dtype=dtype)
    old = made.basis.grid.clone()
    drift = made.update_grid(x)
    steps = made.basis.core().diff(dim=1)
    assert (steps >= 0.5 * SMALLEST_GAP * steps.mean(1, keepdim=True)).all()
    frozen = {"constant": 1, "all_nan": 1, "one": 3}.get(kind, 0)
    assert drift.frozen == frozen
    if kind == "constant":
        torch.testing.assert_close(made.basis.grid[1], old[1])
    probe = (torch.rand(50, 3, dtype=dtype) * 4 - 2).requires_grad_()
    y = made(probe)
    y.square().sum().backward()
    assert y.isfinite().all() and probe.grad is not None and probe.grad.isfinite().all()
    assert made.coef.isfinite().all() and made.coef.abs().max() < 1e4


def test_too_much_drift_is_refused_and_nothing_changed() -> None:
    made = layer()
    x = torch.randn(100, 3, dtype=F64) * 5
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with pytest.raises(ValueError, match="Nothing was changed"):
        made.update_grid(x, most_drift=1e-3)
    for name, value in made.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert made.basis.uniform


@pytest.mark.parametrize("extrapolate", ["clamp", "linear"])
@pytest.mark.parametrize("intervals", [20, 37])
def test_what_goes_on_beyond_a_grid_goes_on_when_it_moves_there(extrapolate: Any, intervals: int) -> None:
    """A refit is of the function as it is, not of splines that fade outside their grid."""
    made = KANLinear(1, 1, base="none", extrapolate=extrapolate, grid_intervals=20).double()
    at = torch.linspace(-1, 1, 500, dtype=F64)[:, None]
    with torch.no_grad():
        made.coef.copy_(curve2coef(at, at.exp()[..., None], made.basis.grid, 3))
    x = torch.tensor([[-2.5], [2.0], [2.9]], dtype=F64)
    before = made(x)
    made.refine(intervals)  # beyond the grid of both, the same
    torch.testing.assert_close(made(x), before, rtol=1e-3, atol=1e-2)
    made.update_grid(torch.rand(2000, 1, dtype=F64) * 6 - 3, uniform_share=1.0)
    torch.testing.assert_close(made(x), before, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("intervals", [7.5, 10.0])
def test_refining_takes_whole_numbers(intervals: Any) -> None:
    made = layer()
    with pytest.raises(ValueError, match=f"a whole number of them, got {intervals}"):
        made.refine(intervals)
    assert made.grid_intervals == 5


def test_a_grid_that_covers_nothing_is_refused() -> None:
    made = layer()
    before = made.basis.grid.clone()
    grid = before.clone()
    grid[1, 3:-3] = 0.2
    grid[1, :3], grid[1, -3:] = -1, 1
    with pytest.raises(ValueError, match="covers nothing"):
        made.basis.set_grid(grid)
    assert torch.equal(made.basis.grid, before)


def test_samples_of_a_grid_are_no_inputs_of_the_penalty() -> None:
    made = layer(sparsity=0.1).train()
    made.update_grid(torch.randn(50, 3, dtype=F64))
    assert made.penalty() is None


def test_samples_that_cannot_be() -> None:
    made = layer()
    for call, message in (
        (lambda: made.update_grid(torch.zeros(0, 3, dtype=F64)), "expected samples"),
        (lambda: made.update_grid(torch.zeros(5, 2, dtype=F64)), "expected samples"),
        (lambda: made.update_grid(torch.zeros(5, 3, dtype=F64), uniform_share=2), "uniform_share"),
        (lambda: made.update_grid(torch.zeros(5, 3, dtype=F64), margin=-1), "margin"),
        (lambda: made.update_grid(torch.zeros(5, 3, dtype=F64), margin=math.inf), "margin"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
