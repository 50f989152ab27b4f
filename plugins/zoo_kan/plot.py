"""A network drawn with its learned functions, faded by how much they matter."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoo_kan.network import Network

#: Height of a layer and width of an edge's box, in units in which neighbouring boxes are 1 apart.
RISE, BOX = 3.0, 0.72
#: Width of a letter, in inches.
LETTER = 0.1


def plot_kan(
    network: Network,
    path: Path,
    *,
    names: Sequence[str] = (),
    outputs: Sequence[str] = (),
    fade: float = 3.0,
    most: int = 16,
    title: str = "",
) -> int:
    """Draw a network, inputs below and outputs above, to a file; the number of edges drawn.

    An edge's box shows its function over the inputs it is given. Boxes and lines are as strong as
    tanh(fade * score): with `fade` 3, as in the paper, an edge with half of the variation is nearly black.
    Of a layer with more edges than `most` those that matter most are drawn, and the picture says so. Nodes
    with a cross are products.

    names, outputs: of inputs and outputs; x1, x2, ... and y where there are none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: no global state, no display
    from matplotlib.figure import Figure

    layers = list(network.layers)
    shown = {name: _shown(network, name, most) for name in layers}
    widest = max(3, *(len(edges) for edges in shown.values()))
    height = RISE * len(layers) + 1
    figure = Figure(figsize=(max(4.0, 0.9 * widest), 0.72 * height), dpi=130)
    FigureCanvasAgg(figure)
    page = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    page.set_xlim(-0.5, widest - 0.5)
    page.set_ylim(-0.9, height - 0.1)
    page.axis("off")
    sizes = [
        network.layers[layers[0]].in_features,
        *(layer.out_features for layer in network.layers.values()),
    ]
    alive = _alive(network, shown)
    places = [_spread(nodes, widest) for nodes in alive]
    for depth, name in enumerate(layers):
        for slot, (o, i) in zip(_slots(len(shown[name]), widest), shown[name], strict=True):
            strength = math.tanh(fade * network.scores[name][o, i].item())
            low, high = RISE * depth, RISE * (depth + 1)
            middle = (low + high) / 2
            for start, end in (
                ((places[depth][i], low), (slot, middle - BOX / 2)),
                ((slot, middle + BOX / 2), (places[depth + 1][network.layers[name].node_of(o)], high)),
            ):
                page.plot(
                    *zip(start, end, strict=True), color="black", alpha=strength, linewidth=1.2, zorder=1
                )
            _draw_edge(page, network, name, o, i, at=(slot, middle), strength=strength)
    for depth, nodes in enumerate(alive):
        page.plot(
            [places[depth][n] for n in nodes], [RISE * depth] * len(nodes), "o", color="black", ms=5, zorder=3
        )
        below = network.layers[layers[depth - 1]] if depth else None
        for n in nodes:
            if below is not None and n >= below.out_features - below.products:
                page.plot(places[depth][n], RISE * depth, "x", color="white", ms=4, zorder=4)
    given = [names[n] if n < len(names) else f"x{n + 1}" for n in range(sizes[0])]
    asked = [
        outputs[n] if n < len(outputs) else "y" if sizes[-1] == 1 else f"y{n + 1}" for n in range(sizes[-1])
    ]
    _name(page, [(places[0][n], given[n]) for n in alive[0]], height=-0.3, above=False)
    top = RISE * len(layers) + 0.3
    rise = _name(page, [(places[-1][n], asked[n]) for n in alive[-1]], height=top, above=True)
    hidden = sum(
        int((layer.edge_mask > 0).sum()) - len(shown[name]) for name, layer in network.layers.items()
    )
    notes = [title, f"{hidden} weaker edges are not drawn" if hidden else ""]
    lines = [textwrap.fill(note, int(figure.get_figwidth() / LETTER)) for note in notes if note]
    figure.suptitle(
        "\n".join(lines), x=0.02, y=1 + rise / figure.get_figheight(), fontsize=9, ha="left", va="bottom"
    )
    figure.savefig(path, bbox_inches="tight", pad_inches=0.15)  # with names and title, however long
    return sum(map(len, shown.values()))


def _name(page: Any, names: Sequence[tuple[float, str]], *, height: float, above: bool) -> float:
    """Write names at their places, side by side, or aslant where they are too long for that; how high these
    rise, in inches."""
    room = page.figure.get_figwidth() / max(1, len(names))
    aslant = any(len(name) * LETTER > room for _, name in names)
    side = ("left" if above else "right") if aslant else "center"
    how = {"rotation": 30, "rotation_mode": "anchor"} if aslant else {}
    for place, name in names:
        page.text(place, height, name, ha=side, va="bottom" if above else "top", fontsize=11, **how)
    return max(len(name) for _, name in names) * LETTER / 2 if aslant else 0.0


def _shown(network: Network, name: str, most: int) -> list[tuple[int, int]]:
    """The edges (o, i) of a layer to be drawn: those that are left, the strongest, in their order."""
    scores = network.scores[name]
    left = [(o, i) for o, i in (network.layers[name].edge_mask > 0).nonzero().tolist()]
    strongest = sorted(left, key=lambda edge: -scores[edge].item())[:most]
    return sorted(strongest, key=lambda edge: (edge[1], edge[0]))


def _alive(network: Network, shown: dict[str, list[tuple[int, int]]]) -> list[list[int]]:
    """The nodes of each level that an edge leads to or from; all outputs."""
    levels = [sorted({i for _, i in edges}) for edges in shown.values()]
    ends = [sorted({network.layers[name].node_of(o) for o, _ in edges}) for name, edges in shown.items()]
    for level, reached in zip(levels[1:], ends, strict=False):
        level[:] = sorted({*level, *reached})
    last = list(network.layers.values())[-1]
    return [*levels, list(range(last.out_features)) if last.out_features <= 12 else ends[-1]]


def _spread(nodes: Sequence[int], widest: int) -> dict[int, float]:
    return dict(zip(nodes, _slots(len(nodes), widest), strict=True))


def _slots(count: int, widest: int) -> list[float]:
    """Places of so many things, evenly over the width."""
    return [(n + 0.5) * widest / max(1, count) - 0.5 for n in range(count)]


def _draw_edge(
    page: Any, network: Network, name: str, o: int, i: int, *, at: tuple[float, float], strength: float
) -> None:
    x, y = edge_curve(network, name, o, i)
    (left, right), (bottom, top) = page.get_xlim(), page.get_ylim()
    box = (
        (at[0] - BOX / 2 - left) / (right - left),
        (at[1] - BOX / 2 - bottom) / (top - bottom),
        BOX / (right - left),
        BOX / (top - bottom),
    )
    axes = page.figure.add_axes(box)
    axes.plot(x, y, color="black", linewidth=1.6, alpha=max(strength, 0.05))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.12)
    for spine in axes.spines.values():
        spine.set_alpha(max(strength, 0.05))


@torch.no_grad()
def edge_curve(
    network: Network, name: str, o: int, i: int, *, points: int = 100
) -> tuple[list[float], list[float]]:
    """The function of one edge over the range of its inputs."""
    layer, given = network.layers[name], network.inputs[name]
    low, high = given[:, i].min(), given[:, i].max()
    x = given.new_zeros(points, layer.in_features)
    x[:, i] = low + (high - low) * torch.linspace(0, 1, points, dtype=given.dtype)
    return x[:, i].tolist(), layer.curves(x)[:, o, i].tolist()
