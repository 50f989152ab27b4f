"""Edges as known functions: y = c f(a x + b) + d, and whole networks as formulas.

Shapes: S samples. Everything in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Numbers a and b that are tried, for x of deviation 1: a grid, three times made finer around the best.
REACH, STEPS, ROUNDS = 10.0, 41, 3
#: The least |a|, likewise: below it any bent function is a line or a parabola with huge c.
LEAST = 0.2
#: Points of a curve that are looked at.
SAMPLES = 128
#: Against a curve that is fitted exactly.
EXACT = 1e-7


@dataclass(frozen=True, kw_only=True)
class Function:
    """A candidate. complexity: what a simple formula would rather avoid.

    free: which of a and b are no mere repetition of c and d: "ab", "a" (exp), "b" (powers), "" (the line).
    scales: f(a u) is a multiple of f(u), which goes into c. mirrors: so is f(-u): a is taken above 0.
    """

    name: str
    f: Callable[[Tensor], Tensor]
    complexity: float
    free: str = "ab"
    scales: bool = False
    mirrors: bool = False


def _signed(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.nan)


LIBRARY: dict[str, Function] = {
    each.name: each
    for each in (
        Function(name="x", f=lambda x: x, complexity=1, free="", scales=True),
        Function(name="x^2", f=lambda x: x**2, complexity=2, free="b", scales=True),
        Function(name="x^3", f=lambda x: x**3, complexity=3, free="b", scales=True),
        Function(name="x^4", f=lambda x: x**4, complexity=3, free="b", scales=True),
        Function(name="1/x", f=lambda x: 1 / x, complexity=2, free="b", scales=True),
        Function(name="1/x^2", f=lambda x: 1 / x**2, complexity=2, free="b", scales=True),
        Function(name="sqrt", f=lambda x: _signed(x).sqrt(), complexity=2),
        Function(name="exp", f=torch.exp, complexity=2, free="a"),
        Function(name="log", f=lambda x: _signed(x).log(), complexity=2),
        Function(name="sin", f=torch.sin, complexity=2, mirrors=True),
        Function(name="tanh", f=torch.tanh, complexity=3, mirrors=True),
        Function(name="abs", f=torch.abs, complexity=3, free="b", scales=True),
        Function(name="gaussian", f=lambda x: (-(x**2)).exp(), complexity=3, mirrors=True),
    )
}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """y = c f(a x + b) + d, the share r2 of y's variance that it explains, and its score (less is better)."""

    name: str
    a: float
    b: float
    c: float
    d: float
    r2: float
    score: float


