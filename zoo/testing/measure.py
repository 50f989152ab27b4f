"""Comparing tensors, with the numbers in the message."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.testing.check import ConformanceError

#: For two forms of one computation in float64, which may round differently; relative to the largest value.
CLOSE = 1e-6
#: For one computation in float64 on inputs that should not matter.
SAME = 1e-9
#: Differences are relative to the largest value, but values below this count as nothing.
FLOOR = 1e-3


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value (at least FLOOR); inf for NaN."""
    if found.numel() == 0:
        return 0.0
    found, expected = found.detach().double(), expected.detach().double()
    gap = ((found - expected).abs().max() / expected.abs().max().clamp_min(FLOOR)).item()
    return gap if gap == gap else float("inf")


def require_close(found: Tensor, expected: Tensor, allowed: float, what: str) -> None:
    """Raise unless both have one shape and differ by at most `allowed`, see `difference`."""
    require(
        found.shape == expected.shape,
        f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}",
    )
    gap = difference(found, expected)
    require(gap <= allowed, f"{what}: differs by {gap:.2g} of the largest value, allowed {allowed:.0e}")


def require_finite(x: Tensor, what: str) -> None:
    bad = int((~x.isfinite()).sum())
    require(bad == 0, f"{what}: {bad} of {x.numel()} numbers are not finite")


def require(holds: bool, message: str) -> None:
    if not holds:
        raise ConformanceError(message)


def weights_like(y: Tensor, seed: int = 7) -> Tensor:
    """Fixed random weights, so that `(y * weights).sum()` is a loss that sees every output."""
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise.to(y.dtype)


def gradients_of(module: nn.Module) -> dict[str, Tensor]:
    """Gradients by parameter name; those without one are left out."""
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def require_same_gradients(
    found: dict[str, Tensor], expected: dict[str, Tensor], allowed: float, what: str
) -> None:
    """Raise unless all parameters have close gradients; none at all is as good as zeros."""
    for name in sorted(found.keys() | expected.keys()):
        one, other = found.get(name), expected.get(name)
        gradient = torch.zeros_like(other) if one is None else one  # type: ignore[arg-type]
        gap = difference(gradient, torch.zeros_like(gradient) if other is None else other)
        require(gap <= allowed, f"{what}: the gradient of {name} differs by {gap:.2g}, allowed {allowed:.0e}")
