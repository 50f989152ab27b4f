"""`zoo kan formula RUN`: a trained network as a formula, in natural units."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import sympy  # here, so that the command says which extra brings it
import torch
from torch import Tensor

from zoo.commands import Answer, SavedRun
from zoo.data import Splits
from zoo.plugin import ZooError
from zoo_kan.commands import as_given, examples
from zoo_kan.config import FormulaConfig
from zoo_kan.formula import SymbolicNetwork, fit_numbers, r2, round_numbers, snap
from zoo_kan.network import Network, prune


def formula(run: SavedRun, config: FormulaConfig) -> Answer:
    """Prune, snap edges to known functions, fit the numbers to the train split, and score it on test."""
    splits, model = run.splits(), run.model()
    x, y = examples(splits.train)
    test_x, test_y = examples(splits.test)
    with torch.no_grad():
        answers = model(test_x)
    if not (isinstance(answers, Tensor) and isinstance(test_y, Tensor) and answers.shape == test_y.shape):
        raise ZooError(
            f"run {str(run.folder)!r}: formulas are written of numbers, one or more for each example, but it "
            "was trained on other targets (classes, several tasks); zoo kan plot draws its functions"
        )
    of_network = r2(answers, test_y)
    try:
        network = prune(model, x, edge=config.edge, node=config.node)
        inputs = _features(network, x).double()
        symbolic, fits = snap(network, library=config.library or None, simplicity=config.simplicity)
    except ValueError as error:  # no chain of KAN layers, nothing left of it, an unknown function
        raise ZooError(f"run {str(run.folder)!r}: {error}") from error
    fit_numbers(symbolic, inputs, y.double())
    with torch.no_grad():
        scores = r2(symbolic(as_given(test_x, inputs).double()), test_y)
    written = _written(symbolic, splits, features=inputs.shape[1], digits=config.digits)
    lines, edges = [], []
    for n, (expression, score) in enumerate(zip(written, scores, strict=True)):
        lines.append(f"{'y' if len(written) == 1 else f'y{n + 1}'} = {expression}")
        lines.append(f"R2 on test: {score:.6f}, of the network: {of_network[n]:.6f}")
    for layer, found in fits.items():
        for (o, i), fit in found.items():
            edges.append({"layer": layer, "from": i, "to": o, "function": fit.name, "r2": fit.r2})
            lines.append(f"  {layer} {i} -> {o}: {fit.name}  R2 {fit.r2:.5f}")
    data = {
        "formulas": [str(each) for each in written],
        "r2": scores,
        "network_r2": of_network,
        "edges": edges,
    }
    return Answer(text="\n".join(lines), data=data)


def _features(network: Network, x: Tensor) -> Tensor:
    """What the first layer is given, where that is the features and nothing stands between the layers.

    Raises:
        ValueError: it is not so, and no formula of the features comes out.
    """
    names = list(network.layers)
    first = network.inputs[names[0]]
    if not torch.equal(first, as_given(x, first)):
        raise ValueError(
            "the first KAN layer does not get the features themselves, so that no formula of them comes out: "
            "train with the stem kan/raw, a head of kan and params.norm: none (see the recipe kan/toy)"
        )
    for before, name in pairwise(names):
        passed = network.layers[before](network.inputs[before])
        if not torch.allclose(passed, network.inputs[name], atol=1e-5):
            raise ValueError(
                f"something stands between the KAN layers before {name}: train with params.norm: none"
            )
    return first


def _written(symbolic: SymbolicNetwork, splits: Splits, *, features: int, digits: int) -> list[Any]:
    """The outputs as sympy expressions of x1, x2, ..., all in natural units."""
    symbols = sympy.symbols([f"x{n + 1}" for n in range(features)])
    expressions = symbolic.write(_standardised(splits.encode, symbols), digits=None)
    natural = [_natural(splits.decode, n, len(expressions), each) for n, each in enumerate(expressions)]
    return [round_numbers(each, digits) for each in natural]


def _standardised(encode: Callable[[Any], Tensor] | None, symbols: list[Any]) -> list[Any]:
    """What the network is given, of features in natural units, where that is a scale and a shift."""
    if encode is None:
        return symbols
    try:
        count = len(symbols)
        at = [encode(torch.full((count,), float(value))).double() for value in (0.0, 1.0, 3.0)]
    except (RuntimeError, ValueError, TypeError):
        return symbols
    slope = at[1] - at[0]
    if not torch.allclose(at[2], at[0] + 3 * slope, atol=1e-4):
        return symbols
    return [symbol * a + b for symbol, a, b in zip(symbols, slope.tolist(), at[0].tolist(), strict=True)]


def _natural(decode: Callable[[Tensor], Any] | None, n: int, count: int, expression: Any) -> Any:
    """An output in natural units."""
    if decode is None:
        return expression
    zero, one = torch.zeros(1, count), torch.zeros(1, count)
    one[0, n] = 1
    shift, scale = decode(zero)[0, n].item(), (decode(one)[0, n] - decode(zero)[0, n]).item()
    return sympy.expand_mul(scale * expression + shift)
