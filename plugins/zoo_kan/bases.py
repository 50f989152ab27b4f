"""The bases of `KANLinear` by name: B-splines, radial functions, Chebyshev polynomials, Fourier series.

Shapes: N rows, I input features, K basis functions. Each is a `zoo_kan.edges.Basis`, a module `basis(x)`:
(..., I) -> (..., I, K), with `count` = K. Splines are in `zoo_kan.splines`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo_kan import functional
from zoo_kan.edges import Basis
from zoo_kan.splines import Extrapolate, SplineBasis


class RbfBasis(Basis):
    """Gaussian bumps exp(-((x - m_j) / h)^2) with fixed, equally spaced middles, h apart (FastKAN).

    Li 2024, https://arxiv.org/abs/2405.06721. Nowhere exactly 0, so that no input is lost.
    """

    middles: Tensor

    def __init__(self, *, count: int = 8, low: float = -2.0, high: float = 2.0) -> None:
        super().__init__()
        if count < 2:
            raise ValueError(f"need at least 2 bumps, got {count}")
        functional.check_range(low, high)
        self.count = count
        self.register_buffer("middles", torch.linspace(low, high, count))
        self.per_step = (count - 1) / (high - low)

    def values(self, x: Tensor, features: int = 1) -> Tensor:
        return self._distances(x).square().neg().exp()

    def slopes(self, x: Tensor, features: int = 1) -> Tensor:
        distance = self._distances(x)
        return distance.square().neg().exp() * distance * (-2 * self.per_step)

    def _distances(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) - self.middles.to(x.dtype)[:, None]) * self.per_step


class ChebyshevBasis(Basis):
    """T_0 to T_degree of tanh(x), by T_n = 2 z T_n-1 - T_n-2.

    Implementations by cos(n arccos z) give NaN slopes where tanh is 1 in float32, from |x| = 10 on.
    """

    def __init__(self, *, degree: int = 7) -> None:
        super().__init__()
        if degree < 1:
            raise ValueError(f"the degree must be at least 1, got {degree}")
        self.count = degree + 1

    def values(self, x: Tensor, features: int = 1) -> Tensor:
        return _chebyshev(x.tanh(), self.count, start=(1.0, 1.0))

    def slopes(self, x: Tensor, features: int = 1) -> Tensor:
        z = x.tanh()  # T'_n = n U_n-1, U by the same recurrence from 1, 2 z
        second = _chebyshev(z, self.count - 1, start=(1.0, 2.0))
        orders = torch.arange(1, self.count, dtype=x.dtype, device=x.device)[:, None]
        slopes = second * orders * (1 - z * z).unsqueeze(1)
        return torch.cat([torch.zeros_like(slopes[:, :1]), slopes], dim=1)


def _chebyshev(z: Tensor, count: int, *, start: tuple[float, float]) -> Tensor:
    """The first `count` polynomials after start[0] and start[1] z: (., .) -> (., count, .)."""
    found = [torch.full_like(z, start[0]), start[1] * z]
    while len(found) < count:
        found.append(2 * z * found[-1] - found[-2])
    return torch.stack(found[:count], dim=1)


class FourierBasis(Basis):
    """cos(n x) and sin(n x), n from 1 to `waves`: periodic, for inputs of a few units."""

    def __init__(self, *, waves: int = 4) -> None:
        super().__init__()
        if waves < 1:
            raise ValueError(f"a Fourier basis needs at least one wave, got {waves}")
        self.count = 2 * waves

    def values(self, x: Tensor, features: int = 1) -> Tensor:
        turns = self._turns(x)
        return torch.cat([turns.cos(), turns.sin()], dim=1)

    def slopes(self, x: Tensor, features: int = 1) -> Tensor:
        turns, waves = self._turns(x), self._waves(x)
        return torch.cat([-waves * turns.sin(), waves * turns.cos()], dim=1)

    def _waves(self, x: Tensor) -> Tensor:
        return torch.arange(1, self.count // 2 + 1, dtype=x.dtype, device=x.device)[:, None]

    def _turns(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1) * self._waves(x)


def make_basis(
    name: str,
    *,
    features: int,
    intervals: int = 5,
    order: int = 3,
    low: float = -1.0,
    high: float = 1.0,
    extrapolate: Extrapolate = "zero",
) -> Basis:
    """A basis by name; all have intervals + order functions per input (Fourier: one less where that is odd).

    Raises:
        ValueError: there is no basis of this name, or it cannot have these sizes.
    """
    functional.check_sizes(intervals, order)
    count = intervals + order
    if name == "bspline":
        return SplineBasis(
            features=features, intervals=intervals, order=order, low=low, high=high, extrapolate=extrapolate
        )
    if name == "rbf":
        return RbfBasis(count=count, low=low, high=high)
    if name == "chebyshev":
        return ChebyshevBasis(degree=count - 1)
    if name == "fourier":
        return FourierBasis(waves=math.floor(count / 2))
    raise ValueError(f"basis must be one of bspline, rbf, chebyshev, fourier, got {name!r}")
