"""`zoo kan plot RUN` and `zoo kan formula RUN`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.commands import Answer, SavedRun
from zoo.data import Splits, collate
from zoo.plugin import ZooError
from zoo_kan.config import FormulaConfig, PlotConfig
from zoo_kan.network import Network, prune

if TYPE_CHECKING:
    from zoo_kan.formula import SymbolicNetwork

#: Of the train split: enough to see a function, few enough for every edge at once.
SAMPLES = 2000
PICTURE = "kan.png"


def plot(run: SavedRun, config: PlotConfig) -> Answer:
    """Draw the best model of a run to kan.png in its folder."""
    from zoo_kan.plot import plot_kan

    network = _network(run, edge=config.edge, node=config.node)
    path = run.folder / PICTURE
    title = str(run.info.get("title") or run.info.get("recipe") or "")
    drawn = plot_kan(network, path, fade=config.fade, most=config.most, title=title)
    scores = {name: score.tolist() for name, score in network.scores.items()}
    return Answer(
        text=f"{path}: {drawn} edges", data={"picture": str(path), "edges": drawn, "scores": scores}
    )


def formula(run: SavedRun, config: FormulaConfig) -> Answer:
    """Prune, snap edges to known functions, fit the numbers to the train split, and score it on test."""
    from zoo_kan.formula import fit_numbers, r2, snap

    splits, model = run.splits(), run.model()
    x, y = _examples(splits.train)
    test_x, test_y = _examples(splits.test)
    with torch.no_grad():
        of_network = r2(model(test_x), test_y)
    try:
        network = prune(model, x, edge=config.edge, node=config.node)
        inputs = _features(network, x).double()
        symbolic, fits = snap(network, library=config.library or None, simplicity=config.simplicity)
    except ValueError as error:  # no chain of KAN layers, nothing left of it, an unknown function
        raise ZooError(f"run {str(run.folder)!r}: {error}") from error
    fit_numbers(symbolic, inputs, y.double())
    with torch.no_grad():
        scores = r2(symbolic(_as_given(test_x, inputs).double()), test_y)
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
    if not torch.equal(first, _as_given(x, first)):
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
    import sympy

    from zoo_kan.formula import round_numbers

    symbols = sympy.symbols([f"x{n + 1}" for n in range(features)])
    expressions = symbolic.write(_standardised(splits.encode, symbols), digits=None)
    natural = [_natural(splits.decode, n, len(expressions), each) for n, each in enumerate(expressions)]
    return [round_numbers(each, digits) for each in natural]


def _network(run: SavedRun, *, edge: float, node: float) -> Network:
    model = run.model()
    x, _ = _examples(run.splits().train)
    try:
        return prune(model, x, edge=edge, node=node) if edge or node else Network.of(model, x)
    except ValueError as error:
        raise ZooError(f"run {str(run.folder)!r}: {error}") from error


def _examples(split: Any) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the first examples of a split."""
    batch = collate([split[n] for n in range(min(SAMPLES, len(split)))])
    return batch["input"], batch["target"]


def _as_given(x: Tensor, like: Tensor) -> Tensor:
    """Features with zeros behind them, as the stem `kan/raw` gives them."""
    if x.dim() != 2 or x.shape[1] > like.shape[1]:
        return x
    return torch.nn.functional.pad(x, (0, like.shape[1] - x.shape[1])).to(like.dtype)


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
    import sympy

    if decode is None:
        return expression
    zero, one = torch.zeros(1, count), torch.zeros(1, count)
    one[0, n] = 1
    shift, scale = decode(zero)[0, n].item(), (decode(one)[0, n] - decode(zero)[0, n]).item()
    return sympy.expand_mul(scale * expression + shift)