def symbolic_fit(
    x: Tensor, y: Tensor, *, library: Sequence[str] | None = None, simplicity: float = 0.8
) -> list[Fit]:
    """Known functions fitted to a curve, the best first.

    Args:
        x, y: points of the curve, (S,).
        library: names of `LIBRARY` to try; `None`: all.
        simplicity: weight of a function's complexity against log2(1 - R2), in [0, 1]; as in the paper's code.

    Raises:
        ValueError: other shapes, fewer than four points, no or an unknown name, a simplicity that is no
            share, or points that are not finite.
    """
    names = list(LIBRARY) if library is None else list(library)
    unknown = [name for name in names if name not in LIBRARY]
    if unknown:
        raise ValueError(f"unknown function {unknown[0]!r}; there is: {', '.join(LIBRARY)}")
    if not names:
        raise ValueError(f"the library is empty; there is: {', '.join(LIBRARY)}")
    if not 0 <= simplicity <= 1:
        raise ValueError(f"simplicity must lie within 0 and 1, got {simplicity}")
    if x.dim() != 1 or x.shape != y.shape or len(x) < 4:
        raise ValueError(f"expected x and y (S,), S >= 4, got {tuple(x.shape)} and {tuple(y.shape)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("points of a curve must be finite")
    order = x.double().argsort()
    few = order[torch.linspace(0, len(x) - 1, min(SAMPLES, len(x))).round().long()]
    x, y = x.detach().double()[few], y.detach().double()[few]
    mean, size = x.mean().item(), max(x.std().item(), 1e-12)
    found = []
    for name in names:
        function = LIBRARY[name]
        a, b = _search(function, (x - mean) / size, y)
        a, b = a / size, b - a * mean / size
        if function.scales:  # as (a x + b)^p = a^p (x + b / a)^p
            a, b = 1.0, b / a
        elif function.mirrors and a < 0:
            a, b = -a, -b
        c, d, r2 = _line(function.f(a * x + b), y)
        score = simplicity * function.complexity + (1 - simplicity) * math.log2(1 + EXACT - min(r2, 1.0))
        found.append(Fit(name=name, a=a, b=b, c=c, d=d, r2=r2, score=score))
    return sorted(found, key=lambda fit: fit.score)


def _search(function: Function, x: Tensor, y: Tensor) -> tuple[float, float]:
    """The best a and b, on a grid that closes in, then by Gauss-Newton steps."""
    if not function.free:
        return 1.0, 0.0
    center, reach = [0.0 if "a" in function.free else 1.0, 0.0], REACH
    for _ in range(ROUNDS):
        around = reach * torch.linspace(-1, 1, STEPS, dtype=x.dtype)
        tried = [
            middle + around if part in function.free else x.new_tensor([middle])
            for middle, part in zip(center, "ab", strict=True)
        ]
        a, b = torch.meshgrid(*tried, indexing="ij")
        values = function.f(a[..., None] * x + b[..., None])
        r2 = torch.where(a.abs() >= LEAST, _explained(values, y), -1.0)
        at = int(r2.flatten().argmax())
        center = [a.flatten()[at].item(), b.flatten()[at].item()]
        reach *= 2 / (STEPS - 1)
    return _polish(function, x, y, center)


def _polish(function: Function, x: Tensor, y: Tensor, start: list[float]) -> tuple[float, float]:
    """A few steps of LBFGS from the best grid point, where they help."""
    free = torch.tensor([part in function.free for part in "ab"])
    point = torch.tensor(start, dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([point], max_iter=30, line_search_fn="strong_wolfe")

    def unexplained() -> Tensor:
        at = torch.where(free, point, point.detach())
        return 1 - _explained(function.f(at[0] * x + at[1]), y)

    def closure() -> float:
        optimiser.zero_grad()
        loss = unexplained()
        if loss.requires_grad and loss.isfinite():
            loss.backward()
        return loss.item()

    before = unexplained().item()
    optimiser.step(closure)  # type: ignore[arg-type]
    after = unexplained().item()
    a, b = point.detach().tolist()
    return (a, b) if abs(a) >= LEAST and after <= before else (start[0], start[1])  # NaN is no better


def _explained(values: Tensor, y: Tensor) -> Tensor:
    """R2 of the best line from values (..., S) to y (S,): the squared correlation; -1: it is no number."""
    v, t = values - values.mean(-1, keepdim=True), y - y.mean()
    shared = (v * t).sum(-1) ** 2
    r2 = shared / (v.square().sum(-1) * t.square().sum()).clamp_min(1e-30)
    return torch.where(r2.isfinite() & v.isfinite().all(-1), r2, -1.0)


def _line(values: Tensor, y: Tensor) -> tuple[float, float, float]:
    """c, d and R2 of y = c values + d."""
    r2 = _explained(values, y).item()
    if r2 < 0:
        return 0.0, y.mean().item(), 0.0
    v = values - values.mean()
    c = ((v * (y - y.mean())).sum() / v.square().sum().clamp_min(1e-30)).item()
    return c, (y.mean() - c * values.mean()).item(), r2


def to_sympy(name: str, inner: Any) -> Any:
    """f(inner) as a sympy expression."""
    import sympy

    forms: dict[str, Callable[[Any], Any]] = {
        "x": lambda u: u,
        "x^2": lambda u: u**2,
        "x^3": lambda u: u**3,
        "x^4": lambda u: u**4,
        "1/x": lambda u: 1 / u,
        "1/x^2": lambda u: 1 / u**2,
        "sqrt": sympy.sqrt,
        "exp": sympy.exp,
        "log": sympy.log,
        "sin": sympy.sin,
        "tanh": sympy.tanh,
        "abs": sympy.Abs,
        "gaussian": lambda u: sympy.exp(-(u**2)),
    }
    return forms[name](inner)
