"""Where knots go: to the samples, or between the knots there are.

Shapes: S samples, I input features, G grid intervals. All in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: A gap between knots is at least this share of the mean gap.
SMALLEST_GAP = 1e-2
#: A feature whose samples cover less than this (of 1, and of their own size) is constant.
SMALLEST_RANGE = 1e-6


class Moved(NamedTuple):
    """core: knots (I, G + 1). frozen: bool (I,), features that keep the knots they had."""

    core: Tensor
    frozen: Tensor


def moved(core: Tensor, x: Tensor, *, uniform_share: float, margin: float) -> Moved:
    """Knots at quantiles of samples x (S, I), blended with equally spaced ones; core: those there are.

    The published rule is uniform_share * equally spaced + (1 - uniform_share) * quantiles. Where samples
    repeat, its knots coincide; here the share of equally spaced ones is raised until no gap is below
    `SMALLEST_GAP` of the mean one, for each feature by itself.

    Raises:
        ValueError: `uniform_share` outside [0, 1], a negative or infinite `margin`.
    """
    if not 0 <= uniform_share <= 1:
        raise ValueError(f"uniform_share must lie within 0 and 1, got {uniform_share}")
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be at least 0 and finite, got {margin}")
    intervals = core.shape[1] - 1
    core = core.double()
    x = torch.where(x.isfinite(), x.double(), torch.nan)
    at = torch.linspace(0, 1, intervals + 1, dtype=torch.float64, device=x.device)
    quantiles = _quantiles(x, at)  # (I, G + 1)
    low, high = quantiles[:, :1], quantiles[:, -1:]
    span = high - low
    size = torch.maximum(low.abs(), high.abs()).clamp_min(1.0)
    frozen = ~(span > SMALLEST_RANGE * size).squeeze(1)  # NaN, where no sample is finite, is frozen too
    even = low - margin * span + at * (1 + 2 * margin) * span
    stretched = quantiles.clone()
    stretched[:, :1] -= margin * span
    stretched[:, -1:] += margin * span
    least = SMALLEST_GAP * span / intervals
    gaps, even_gap = stretched.diff(dim=1), (1 + 2 * margin) * span / intervals
    # share * even_gap + (1 - share) * gap >= least, for the smallest gap of each feature
    smallest = gaps.amin(1, keepdim=True)
    needed = ((least - smallest) / (even_gap - smallest).clamp_min(1e-300)).clamp(0, 1)
    share = needed.clamp_min(uniform_share)
    found = share * even + (1 - share) * stretched
    return Moved(torch.where(frozen[:, None], core, found), frozen)


def _quantiles(x: Tensor, at: Tensor) -> Tensor:
    """Order statistics of the numbers in each column of x (S, I), NaN left out: (I, len(at)).

    By sorting: `torch.nanquantile` takes no more than 16 million numbers.
    """
    ordered = x.sort(dim=0).values  # NaN last
    count = x.isfinite().sum(0)
    place = at * (count - 1).clamp_min(0)[:, None]  # (I, G + 1)
    below = place.floor()
    share = (place - below).T
    lower = ordered.gather(0, below.long().T)
    upper = ordered.gather(0, place.ceil().long().T)
    mixed = torch.where(share > 0, lower + share * (upper - lower), lower)
    return mixed.T


def subdivided(core: Tensor, intervals: int) -> Tensor:
    """A finer core grid: knots (I, G + 1) -> (I, intervals + 1).

    A multiple of G keeps every knot and divides the gaps between; any other number lies evenly among them
    (linear interpolation by index).
    """
    old = core.shape[1] - 1
    place = torch.arange(intervals + 1, dtype=torch.float64, device=core.device) * old / intervals
    below = place.floor().long().clamp_max(old - 1)
    share = place - below
    return core[:, below] * (1 - share) + core[:, below + 1] * share


def between(core: Tensor, per_interval: int) -> Tensor:
    """Points evenly spread over each interval, ends left out: (I, G + 1) -> (G per_interval, I)."""
    share = (torch.arange(per_interval, dtype=core.dtype, device=core.device) + 0.5) / per_interval
    points = core[:, :-1, None] + core.diff(dim=1)[..., None] * share
    return points.flatten(1).T.contiguous()


def sites(x: Tensor, old: Tensor, new: Tensor, *, per_interval: int) -> Tensor:
    """Where the splines of a moved grid should equal those of the old one: (S', I).

    The samples, and points spread over the new grid, so that an interval without samples is settled too.
    """
    spread = between(new.double(), per_interval)
    x = x.double()
    fallback = spread[torch.arange(len(x), device=x.device) % len(spread)]
    return torch.cat([torch.where(x.isfinite(), x, fallback), spread])
