"""B-splines as a basis of `KANLinear`: on any grid, in few passes for cubic ones on equal steps.

Shapes: N rows, I input features, K basis functions, M knots; I' features of a block.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor

from zoo_kan import functional, native
from zoo_kan.edges import Basis, Blocks, Sums

Extrapolate = Literal["zero", "clamp", "linear"]
EXTRAPOLATE: tuple[Extrapolate, ...] = ("zero", "clamp", "linear")

#: (a^3 - 4 b^3) with a = relu(2 A - |u|), b = relu(a - A) is the cubic B-spline of u / A: 1 / 6 in the cubes.
_A = 6.0 ** (-1 / 3)


class _CubicBlocks:
    """Cubic splines on equal steps, in few passes over the same memory for each block.

    From quadratic splines Q_j, j = 0 to K. With u in steps from the grid's start, d = u - j + 3 / 2 to the
    middle of Q_j, cut to |d| <= 3 / 2, where Q_j ends, and e = d - (d cut to |d| <= 1 / 2):

        4 / 3 Q_j = 1 - 4 / 3 d^2 + 2 e^2
        B'_j = Q_j - Q_j+1                         the derivative of a spline
        B_j = 4 / 3 Q_j+1 + (u - j + 3) B'_j / 3   the recursion of Cox and de Boor

    At |d| = 3 / 2 floating point gives 0, too: outside of their support splines are 0, not almost.
    """

    def __init__(self, places: Tensor, chain: Tensor, *, count: int, size: int) -> None:
        """places: u, (I, N). chain: 3 / 4 of its derivative by x, (I, N) or (I, 1). count: K."""
        self.chain = chain
        self.places = places.unsqueeze(1).split(size)
        at = torch.arange(count + 1, dtype=places.dtype, device=places.device)[:, None]
        self._middles, self._starts = at - 1.5, at[:count] - 3
        self._one = places.new_ones(())
        self._rooms: dict[int, _Room] = {}

    def values(self, block: int) -> Tensor:
        return self.both(block)[0]

    def both(self, block: int) -> tuple[Tensor, Tensor]:
        places = self.places[block]
        room = self._room(places)
        d, e = room.quadratic, room.rest
        torch.sub(places, self._middles, out=d).clamp_(-1.5, 1.5)
        torch.clamp(d, -0.5, 0.5, out=e).sub_(d)
        torch.addcmul(self._one, d, d, value=-4 / 3, out=d).addcmul_(e, e, value=2)
        torch.sub(room.before, room.after, out=room.slopes)
        torch.sub(places, self._starts, out=room.values)
        torch.addcmul(room.after, room.values, room.slopes, value=0.25, out=room.values)
        return room.values, room.slopes

    def _room(self, places: Tensor) -> _Room:
        """The same memory for all blocks, but for the last, which may have fewer features."""
        found = self._rooms.get(places.shape[0])
        if found is None:
            found = self._rooms[places.shape[0]] = _Room(places, self._starts.shape[0])
        return found


class _Room:
    """Where `_CubicBlocks` computes. Slopes take the memory of `rest`, which by then is done with."""

    def __init__(self, places: Tensor, count: int) -> None:
        features, _, rows = places.shape
        self.quadratic, self.rest = (places.new_empty(features, count + 1, rows) for _ in range(2))
        self.values = places.new_empty(features, count, rows)
        self.slopes = self.rest.view(-1)[: self.values.numel()].view_as(self.values)
        self.before, self.after = self.quadratic[:, :-1], self.quadratic[:, 1:]


class SplineBasis(Basis):
    """B-splines on a grid per input feature.

    Args:
        intervals: G, grid intervals. order: k, the degree; 3 is cubic.
        low, high: ends of the grid at the start.
        extrapolate: outside the core of the grid, "zero": what the functions are there, which fades to
            0 within k intervals; "clamp": their value at the end; "linear": on along their slope at the end.

    Attributes:
        grid: the knots, (I, M), a buffer, in float64 whatever the weights are. uniform: whether those of each
            feature are equally spaced, which allows the closed form of cubic splines; both forms are equal.

    Raises:
        ValueError: no interval, a negative order, ends that do not increase or are not finite, an unknown
            `extrapolate`.
    """

    grid: Tensor
    low: Tensor
    high: Tensor
    per_step: Tensor

    def __init__(
        self,
        *,
        features: int,
        intervals: int = 5,
        order: int = 3,
        low: float = -1.0,
        high: float = 1.0,
        extrapolate: Extrapolate = "zero",
    ) -> None:
        super().__init__()
        if extrapolate not in EXTRAPOLATE:
            raise ValueError(f"extrapolate must be one of {', '.join(EXTRAPOLATE)}, got {extrapolate!r}")
        self.order = order
        self.extrapolate: Extrapolate = extrapolate
        grid = functional.uniform_grid(low, high, intervals, order, features=features, dtype=torch.float64)
        self.register_buffer("grid", grid)
        # Of the grid, as vectors in float32: compiled code would read every twelfth number, convert it and
        # divide by it for each row and function.
        for name, value in zip(("low", "high", "per_step"), self._scale(), strict=True):
            self.register_buffer(name, value.float(), persistent=False)
        self.uniform = True

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.grid.shape[1] - self.order - 1

    @property
    def intervals(self) -> int:
        """G."""
        return self.grid.shape[1] - 1 - 2 * self.order

    def core(self) -> Tensor:
        """The knots without those outside: (I, G + 1)."""
        return self.grid[:, self.order : self.order + self.intervals + 1]

    def set_grid(self, grid: Tensor) -> None:
        """Take other knots, as many: (I, M). `KANLinear.refine` changes their number, with the weights'.

        Raises:
            ValueError: another shape, knots that do not increase or are not finite, or a core that covers
                nothing.
        """
        if grid.shape != self.grid.shape:
            raise ValueError(f"expected a grid {tuple(self.grid.shape)}, got {tuple(grid.shape)}")
        functional.check_grid(grid)
        functional.check_grid(grid[:, self.order : self.order + self.intervals + 1])
        # A resized buffer has to stay the same tensor for nobody: it is replaced.
        self.grid = grid.to(self.grid)
        self.note_grid()

    def note_grid(self) -> None:
        """Look at the grid anew: where it ends, and whether it is uniform. After its values were changed."""
        self.low, self.high, self.per_step = (value.float() for value in self._scale())
        steps = self.grid.double().diff(dim=1)
        mean = steps.mean(1, keepdim=True)
        self.uniform = bool(((steps - mean).abs() <= 1e-12 + 1e-9 * mean).all())

    def _apply(self, fn: Any, recurse: bool = True) -> SplineBasis:
        """To other devices, but not to other types: rounded knots are no longer those of the splines."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                device = fn(buffer.float()).device
                wide = name == "grid" and device.type != "mps"  # which has no float64
                move = torch.empty_like if buffer.is_meta else torch.Tensor.to  # `to_empty` leaves meta
                self._buffers[name] = move(
                    buffer, device=device, dtype=torch.float64 if wide else torch.float32
                )
        return self

    def values(self, x: Tensor, features: int = 1) -> Tensor:
        inside = self._taken(x, features)
        values = self._values(inside, features)
        if self.extrapolate != "linear":
            return values
        return values + self._slopes(inside, features) * (x - inside).unsqueeze(1)

    def slopes(self, x: Tensor, features: int = 1) -> Tensor:
        slopes = self._slopes(self._taken(x, features), features)
        return slopes * self._inside(x, features).unsqueeze(1) if self.extrapolate == "clamp" else slopes

    def part(self, at: slice) -> SplineBasis:
        part = copy.copy(self)
        part._buffers = {name: buffer[at] for name, buffer in self._buffers.items() if buffer is not None}
        return part

    def blocks(self, columns: Tensor, size: int) -> Blocks:
        if not self._closed or self.extrapolate == "linear":
            return super().blocks(columns, size)
        low, high, per_step = self._scale_for(columns, 0)
        chain, beyond = 0.75 * per_step, self.order  # further out all is 0, also at infinity
        if self.extrapolate == "clamp":
            chain, beyond = chain * ((columns >= low) & (columns <= high)), 0
        places = columns.sub_(low).mul_(per_step).clamp_(-beyond, self.intervals + beyond)
        return _CubicBlocks(places, chain, count=self.count, size=size)

    def sums(self, x: Tensor) -> Sums | None:
        if native.obstacle(x, self.order):
            return None
        return native.SplineSums(self.grid, self.order, EXTRAPOLATE.index(self.extrapolate))

    # -- the two forms: closed for cubic splines on equal steps, else the recursion ----------------

    @property
    def _closed(self) -> bool:
        return self.uniform and self.order == 3

    def _values(self, x: Tensor, features: int) -> Tensor:
        if not self._closed:
            return self._recursion(x, features)
        a = (2 * _A - (self._places(x, features).unsqueeze(1) - self._middles(x)).abs()).relu()
        b = (a - _A).relu()
        return a * a * a - 4 * (b * b * b)

    def _slopes(self, x: Tensor, features: int) -> Tensor:
        if not self._closed:
            return self._recursion(x, features, derivative=1)
        distance = self._places(x, features).unsqueeze(1) - self._middles(x)
        c, e = _cut(distance, 2 * _A), _cut(distance, _A)
        per_input = (_A * self._per_step(x, features)).expand_as(x).unsqueeze(1)
        return (c * (4 * _A - c.abs()) - 4 * (e * (2 * _A - e.abs()))) * (3 * per_input)

    def _recursion(self, x: Tensor, features: int, derivative: int = 0) -> Tensor:
        end = -1 if self.extrapolate == "zero" else -1 - self.order
        # Where inputs are held to the core, the slope at its end is that of its last interval.
        knots = self.grid.to(x.dtype)
        return functional.spline_planes(
            x, knots, self.order, features=features, derivative=derivative, end=end
        )

    def _places(self, x: Tensor, features: int) -> Tensor:
        """A times the steps from the grid's start, of the shape of x."""
        return (x - self._ends(x, features)[0]) * (_A * self._per_step(x, features))

    def _middles(self, x: Tensor) -> Tensor:
        """The place where each function is largest: (K, 1)."""
        return torch.arange(-1, self.count - 1, dtype=x.dtype, device=x.device)[:, None] * _A

    def _per_step(self, x: Tensor, features: int) -> Tensor:
        """1 / h of each feature."""
        return self._scale_for(x, features)[2]

    def _taken(self, x: Tensor, features: int) -> Tensor:
        """x, or the nearest place on the grid."""
        return x if self.extrapolate == "zero" else x.clamp(*self._ends(x, features))

    def _inside(self, x: Tensor, features: int) -> Tensor:
        low, high = self._ends(x, features)
        return (x >= low) & (x <= high)

    def _ends(self, x: Tensor, features: int) -> tuple[Tensor, Tensor]:
        """First and last core knot of each feature: (I,), or (I, 1) with the features first."""
        return self._scale_for(x, features)[:2]

    def _scale_for(self, x: Tensor, features: int) -> tuple[Tensor, Tensor, Tensor]:
        """First and last core knot and 1 / h, in the type of x."""
        low, high, per_step = (
            (self.low, self.high, self.per_step) if x.dtype == torch.float32 else self._scale()
        )
        if features == 1:
            return low, high, per_step
        return low.unsqueeze(1), high.unsqueeze(1), per_step.unsqueeze(1)

    def _scale(self) -> tuple[Tensor, Tensor, Tensor]:
        """First and last core knot and 1 / h of each feature, (I,) each, from the grid itself."""
        low, high = self.core()[:, 0], self.core()[:, -1]
        return low, high, self.intervals / (high - low)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if not self.grid.is_meta:
            self.note_grid()

    def resize(self, knots: int) -> None:
        """Make room for a grid of so many knots, that is about to be loaded or set."""
        self.grid = self.grid.new_empty(len(self.grid), knots)


def _cut(x: Tensor, at: float) -> Tensor:
    """x, but no further than `at` from 0: what `clamp` does, which compiled code takes longer for."""
    return (2 * at - (at - x).relu()).relu() - at
