"""From a network to a formula: snap its edges to known functions, fit their numbers anew, write it down.

Shapes: S samples, I inputs and O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo_kan.network import Network
from zoo_kan.symbolic import LIBRARY, Fit, symbolic_fit, to_sympy

#: Numbers a formula is written with, significant digits.
DIGITS = 4
#: Smaller ones are left out.
NOTHING = 1e-5


class SymbolicLayer(nn.Module):
    """A layer whose edges are c f(a x + b); what is left of each sum is one constant.

    fits: (o, i) -> the function of that edge. nodes: which output each sum is part of; the sums of one are
    multiplied.
    """

    def __init__(self, fits: dict[tuple[int, int], Fit], *, nodes: Sequence[int], constant: Tensor) -> None:
        super().__init__()
        self.edges = list(fits)
        self.names = [fit.name for fit in fits.values()]
        self.abc = nn.Parameter(torch.tensor([[f.a, f.b, f.c] for f in fits.values()], dtype=torch.float64))
        fixed = [[p in LIBRARY[f.name].free for p in "ab"] + [True] for f in fits.values()]
        self.register_buffer("free", torch.tensor(fixed))
        start = constant.double().clone()
        for (o, _), fit in fits.items():
            start[o] += fit.d
        self.constant = nn.Parameter(start)
        self.nodes = list(nodes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (S, I) -> (S, O)."""
        abc = torch.where(self.free, self.abc, self.abc.detach())  # type: ignore[arg-type]
        y = [self.constant[o].expand(len(x)) for o in range(len(self.nodes))]
        for (o, i), name, (a, b, c) in zip(self.edges, self.names, abc, strict=True):
            y[o] = y[o] + c * LIBRARY[name].f(a * x[:, i] + b)
        return torch.stack(self._multiplied(y), dim=1)

    def write(self, inputs: Sequence[Any]) -> list[Any]:
        """sympy expressions of the outputs, given those of the inputs."""
        import sympy

        outputs = [sympy.Float(value) for value in self.constant.tolist()]
        for (o, i), name, (a, b, c) in zip(self.edges, self.names, self.abc.tolist(), strict=True):
            outputs[o] = outputs[o] + c * to_sympy(name, a * inputs[i] + b)
        return self._multiplied(outputs)

    def _multiplied(self, sums: list[Any]) -> list[Any]:
        """The outputs, each the product of its sums."""
        outputs: dict[int, Any] = {}
        for node, each in zip(self.nodes, sums, strict=True):
            outputs[node] = outputs[node] * each if node in outputs else each
        return list(outputs.values())


class SymbolicNetwork(nn.Module):
    """Symbolic layers, one after the other."""

    def __init__(self, layers: Sequence[SymbolicLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """x: (S, I) -> (S, O)."""
        for layer in self.layers:
            x = layer(x)
        return x

    def write(self, inputs: Sequence[Any], *, digits: int | None = DIGITS) -> list[Any]:
        """sympy expressions of the outputs, with numbers of so many digits, or (`None`) as they are."""
        expressions = list(inputs)
        for layer in self.layers:
            expressions = layer.write(expressions)  # type: ignore[operator]
        return expressions if digits is None else [round_numbers(each, digits) for each in expressions]


def snap(
    network: Network, *, library: Sequence[str] | None = None, simplicity: float = 0.8
) -> tuple[SymbolicNetwork, dict[str, dict[tuple[int, int], Fit]]]:
    """Every edge that is left as the known function that fits it best, and which fitted how well."""
    layers, chosen = [], {}
    for name, layer in network.layers.items():
        x = network.inputs[name].double()
        curves = layer.curves(network.inputs[name]).detach().double()
        fits = {
            (o, i): symbolic_fit(x[:, i], curves[:, o, i], library=library, simplicity=simplicity)[0]
            for o, i in (layer.edge_mask > 0).nonzero().tolist()
        }
        constant = torch.zeros(layer.sums) if layer.bias is None else layer.bias.detach()
        nodes = [layer.node_of(o) for o in range(layer.sums)]
        layers.append(SymbolicLayer(fits, nodes=nodes, constant=constant))
        chosen[name] = fits
    return SymbolicNetwork(layers), chosen


def fit_numbers(network: SymbolicNetwork, x: Tensor, y: Tensor, *, steps: int = 200) -> float:
    """Fit a formula's numbers to data by LBFGS: x (S, I), y (S, O); returns the squared error.

    What is no number in y does not count. Where a step leads out of a function's range, the best stays.
    """
    optimiser = torch.optim.LBFGS(
        network.parameters(),
        max_iter=steps,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    kept, best = [p.detach().clone() for p in network.parameters()], float("inf")
    measured = y.isfinite()

    def closure() -> float:
        nonlocal kept, best
        optimiser.zero_grad()
        loss = (network(x) - y.nan_to_num())[measured].square().mean()
        if not loss.isfinite():
            return float("inf")
        loss.backward()
        if loss.item() < best:
            kept, best = [p.detach().clone() for p in network.parameters()], loss.item()
        return loss.item()

    optimiser.step(closure)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), kept, strict=True):
            parameter.copy_(value)
    return best


def round_numbers(expression: Any, digits: int) -> Any:
    """A sympy expression with its numbers rounded to so many significant digits, the tiniest to 0.

    What is whole by then is written so: exp(x), not 1.0*exp(1.0*x).
    """
    import sympy

    def rounded(number: Any) -> Any:
        value = float(f"{float(number):.{digits}g}")
        whole = value.is_integer() and abs(value) < 10**digits
        return sympy.Integer(int(value)) if whole else sympy.Float(value, digits)

    expression = sympy.sympify(expression)
    # First what is nothing: others then multiply, as in 3 (0.57735 x + 0)^2, and are rounded after that.
    expression = expression.xreplace({n: 0 for n in expression.atoms(sympy.Float) if abs(n) <= NOTHING})
    return expression.xreplace({n: rounded(n) for n in expression.atoms(sympy.Float)})


@torch.no_grad()
def r2(predicted: Tensor, y: Tensor) -> list[float]:
    """R2 of each output, over what was measured: (S, O) each."""
    found = []
    for p, t in zip(predicted.double().T, y.double().T, strict=True):
        at = t.isfinite()
        rest, spread = (p[at] - t[at]).square().sum(), (t[at] - t[at].mean()).square().sum()
        found.append((1 - rest / spread.clamp_min(1e-30)).item())
    return found
