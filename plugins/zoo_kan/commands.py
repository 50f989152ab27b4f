"""`zoo kan plot RUN`, and what `zoo kan formula RUN` has in common with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.commands import Answer, SavedRun
from zoo.data import collate
from zoo.plugin import ZooError
from zoo_kan.config import PlotConfig
from zoo_kan.network import Network, prune

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


def _network(run: SavedRun, *, edge: float, node: float) -> Network:
    model = run.model()
    x, _ = examples(run.splits().train)
    try:
        return prune(model, x, edge=edge, node=node) if edge or node else Network.of(model, x)
    except ValueError as error:
        raise ZooError(f"run {str(run.folder)!r}: {error}") from error


def examples(split: Any) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the first examples of a split."""
    batch = collate([split[n] for n in range(min(SAMPLES, len(split)))])
    return batch["input"], batch["target"]


def as_given(x: Tensor, like: Tensor) -> Tensor:
    """Features with zeros behind them, as the stem `kan/raw` gives them."""
    if x.dim() != 2 or x.shape[1] > like.shape[1]:
        return x
    return torch.nn.functional.pad(x, (0, like.shape[1] - x.shape[1])).to(like.dtype)
