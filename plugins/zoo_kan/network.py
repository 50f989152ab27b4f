"""A trained model as a chain of KAN layers: what goes in, which edges matter, and cutting the rest.

Shapes: S samples, I inputs and O outputs of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers import evaluating
from zoo_kan.layers import KANLinear
from zoo_kan.model import kan_layers, layer_inputs

#: Added to a node's deviation before an edge's is divided by it, as in the paper's code.
SMALL = 1e-4
#: What may be left of a layer's inputs, of their deviation, once the nodes before it are taken away.
REST = 1e-2


@dataclass(frozen=True, kw_only=True)
class Network:
    """The KAN layers of a model, from the inputs to the outputs, on samples.

    layers: by name. inputs: of each, (S, I). scores: the share that each edge has in the outputs' variation,
    (O, I), see `importance`.
    """

    layers: dict[str, KANLinear]
    inputs: dict[str, Tensor]
    scores: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, x: Tensor) -> Network:
        """The chain of a model's KAN layers, with what each is given for the examples x, in evaluation.

        Norms may stand between them, and what scales and shifts each value; nothing that mixes them.

        Raises:
            ValueError: it has none, they do not follow one another, fewer than two examples, or numbers that
                are not finite.
        """
        layers = kan_layers(model)
        if not layers:
            raise ValueError("this model has no KAN layers")
        sizes = [(layer.in_features, layer.out_features) for layer in layers.values()]
        for (_, outputs), (inputs, _) in pairwise(sizes):
            if outputs != inputs:
                raise ValueError(
                    f"its KAN layers are no chain: one gives {outputs} values, the next takes {inputs}"
                )
        if len(x) < 2:
            raise ValueError(f"what matters shows in how outputs vary over examples: give two, not {len(x)}")
        with evaluating(model):
            inputs_of = layer_inputs(model, lambda: model(x))
        for name, given in inputs_of.items():
            if not given.isfinite().all():
                raise ValueError(
                    f"{name} is given NaN or infinite numbers: leave such examples out, or fill their gaps"
                )
        if len({len(given) for given in inputs_of.values()}) != 1 or inputs_of.keys() != layers.keys():
            raise ValueError("its KAN layers are no chain from the inputs to the outputs")
        for before, name in pairwise(layers):
            if not _follows(inputs_of[name], layers[before], inputs_of[before]):
                raise ValueError(
                    f"its KAN layers are no chain: {name} is given other things than what {before} gives "
                    "(skip connections, layers of another kind)"
                )
        return cls(layers=layers, inputs=inputs_of, scores=importance(layers, inputs_of))


@torch.no_grad()
def _follows(given: Tensor, before: KANLinear, its: Tensor) -> bool:
    """Whether what a layer is given are the values of the layer before, each scaled and shifted, or a norm of
    them."""
    passed = before(its)
    for values in (passed, F.layer_norm(passed, passed.shape[1:])):
        a, b = values - values.mean(0), given - given.mean(0)
        slope = (a * b).sum(0) / a.square().sum(0).clamp_min(1e-30)
        if (b - slope * a).norm() <= REST * b.norm() + 1e-6:
            return True
    return False


@torch.no_grad()
def importance(layers: dict[str, KANLinear], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The share of each edge in what comes out, from the last layer to the first: name -> (O, I).

    The outputs count 1 together. An edge's score is its deviation over its node's, times the node's score; a
    node's is the sum of the scores of the edges that leave it (the attribution of KAN 2.0, arXiv:2408.10205).
    Each factor of a product has the score of its node.
    """
    found: dict[str, Tensor] = {}
    of_nodes: Tensor | None = None
    for name, layer in reversed(layers.items()):
        curves = layer.curves(inputs[name])  # (S, O, I)
        if of_nodes is None:
            of_nodes = curves.new_full((layer.out_features,), 1 / layer.out_features)
        deviation = curves.sum(2).std(0) + SMALL
        of_sums = of_nodes[_nodes(layer)]
        found[name] = curves.std(0) * (of_sums / deviation).unsqueeze(1)
        of_nodes = found[name].sum(0)
    return {name: found[name] for name in layers}


def _nodes(layer: KANLinear) -> Tensor:
    """The output that each sum is part of, int64 (sums,)."""
    return torch.tensor([layer.node_of(o) for o in range(layer.sums)])


def _strong(network: Network, name: str, edge: float) -> Tensor:
    """Edges of a layer with a score of `edge` or more: bool (sums, I).

    Of a product that has such an edge every factor without one keeps its largest.
    """
    layer = network.layers[name]
    left, nodes = layer.edge_mask > 0, _nodes(layer)
    keep = (network.scores[name] >= edge) & left
    if layer.products:
        size = layer.curves(network.inputs[name]).square().mean(0) * left
        for factor in range(layer.out_features - layer.products, layer.sums):
            if keep[nodes == nodes[factor]].any() and not keep[factor].any():
                keep[factor, size[factor].argmax()] = left[factor].any()
    return keep


def _alive(layer: KANLinear, keep: Tensor) -> Tensor:
    """Which outputs an edge leads to, all factors of a product: bool (sums, I) -> (O,)."""
    reached, nodes = keep.any(1), _nodes(layer)
    return torch.stack([reached[nodes == node].all() for node in range(layer.out_features)])


@torch.no_grad()
def prune(model: nn.Module, x: Tensor, *, edge: float = 0.03, node: float = 0.01) -> Network:
    """Cut, in place, edges with a score below `edge` and all edges of nodes below `node`.

    Then those that lead from nothing or to nothing. At least one edge stays. Of a product that is kept every
    factor keeps an edge, even where none varies: without a factor a product is 0.

    Returns:
        The network after it.
    """
    before = Network.of(model, x)
    names = list(before.layers)
    keep = {name: _strong(before, name, edge) for name in names}
    for name, after in pairwise(names):
        alive = before.scores[after].sum(0) >= node
        keep[name] &= alive[_nodes(before.layers[name])].unsqueeze(1)
        keep[after] &= alive
    for _ in names:  # what is cut in one layer leaves others without an end
        for name, after in pairwise(names):
            through = _alive(before.layers[name], keep[name]) & keep[after].any(0)
            keep[name] &= through[_nodes(before.layers[name])].unsqueeze(1)
            keep[after] &= through
    if not any(kept.any() for kept in keep.values()):
        raise ValueError(
            f"no way from an input to an output has edges of a score of {edge:g} and nodes of {node:g} or "
            "more all along: nothing would be left; use a lower one"
        )
    for name, layer in before.layers.items():
        layer.prune_(keep[name])
    return Network.of(model, x)
