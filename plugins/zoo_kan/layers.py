"""`KANLinear`: a layer whose edges are learned functions of one variable.

Shapes: N examples, I inputs, O outputs, K basis functions, S samples.
Source: https://arxiv.org/abs/2404.19756 (the KAN paper), its section on the architecture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers import full_precision, sum_dtype
from zoo_kan import functional, grids, scores
from zoo_kan.bases import make_basis
from zoo_kan.edges import branch, sum_over_edges
from zoo_kan.splines import Extrapolate, SplineBasis

#: The standard deviation of a spline's coefficients at the start, times 1 / sqrt(I).
NOISE = 0.1


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a layer's outputs moved on the samples when its grids did.

    largest: of |y after - y before|; relative: over the deviation of y before. frozen: features whose grid
    stayed, because their samples are all (nearly) equal or none is finite.
    """

    largest: float
    relative: float
    frozen: int


class KANLinear(nn.Module):
    """y_o = sum_i phi_oi(x_i), phi(x) = w_b silu(x) + w_s sum_j c_j B_j(x), as in the paper.

    Args:
        grid_intervals, order: G and k; each edge has G + k coefficients.
        grid_range: ends of the grid at the start; inputs should lie within. `update_grid` moves it.
        basis: "bspline", "rbf", "chebyshev" or "fourier", see `zoo_kan.bases`.
        base: "silu", "identity" or "none": the function b of the base branch.
        edge_scale: a learned w_s per edge. Without, it is part of the coefficients: the same functions.
        bias: one learned number per output (the paper has none).
        extrapolate: what B-splines are outside the grid: "zero", "clamp" or "linear".
        products: how many of the outputs, the last ones, are products of `factors` sums instead of one sum:
            the multiplication nodes of KAN 2.0 (https://arxiv.org/abs/2408.10205).
        sparsity: of `penalty`, what it adds to a training loss.

    Attributes:
        sums: how many sums there are, O without products; the factors of a product follow one another. In
            all shapes below, and of methods that give something for each edge, O stands for them.
        base_weight (O, I) or `None`, coef (O, I, K), scale (O, I) or `None`: w_b, c and w_s.
        edge_mask: (O, I), 0 where an edge was pruned. A buffer.

    Raises:
        ValueError: sizes that cannot be.
    """

    edge_mask: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        grid_intervals: int = 5,
        order: int = 3,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        basis: str = "bspline",
        base: str = "silu",
        edge_scale: bool = False,
        bias: bool = False,
        extrapolate: Extrapolate = "zero",
        products: int = 0,
        factors: int = 2,
        sparsity: float = 0.0,
    ) -> None:
        super().__init__()
        functional.check_whole("in_features", in_features, at_least=1)
        functional.check_whole("out_features", out_features, at_least=1)
        functional.check_whole("products", products, at_least=0)
        functional.check_whole("factors", factors, at_least=2)
        if base not in ("silu", "identity", "none"):
            raise ValueError(f"base must be one of silu, identity, none, got {base!r}")
        if products > out_features:
            raise ValueError(f"0 to {out_features} of the outputs can be products, got {products}")
        if not 0 <= sparsity < math.inf:
            raise ValueError(f"sparsity must be at least 0 and finite, got {sparsity}")
        self.in_features = in_features
        self.out_features = out_features
        self.products = products
        self.factors = factors
        self.base = base
        self.sparsity = sparsity
        self._seen: Tensor | None = None
        self.basis: Any = make_basis(
            basis,
            features=in_features,
            intervals=grid_intervals,
            order=order,
            low=grid_range[0],
            high=grid_range[1],
            extrapolate=extrapolate,
        )
        shape = (self.sums, in_features)
        self.coef = nn.Parameter(torch.empty(*shape, self.basis.count))
        self.base_weight = nn.Parameter(torch.empty(shape)) if base != "none" else None
        self.scale = nn.Parameter(torch.empty(shape)) if edge_scale else None
        self.bias = nn.Parameter(torch.empty(self.sums)) if bias else None
        self.register_buffer("edge_mask", torch.ones(shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Outputs of unit inputs start at a size of about 1 / 3, nearly all of it from the base branch."""
        bound = 1 / math.sqrt(self.in_features)
        if self.base_weight is not None:
            nn.init.uniform_(self.base_weight, -bound, bound)
        nn.init.normal_(self.coef, std=NOISE * bound if self.base_weight is not None else bound)
        if self.scale is not None:
            nn.init.ones_(self.scale)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., I) -> (..., O).

        Raises:
            ValueError: another number of features, or not of a floating-point type.
        """
        functional.check_inputs(x, self.in_features)
        if self.sparsity and self.training:
            self._seen = x
        return self._given(x)

    def _given(self, x: Tensor) -> Tensor:
        """`forward`, of which `penalty` does not know."""
        with full_precision(x.device):
            rows = x.reshape(-1, self.in_features).to(sum_dtype(x.dtype))
            coef, base = self.effective_coef().to(rows.dtype), self.effective_base()
            base = None if base is None else base.to(rows.dtype)
            y = sum_over_edges(rows, coef, base, self.basis, self.base)
            y = y.reshape(*x.shape[:-1], self.sums).to(x.dtype)
        return self.multiply(y if self.bias is None else y + self.bias)

    @property
    def sums(self) -> int:
        return self.out_features + (self.factors - 1) * self.products

    def multiply(self, sums: Tensor) -> Tensor:
        """What the nodes give, of their sums: (..., sums) -> (..., O)."""
        if not self.products:
            return sums
        plain = self.out_features - self.products
        return torch.cat(
            [sums[..., :plain], sums[..., plain:].unflatten(-1, (self.products, self.factors)).prod(-1)], -1
        )

    def node_of(self, sum_: int) -> int:
        """Which output a sum is part of."""
        plain = self.out_features - self.products
        return sum_ if sum_ < plain else plain + (sum_ - plain) // self.factors

    def effective_base(self) -> Tensor | None:
        """w_b of the edges that are kept, 0 of the others: (O, I)."""
        return None if self.base_weight is None else self.base_weight * self.edge_mask

    def effective_coef(self) -> Tensor:
        """w_s c of the edges that are kept, 0 of the others: (O, I, K)."""
        factor = self.edge_mask if self.scale is None else self.edge_mask * self.scale
        return self.coef * factor.unsqueeze(-1)

    def curves(self, x: Tensor) -> Tensor:
        """phi_oi(x_i), not summed up: x (S, I) -> (S, O, I). Memory S O I: for looking at edges.

        Raises:
            ValueError: another number of features, or not of a floating-point type.
        """
        functional.check_inputs(x, self.in_features)
        curves = torch.einsum("sik,oik->soi", self.basis(x).to(x.dtype), self.effective_coef())
        base = self.effective_base()
        return curves if base is None else curves + branch(x, self.base).unsqueeze(1) * base

    # -- grids -------------------------------------------------------------------------------

    @property
    def grid_intervals(self) -> int:
        """G.

        Raises:
            ValueError: the basis has no grid.
        """
        return self._spline().intervals

    @torch.no_grad()
    def update_grid(
        self, x: Tensor, *, uniform_share: float = 0.02, margin: float = 0.01, most_drift: float | None = None
    ) -> Drift:
        """Move each feature's grid to where its samples are, and fit the splines to what they were.

        The knots lie at quantiles of the samples, blended with equally spaced ones (`zoo_kan.grids`). NaN and
        infinite samples are left out; a feature whose samples are all equal keeps its grid.

        Args:
            x: samples (..., I).
            uniform_share: of equally spaced knots in the blend; 1: equally spaced over the samples' range.
            margin: by how much the grid goes beyond the samples, of their range.
            most_drift: refuse, and change nothing, where the outputs would move by more (relative).

        Raises:
            ValueError: the basis has no grid; no samples, of another width or not of a floating-point type;
                the drift is larger.
        """
        spline, x = self._spline(), self._samples(x)
        found = grids.moved(spline.core(), x, uniform_share=uniform_share, margin=margin)
        grid = functional.extend_grid(found.core, spline.order)
        grid[found.frozen] = spline.grid.double()[found.frozen]
        sites = grids.sites(x, spline.core(), found.core, per_interval=4 * (spline.order + 1))
        old_grid, old_coef = spline.grid, self.coef.detach().clone()
        samples = torch.where(x.isfinite(), x, sites[:1].to(x))
        before = self._given(samples)
        old = self._splines_at(sites)
        spline.set_grid(grid)
        fitted = functional.curve2coef(sites, old, spline.grid.double(), spline.order).to(self.coef)
        self.coef.copy_(torch.where(found.frozen[:, None], self.coef, fitted))
        moved = (self._given(samples) - before).abs().max().item()
        deviation = before.std(correction=0).item()
        drift = Drift(
            largest=moved,
            relative=moved / max(deviation, 1e-12),
            frozen=int(found.frozen.sum()),
        )
        if most_drift is not None and not drift.relative <= most_drift:
            spline.set_grid(old_grid)
            self.coef.copy_(old_coef)
            raise ValueError(
                f"moving the grids would change outputs by {drift.relative:.3g} of their deviation, more "
                f"than most_drift={most_drift:g}; refine first, or allow more. Nothing was changed"
            )
        return drift

    @torch.no_grad()
    def refine(self, grid_intervals: int) -> KANLinear:
        """Go on with a finer grid and (but for rounding) the same functions: an exact grid extension.

        A multiple of the present number divides every interval: the new splines hold the old ones, on the
        core of the grid. Another number lays equally spaced knots between the old ends and fits the splines,
        densely and without data.

        `coef` stays the same Parameter, of another shape, and loses its gradient. What an optimiser remembers
        of it must go: `optimizer.state.pop(layer.coef, None)`.

        Raises:
            ValueError: a coarser grid, a number that is not whole, or a basis without a grid.
        """
        spline = self._spline()
        functional.check_sizes(grid_intervals, spline.order)
        old = spline.intervals
        if grid_intervals < old:
            raise ValueError(
                f"refining goes to finer grids: there are {old} intervals, {grid_intervals} are coarser"
            )
        if grid_intervals == old:
            return self
        core = grids.subdivided(spline.core().double(), grid_intervals)
        grid = functional.extend_grid(core, spline.order)
        if grid_intervals % old == 0:
            matrix = functional.refine_matrix(spline.grid, grid, spline.order)  # (I, K, K')
            coef = torch.einsum("oik,ikl->oil", self.coef.double(), matrix)
        else:
            sites = grids.between(core, 4 * (spline.order + 1))
            coef = functional.curve2coef(sites, self._splines_at(sites), grid, spline.order)
        spline.resize(grid.shape[1])
        spline.set_grid(grid)
        self._resize(coef.to(self.coef).contiguous())
        return self

    def _splines_at(self, x: Tensor) -> Tensor:
        """The spline of each edge but for w_s, outside of its grid as `extrapolate` has it: x (S, I), float64
        -> (S, O, I)."""
        return torch.einsum("sik,oik->soi", self.basis(x), self.coef.double())

    def _samples(self, x: Tensor) -> Tensor:
        """x (..., I) as samples (S, I).

        Raises:
            ValueError: none, of another width or not of a floating-point type.
        """
        if x.shape[-1:] != (self.in_features,) or not x.numel():
            raise ValueError(f"expected samples (..., {self.in_features}), one or more, got {tuple(x.shape)}")
        functional.check_floating(x)
        return x.reshape(-1, self.in_features)

    def _resize(self, coef: Tensor) -> None:
        """Other coefficients, of another shape, in the same Parameter: optimisers hold on to it."""
        self.coef.data = coef
        self.coef.grad = None

    def _spline(self) -> SplineBasis:
        if not isinstance(self.basis, SplineBasis):
            raise ValueError(f"a {type(self.basis).__name__} has no grid to move or refine: use bspline")
        return self.basis

    # -- importance --------------------------------------------------------------------------

    def edge_scores(self, x: Tensor) -> Tensor:
        """The standard deviation of each edge's function over samples x (..., I): (O, I), differentiable.

        Raises:
            ValueError: no samples, of another width or not of a floating-point type.
        """
        return scores.edge_deviations(self, self._samples(x))

    def regularization_loss(
        self, x: Tensor | None = None, *, l1: float = 1.0, entropy: float = 2.0
    ) -> Tensor:
        """What pushes edges to zero and the rest to few: l1 sum_oi s_oi + entropy H(s), see `zoo_kan.scores`.

        x: samples (..., I): s is the deviation of each edge over them. Without samples s is the mean size of
            an edge's coefficients, which is cheaper and says less.

        Raises:
            ValueError: as `edge_scores`.
        """
        sizes = scores.edge_sizes(self) if x is None else self.edge_scores(x)
        return scores.penalty(sizes, l1=l1, entropy=entropy)

    def penalty(self) -> Tensor | None:
        """`sparsity` times `regularization_loss` of the last inputs in training mode, once; else `None`."""
        seen, self._seen = self._seen, None
        return None if seen is None else self.sparsity * self.regularization_loss(seen)

    def __getstate__(self) -> dict[str, Any]:
        """Without the inputs that `penalty` waits for: with their graph they cannot be copied or saved."""
        return {**self.__dict__, "_seen": None}

    def prune_(self, keep: Tensor) -> KANLinear:
        """Cut the edges where `keep`, bool (O, I), is False; those cut before stay cut.

        Raises:
            ValueError: another shape or type.
        """
        if keep.dtype != torch.bool or keep.shape != self.edge_mask.shape:
            expected = f"bool {tuple(self.edge_mask.shape)}"
            raise ValueError(f"keep must be {expected}, got {keep.dtype} {tuple(keep.shape)}")
        self.edge_mask.mul_(keep)
        return self

    # -- sizes that change -------------------------------------------------------------------

    def take_sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make room for weights that are about to be loaded, of another number of grid intervals.

        Only for splines of the same order, whose grid and coefficients fit each other: what does not is left
        to be refused.
        """
        coef, grid = (shapes.get(name, ()) for name in ("coef", "basis.grid"))
        if not isinstance(self.basis, SplineBasis) or len(coef) != 3 or coef == tuple(self.coef.shape):
            return
        knots = coef[2] + self.basis.order + 1
        if coef[:2] == tuple(self.edge_mask.shape) and grid == (self.in_features, knots):
            self.basis.resize(knots)
            self._resize(self.coef.new_empty(coef))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = {name: state_dict.get(f"{prefix}{name}") for name in ("coef", "basis.grid")}
        self.take_sizes({name: tuple(t.shape) for name, t in saved.items() if t is not None})
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        products = f", products={self.products}" if self.products else ""
        return f"{self.in_features}, {self.out_features}, base={self.base}{products}"
