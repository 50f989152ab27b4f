"""B-splines as pure functions: bases on any grid, and between curves and coefficients.

Shapes: I input features, O outputs, S samples, G grid intervals, k order (degree), M = G + 1 + 2k knots,
K = G + k = M - k - 1 basis functions. A grid has its knots last and in increasing order: (I, M).

Source: Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks", https://arxiv.org/abs/2404.19756; de
Boor, "A Practical Guide to Splines" (1978) for the recursion and for inserting knots.
"""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor

#: Weight of the penalty on bends that settles coefficients which no sample reaches, relative to the fit.
SMOOTHING = 1e-9


def uniform_grid(
    low: float, high: float, intervals: int, order: int, *, features: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Equally spaced knots, `intervals` steps from `low` to `high` and `order` more on each side: (I, M).

    Raises:
        ValueError: no interval, a negative order, `low` not below `high`, or ends that are not finite.
    """
    check_sizes(intervals, order)
    check_range(low, high)
    steps = torch.arange(-order, intervals + order + 1, dtype=torch.float64)
    return (low + steps * ((high - low) / intervals)).to(dtype).repeat(features, 1)


def extend_grid(core: Tensor, order: int) -> Tensor:
    """`order` more knots on each side of a core grid (I, G + 1), at its mean step: (I, G + 1 + 2 order)."""
    check_grid(core)
    check_whole("the order of a spline", order, at_least=0)
    intervals = core.shape[-1] - 1
    step = (core[..., -1:] - core[..., :1]) / intervals
    outside = torch.arange(1, order + 1, dtype=core.dtype, device=core.device)
    return torch.cat([core[..., :1] - step * outside.flip(0), core, core[..., -1:] + step * outside], dim=-1)


def bspline_basis(x: Tensor, grid: Tensor, order: int, *, derivative: int = 0) -> Tensor:
    """Values of every B-spline, or of its derivative: x (..., I), grid (I, M) -> (..., I, K).

    The recursion of Cox and de Boor (the paper's B_i) on the half-open
    intervals [t_j, t_j+1), with 0 / 0 = 0 where knots coincide; the last interval holds its end, too. Within
    the core of the grid, from knot k to knot M - 1 - k, the values sum to 1; outside they fade, and beyond
    the last knot they are 0, at infinity too. NaN gives NaN. The highest derivative that is not 0 everywhere
    is the `order`-th.

    Raises:
        ValueError: shapes that do not fit, whole numbers, or a grid that is not increasing or not finite.
    """
    check_grid(grid)
    check_floating(x)
    if grid.dim() != 2 or x.shape[-1:] != grid.shape[:1]:
        raise ValueError(f"expected x (..., I) and grid (I, M), got {tuple(x.shape)} and {tuple(grid.shape)}")
    check_sizes(grid.shape[1] - 1 - 2 * order, order)
    check_whole("derivative", derivative, at_least=0)
    rows = x.reshape(-1, x.shape[-1])
    planes = spline_planes(rows, grid.to(x.dtype), order, derivative=derivative)
    return planes.transpose(1, 2).reshape(*x.shape, planes.shape[1])


def spline_planes(
    x: Tensor, grid: Tensor, order: int, *, features: int = 1, derivative: int = 0, end: int = -1
) -> Tensor:
    """`bspline_basis` in planes, with nothing checked: x (N, I), grid (I, M) -> (N, K, I).

    With the features first (`features=0`): x (I, N) -> (I, K, N).

    end: the knot that belongs to the interval before it, for x that do not go beyond.
    """
    if derivative > order:
        return x.new_zeros(x.shape[0], grid.shape[1] - order - 1, x.shape[1])
    x, knots = x.unsqueeze(1), grid.T.unsqueeze(0) if features == 1 else grid.unsqueeze(-1)
    reach = knots[:, -1:] - knots[:, :1]
    x = x.clamp(knots[:, :1] - reach, knots[:, -1:] + reach)  # infinity times 0 is no 0
    low, high, last = knots[:, :-1], knots[:, 1:], knots[:, end].unsqueeze(1)
    in_last = (low < last) & (high == last)
    basis = torch.where(x == last, in_last, (x >= low) & (x < high)).to(x.dtype)
    if order == 0:
        basis = torch.where(x.isnan(), x, basis)
    for p in range(1, order - derivative + 1):
        per_span = _per_span(knots, p)
        left = (x - knots[:, : -p - 1]) * per_span[:, :-1]
        right = (knots[:, p + 1 :] - x) * per_span[:, 1:]
        basis = left * basis[:, :-1] + right * basis[:, 1:]
    for p in range(order - derivative + 1, order + 1):  # B'_j,p = p (B_j,p-1 / span_j - B_j+1,p-1 / span_j+1)
        shares = basis * (p * _per_span(knots, p))
        basis = shares[:, :-1] - shares[:, 1:]
    return basis


def _per_span(knots: Tensor, p: int) -> Tensor:
    """1 / (t_j+p - t_j), and 0 where the two coincide, of knots along the second axis."""
    span = knots[:, p:] - knots[:, :-p]
    return torch.where(span > 0, 1 / span, 0.0)


def coef2curve(x: Tensor, coef: Tensor, grid: Tensor, order: int) -> Tensor:
    """Values of splines: x (S, I), coef (O, I, K), grid (I, M) -> (S, O, I), the curve of each edge."""
    if coef.dim() != 3 or coef.shape[1:] != (grid.shape[0], grid.shape[1] - order - 1):
        expected = f"(O, {grid.shape[0]}, {grid.shape[1] - order - 1})"
        raise ValueError(f"expected coef {expected}, got {tuple(coef.shape)}")
    return torch.einsum("sik,oik->soi", bspline_basis(x, grid, order).to(coef.dtype), coef)


def curve2coef(x: Tensor, y: Tensor, grid: Tensor, order: int) -> Tensor:
    """The splines that fit curves best: x (S, I), y (S, O, I), grid (I, M) -> coef (O, I, K).

    Least squares in float64. Where there is no sample, or too few, a small penalty on second differences of
    the coefficients decides: the curve goes on as straight as it can, and everything stays finite.

    Raises:
        ValueError: shapes that do not fit, whole numbers for y, no sample, or one that is not finite.
    """
    if x.dim() != 2 or y.dim() != 3 or (y.shape[0], y.shape[2]) != tuple(x.shape):
        raise ValueError(f"expected x (S, I) and y (S, O, I), got {tuple(x.shape)} and {tuple(y.shape)}")
    if not y.is_floating_point():  # whose type the coefficients have
        raise ValueError(f"y must be of a floating-point type, got {y.dtype}: convert it, e.g. by y.float()")
    if not len(x):
        raise ValueError("a curve cannot be fitted to no samples")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("samples of a curve must be finite, but there are NaN or infinite ones")
    basis = bspline_basis(x.double(), grid.double(), order).transpose(0, 1)  # (I, S, K)
    targets = y.double().permute(2, 0, 1)  # (I, S, O)
    return _least_squares(basis, targets).permute(2, 0, 1).to(y.dtype)


def _least_squares(basis: Tensor, targets: Tensor) -> Tensor:
    """basis (I, S, K), targets (I, S, O) -> (I, K, O), see `curve2coef`."""
    count = basis.shape[-1]
    second = torch.eye(count, dtype=basis.dtype, device=basis.device).diff(dim=0)
    second = second.diff(dim=0) if count > 2 else second
    size = basis.square().sum((1, 2)).div(count).clamp_min(1e-30).sqrt()  # of a column, for each feature
    # A little of the coefficients themselves, too: where no sample lies at all, the penalty knows no level.
    ridge = torch.eye(count, dtype=basis.dtype, device=basis.device) * SMOOTHING**1.5
    extra = torch.cat([second * SMOOTHING**0.5, ridge]) * size[:, None, None]
    rows = torch.cat([basis, extra], dim=1)
    zeros = targets.new_zeros(len(targets), extra.shape[1], targets.shape[2])
    q, r = torch.linalg.qr(rows)
    return torch.linalg.solve_triangular(r, q.mT @ torch.cat([targets, zeros], dim=1), upper=True)


def refine_matrix(coarse: Tensor, fine: Tensor, order: int) -> Tensor:
    """A with B_coarse(x) = A B_fine(x): coefficients c become c A, and the curve stays what it was.

    coarse: knots (I, M), fine: (I, M'), which hold all core knots of `coarse` -> A (I, K, K'), in float64.
    The Oslo algorithm (Cohen, Lyche and Riesenfeld 1980): on each knot of the fine grid the recursion of the
    coarse basis. The curve is the same on the core; outside, where the two extensions differ, it is not.

    Raises:
        ValueError: a core knot of `coarse` is not one of `fine`.
    """
    coarse, fine = coarse.double(), fine.double()
    core = coarse[:, order : coarse.shape[1] - order]
    gap = (fine[:, :, None] - core[:, None]).abs().amin(1)  # of each core knot to the nearest fine one
    if (gap > 1e-5 * (core[:, -1:] - core[:, :1])).any():
        raise ValueError("knots can only be added: the finer grid must hold every knot of the coarser one")
    # Sites: between fine knots j and j + 1 both bases are polynomials of degree `order`; equal at order + 1
    # points of each core interval, they are the same functions there.
    low, high = fine[:, order : -order - 1], fine[:, order + 1 : fine.shape[1] - order]
    inner = torch.cos(torch.pi * (torch.arange(order + 1, dtype=torch.float64) + 0.5) / (order + 1))
    sites = (low + high)[..., None] / 2 + (high - low)[..., None] / 2 * inner.to(low.device)  # (I, G', k + 1)
    sites = sites.flatten(1).mT.contiguous()  # (S, I)
    ours, theirs = (bspline_basis(sites, grid, order).transpose(0, 1) for grid in (fine, coarse))
    q, r = torch.linalg.qr(ours)  # (I, S, K')
    return torch.linalg.solve_triangular(r, q.mT @ theirs, upper=True).mT


def check_grid(grid: Tensor) -> None:
    """Knots (..., M): at least two, finite, none below the one before it, first below last.

    Raises:
        ValueError: the first feature that breaks it.
    """
    if grid.shape[-1] < 2:
        raise ValueError(f"a grid needs at least two knots, got shape {tuple(grid.shape)}")
    steps = grid.diff(dim=-1)
    bad = (steps < 0) | ~steps.isfinite()
    if bad.any():
        *feature, at = bad.nonzero()[0].tolist()
        where = f" of feature {feature[0]}" if feature else ""
        found = grid[(*feature, slice(at, at + 2))].tolist()
        raise ValueError(f"knots must increase and be finite, but knots {at} and {at + 1}{where} are {found}")
    if (grid[..., -1] <= grid[..., 0]).any():
        raise ValueError("all knots of a grid are equal: it covers nothing")


def check_sizes(intervals: int, order: int) -> None:
    """Raises ValueError for a grid without intervals, a negative order, or numbers that are not whole."""
    check_whole("the order of a spline", order, at_least=0)
    if not isinstance(intervals, Integral) or isinstance(intervals, bool) or intervals < 1:
        raise ValueError(
            f"a grid needs at least one interval, and a whole number of them, got {intervals} (a grid of "
            f"order {order} has {2 * order} knots outside its core)"
        )


def check_whole(name: str, size: object, *, at_least: int) -> None:
    """Raises ValueError for what is no whole number of at least `at_least`."""
    if not isinstance(size, Integral) or isinstance(size, bool) or size < at_least:
        raise ValueError(f"{name} must be at least {at_least}, and a whole number, got {size!r}")


def check_range(low: float, high: float) -> None:
    """Raises ValueError for ends of a grid that are not finite or do not increase."""
    if not 0 < high - low < math.inf:
        raise ValueError(f"a grid runs from low to high, both finite: got {low} and {high}")


def check_inputs(x: Tensor, features: int) -> None:
    """Inputs of a layer, (..., features).

    Raises:
        ValueError: another number of features, or not of a floating-point type.
    """
    if x.shape[-1:] != (features,):
        raise ValueError(f"expected x (..., {features}), got {tuple(x.shape)}")
    check_floating(x)


def check_floating(x: Tensor) -> None:
    """Raises ValueError for inputs that are not of a floating-point type, as a sum over edges is."""
    if not x.is_floating_point():
        raise ValueError(f"x must be of a floating-point type, got {x.dtype}: convert it, e.g. by x.float()")
