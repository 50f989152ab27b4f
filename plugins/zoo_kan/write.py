"""`zoo kan formula RUN`: a trained network as a formula, in natural units."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import sympy  # here, so that the command says which extra brings it
import torch
from torch import Tensor, nn

from zoo.commands import Answer, SavedRun
from zoo.plugin import Values, ZooError
from zoo_kan.commands import as_given, examples
from zoo_kan.config import FormulaConfig
from zoo_kan.formula import SymbolicNetwork, fit_numbers, r2, round_numbers, snap
from zoo_kan.network import Network, prune
from zoo_kan.units import Quantity, features_of, values_of


def formula(run: SavedRun, config: FormulaConfig) -> Answer:
    """Prune, snap edges to known functions, fit the numbers to the train split, and score what is printed on
    test."""
    splits, model = run.splits(), run.model()
    targets = model.plan.targets
    if not isinstance(targets, Values):
        raise ZooError(
            f"run {str(run.folder)!r}: formulas are written of numbers, one or more for each example, but it "
            "was trained on other targets (classes, several tasks); zoo kan plot draws its functions"
        )
    (x, y), (test_x, test_y) = examples(splits.train), examples(splits.test)
    with torch.no_grad():
        of_network = r2(model(test_x), test_y)
    try:
        network = prune(model, x, edge=config.edge, node=config.node)
        inputs = _features(network, model, x).double()
        symbolic, fits = snap(network, library=config.library or None, simplicity=config.simplicity)
    except ValueError as error:  # no chain of KAN layers, nothing left of it, an unknown function
        raise ZooError(f"run {str(run.folder)!r}: {error}") from error
    fit_numbers(symbolic, inputs, y.double())
    features = features_of(splits.encode, x.shape[1])
    values = values_of(splits.decode, targets.names, targets.count)
    written = _written(symbolic, features, values, width=inputs.shape[1], digits=config.digits)
    scores = r2(_computed(written, features, values, test_x), test_y)
    lines, edges = [], []
    for value, expression, score, of in zip(values, written, scores, of_network, strict=True):
        lines.append(f"{value.name} = {expression}")
        lines.append(f"R2 on test: {score:.6f}, of the network: {of:.6f}")
    lines += _explained(written, features, values)
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


@torch.no_grad()
def _features(network: Network, model: nn.Module, x: Tensor) -> Tensor:
    """What the first layer is given, where that is the features, nothing stands between the layers, and the
    last one gives the answers.

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
    answers, last = model(x), network.layers[names[-1]](network.inputs[names[-1]])
    if answers.shape != last.shape or not torch.allclose(answers, last, atol=1e-5):
        raise ValueError(
            f"the answers are not what the last KAN layer, {names[-1]}, gives, so that no formula of them "
            "comes out: train with the head kan/regressor"
        )
    return first


def _written(
    symbolic: SymbolicNetwork,
    features: Sequence[Quantity],
    values: Sequence[Quantity],
    *,
    width: int,
    digits: int,
) -> list[Any]:
    """The values as sympy expressions of the features, all in natural units.

    width: how many numbers the network is given, zeros behind the features.
    """
    given = [(sympy.Symbol(f.name) - f.mean) / f.deviation for f in features]
    outputs = symbolic.write([*given, *[sympy.Integer(0)] * (width - len(features))], digits=None)
    return [
        round_numbers(sympy.expand_mul(value.deviation * output + value.mean), digits)
        for value, output in zip(values, outputs, strict=True)
    ]


def _computed(
    written: Sequence[Any], features: Sequence[Quantity], values: Sequence[Quantity], x: Tensor
) -> Tensor:
    """What formulas as they are printed give for features x (S, F), in the units of the targets: (S, K)."""
    natural = [
        column * f.deviation + f.mean for column, f in zip(x.double().numpy().T, features, strict=True)
    ]
    columns = []
    with np.errstate(all="ignore"):
        for expression, value in zip(written, values, strict=True):
            f = sympy.lambdify([sympy.Symbol(each.name) for each in features], expression, "numpy")
            found = np.broadcast_to(np.asarray(f(*natural), dtype=float), (len(x),))
            columns.append((found - value.mean) / value.deviation)
    return torch.from_numpy(np.stack(columns, axis=1))


def _explained(written: Sequence[Any], features: Sequence[Quantity], values: Sequence[Quantity]) -> list[str]:
    """What names in the formulas mean, where they do not say it themselves."""
    used = {str(symbol) for expression in written for symbol in expression.free_symbols}
    used |= {value.name for value in values}
    said = [f"{each.name}: {each.says}" for each in (*features, *values) if each.name in used and each.says]
    return [f"  {each}" for each in said]
