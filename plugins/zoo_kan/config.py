"""Parameters of the plugin's components (torch-free)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zoo.plugin import Config, ConfigError, Problem, Values, Vector, param


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
        for name in ("low", "high", "sparsity"):
            if not math.isfinite(getattr(self, name)):
                yield name, f"must be finite, got {getattr(self, name):g}"
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
    products: tuple[int, ...] = param(
        (),
        "how many outputs of each layer are products of two sums (KAN 2.0); none: all are sums",
        at_least=0,
    )
    dropout_prob: float = param(0.0, "dropout of what each layer but the first is given", at_least=0, below=1)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if not self.hidden:
            yield "hidden", "must name at least one layer, e.g. [64]"
        if self.products and len(self.products) != len(self.hidden):
            yield "products", f"must have as many numbers as hidden, {len(self.hidden)}, got {self.products}"
        elif any(p > h for p, h in zip(self.products, self.hidden, strict=False)):
            yield "products", f"cannot be more than the outputs, {self.hidden}, got {self.products}"


@dataclass(frozen=True, kw_only=True)
class KanConvConfig(Config):
    """Parameters of `kan/conv`."""

    channels: tuple[int, ...] = param(
        (16, 32, 64), "outputs of each convolution; all but the first halve the sides", at_least=1
    )
    kernel: int = param(3, "side of each patch, an odd number", at_least=1)
    grid_intervals: int = param(5, "intervals of each grid, G", at_least=1)
    order: int = param(3, "degree of the splines; 3 is cubic", at_least=0, at_most=10)
    basis: Literal["bspline", "rbf", "chebyshev", "fourier"] = param("bspline", "the basis functions")
    base: Literal["silu", "identity", "none"] = param("silu", "function of the base branch")

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.channels:
            yield "channels", "must name at least one convolution, e.g. [32]"
        if self.kernel % 2 == 0:
            yield "kernel", f"must be odd, so that a patch has a middle, got {self.kernel}"
        if self.basis != "bspline" and self.grid_intervals + self.order < 2:
            yield "grid_intervals", f"basis {self.basis} needs grid_intervals + order of at least 2"

    @property
    def functions(self) -> dict[str, object]:
        """As `KANConv2d` takes them; norms put the inputs on the grid."""
        return {
            "grid_intervals": self.grid_intervals,
            "order": self.order,
            "grid_range": (-2.0, 2.0),
            "basis": self.basis,
            "base": self.base,
        }


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
    dropout_prob: float = param(0.0, "dropout of what the layer is given", at_least=0, below=1)


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


#: The equations of `kan/feynman` and the ranges of their variables. Names of equations are those of Feynman's
#: lectures, made free of units as in the KAN paper's table 2; "toy" is its exp(sin(pi x) + y^2).
EQUATIONS: dict[str, tuple[tuple[float, float], ...]] = {
    "toy": ((-1.0, 1.0), (-1.0, 1.0)),
    "I.6.20": ((-1.0, 1.0), (0.5, 2.0)),
    "I.12.11": ((-1.0, 1.0), (-3.14159, 3.14159)),
    "I.16.6": ((-0.9, 0.9), (-0.9, 0.9)),
    "I.26.2": ((-0.95, 0.95), (-1.5, 1.5)),
    "I.27.6": ((0.0, 2.0), (0.0, 2.0)),
    "I.29.16": ((0.2, 2.0), (-3.14159, 3.14159), (-3.14159, 3.14159)),
    "I.40.1": ((0.5, 2.0), (-2.0, 2.0)),
    "II.6.15a": ((-1.0, 1.0), (-1.0, 1.0), (0.5, 2.0)),
    "II.38.14": ((-0.5, 3.0),),
}


@dataclass(frozen=True, kw_only=True)
class FeynmanConfig(Config):
    """Parameters of `kan/feynman`."""

    equation: Literal[
        "toy", "I.6.20", "I.12.11", "I.16.6", "I.26.2", "I.27.6", "I.29.16", "I.40.1", "II.6.15a", "II.38.14"
    ] = param("toy", "which formula; toy: exp(sin(pi x1) + x2^2)")
    examples: int = param(1000, "examples of the train split", at_least=2)
    eval_examples: int = param(1000, "examples of the validation split and of the test split", at_least=1)
    noise: float = param(0.0, "deviation of the noise in train, of the formula's own deviation", at_least=0)
    seed: int = param(0, "of the examples", at_least=0)

    def kinds(self) -> tuple[Vector, Values]:
        """As many features as the formula has variables, and one value."""
        return Vector(features=len(EQUATIONS[self.equation])), Values(count=1)


@dataclass(frozen=True, kw_only=True)
class PlotConfig(Config):
    """Options of `zoo kan plot`."""

    edge: float = param(0.0, "cut edges with a smaller share in the outputs first", at_least=0)
    node: float = param(0.0, "cut nodes with a smaller share first", at_least=0)
    fade: float = param(3.0, "how fast edges turn black with their share", above=0)
    most: int = param(16, "edges drawn in each layer, the strongest", at_least=1)


@dataclass(frozen=True, kw_only=True)
class FormulaConfig(Config):
    """Options of `zoo kan formula`."""

    edge: float = param(0.03, "cut edges with a smaller share in the outputs first", at_least=0)
    node: float = param(0.01, "cut nodes with a smaller share first", at_least=0)
    library: tuple[str, ...] = param((), "functions to try, e.g. [x, x^2, sin, exp]; none: all there are")
    simplicity: float = param(0.8, "weight of simplicity against fit", at_least=0, at_most=1)
    digits: int = param(4, "significant digits of the numbers", at_least=1, at_most=15)
