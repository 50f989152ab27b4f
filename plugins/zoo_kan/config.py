"""Parameters of the plugin's components (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zoo.plugin import Config, ConfigError, Problem, Vector, param


@dataclass(frozen=True, kw_only=True)
class EdgesConfig(Config):
    """What the functions on the edges of a KAN layer are."""

    grid_intervals: int = param(
        5, "intervals of each grid, G; an edge has G + order coefficients", at_least=1
    )
    order: int = param(3, "degree of the splines; 3 is cubic", at_least=0, at_most=10)
    low: float = param(-2.0, "where the grids start")
    high: float = param(2.0, "where the grids end; inputs should lie between the two")
    basis: Literal["bspline", "rbf", "chebyshev", "fourier"] = param(
        "bspline", "the basis functions; all but bspline have no grid that could be moved or refined"
    )
    base: Literal["silu", "identity", "none"] = param("silu", "function of the base branch of each edge")
    edge_scale: bool = param(False, "a learned scale of each edge's spline (the same functions without)")
    extrapolate: Literal["zero", "clamp", "linear"] = param(
        "zero", "splines outside their grid: fade to zero, keep their last value, or go on straight"
    )
    sparsity: float = param(
        0.0, "weight in the training loss of the penalty that makes edges vanish", at_least=0
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.low < self.high:
            yield "high", f"must be above low ({self.low:g}), got {self.high:g}"
        if self.basis != "bspline" and self.grid_intervals + self.order < 2:
            yield "grid_intervals", f"basis {self.basis} needs grid_intervals + order of at least 2"

    @property
    def options(self) -> dict[str, object]:
        """As `KANLinear` takes them."""
        return {
            "grid_intervals": self.grid_intervals,
            "order": self.order,
            "grid_range": (self.low, self.high),
            "basis": self.basis,
            "base": self.base,
            "edge_scale": self.edge_scale,
            "extrapolate": self.extrapolate,
            "sparsity": self.sparsity,
        }


@dataclass(frozen=True, kw_only=True)
class KanConfig(EdgesConfig):
    """Parameters of `kan/kan`, the model."""

    hidden: tuple[int, ...] = param(
        (64,), "outputs of each KAN layer; the head takes those of the last", at_least=1
    )
    norm: Literal["layer", "none"] = param(
        "layer", "before each layer, so that its inputs lie within the grid; none: as in the paper"
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if not self.hidden:
            yield "hidden", "must name at least one layer, e.g. [64]"


@dataclass(frozen=True, kw_only=True)
class KanFeedForwardConfig(EdgesConfig):
    """Parameters of `kan/kan`, the feed-forward."""

    ratio: float = param(
        0.5,
        "inner width over the model's; 4 / (G + order + 1) has as many weights as core/mlp",
        above=0,
    )


@dataclass(frozen=True, kw_only=True)
class RawConfig(Config):
    """`kan/raw` takes no parameters."""

    def tokens(self, inputs: Vector) -> None:
        """A vector."""
        return None


@dataclass(frozen=True, kw_only=True)
class KanHeadConfig(EdgesConfig):
    """Parameters of `kan/regressor` and `kan/classifier`."""

    norm: Literal["layer", "none"] = param("none", "before the layer, so that its inputs lie within the grid")


@dataclass(frozen=True, kw_only=True)
class GridsConfig(Config):
    """Parameters of the callback `kan/grids`."""

    refine_at: tuple[int, ...] = param((), "updates after which the grids become finer", at_least=1)
    refine_to: tuple[int, ...] = param(
        (), "grid intervals from then on, as many numbers; multiples change no function", at_least=1
    )
    adapt_every: int = param(
        0, "updates between moves of the grids to their inputs; 0: they stay", at_least=0
    )
    adapt_until: int | None = param(None, "the last update at which grids move; none: half of the run")
    uniform_share: float = param(
        0.02,
        "of equally spaced knots, the rest at quantiles of the inputs; 1: equally spaced",
        at_least=0,
        at_most=1,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if len(self.refine_at) != len(self.refine_to):
            yield (
                "refine_to",
                f"must have as many numbers as refine_at, got {self.refine_to}, {self.refine_at}",
            )
        if sorted(set(self.refine_at)) != list(self.refine_at):
            yield "refine_at", f"must increase, got {self.refine_at}"
        if sorted(self.refine_to) != list(self.refine_to):
            yield "refine_to", f"must go to finer grids, got {self.refine_to}"


def width_problem(width: int, features: int) -> ConfigError:
    """What is wrong where a vector does not fit a width."""
    message = f"must be at least the number of features, {features}, for the stem kan/raw; got {width}"
    return ConfigError([Problem("model.width", message)])
