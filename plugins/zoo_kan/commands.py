"""`zoo kan plot RUN`, and what `zoo kan formula RUN` has in common with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.commands import Answer, SavedRun
from zoo.data import collate
from zoo.plugin import ZooError
from zoo_kan.config import PlotConfig
from zoo_kan.network import Network, prune
from zoo_kan.units import features_of

if TYPE_CHECKING:
    from zoo.layers import Model

#: Of the train split: enough to see a function, few enough for every edge at once.
SAMPLES = 2000
PICTURE = "kan.png"


def plot(run: SavedRun, config: PlotConfig) -> Answer:
    """Draw the best model of a run to kan.png in its folder."""
    from zoo_kan.plot import plot_kan

    model, (x, _) = run.model(), examples(run.splits().train)
    cut = config.edge or config.node
    try:
        network = prune(model, x, edge=config.edge, node=config.node) if cut else Network.of(model, x)
    except ValueError as error:
        raise ZooError(f"run {str(run.folder)!r}: {error}") from error
    path = run.folder / PICTURE
    title = str(run.info.get("title") or run.info.get("recipe") or "")
    inputs, outputs, notes = _ends(run, model, network, x)
    drawn = plot_kan(
        network, path, names=inputs, outputs=outputs, fade=config.fade, most=config.most, title=title
    )
    scores = {name: score.tolist() for name, score in network.scores.items()}
    return Answer(
        text="\n".join([f"{path}: {drawn} edges", *notes]),
        data={"picture": str(path), "edges": drawn, "scores": scores, "notes": notes},
    )


@torch.no_grad()
def _ends(run: SavedRun, model: Model, network: Network, x: Tensor) -> tuple[list[str], list[str], list[str]]:
    """Names of what goes into the first KAN layer and comes out of the last, and what these are not."""
    (first, given), *_ = network.inputs.items()
    (last, layer), targets, notes = list(network.layers.items())[-1], model.plan.targets, []
    if _are_features(given, x):
        inputs = [each.name for each in features_of(run.splits().encode, x.shape[1])]
        inputs += ["0"] * (given.shape[1] - len(inputs))
    else:
        inputs = [f"h{n + 1}" for n in range(given.shape[1])]
        notes.append(f"h1, h2, ... are what {first} is given: something makes them of the data")
    answers, passed = model(x), layer(network.inputs[last])
    if answers.shape != passed.shape or not torch.allclose(answers, passed, atol=1e-5):
        outputs = [f"g{n + 1}" for n in range(layer.out_features)]
        notes.append(f"g1, g2, ... are what {last} gives: something makes the answers of them")
    else:
        outputs = list(getattr(targets, "names", ()))
    return inputs, outputs, notes


def examples(split: Any) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the first examples of a split."""
    batch = collate([split[n] for n in range(min(SAMPLES, len(split)))])
    return batch["input"], batch["target"]


def _are_features(given: Tensor, x: Tensor) -> bool:
    """Whether a layer is given the features, as they are or normed."""
    padded = as_given(x, given)
    return padded.shape == given.shape and any(
        torch.allclose(given, form, atol=1e-5) for form in (padded, F.layer_norm(padded, padded.shape[1:]))
    )


def as_given(x: Tensor, like: Tensor) -> Tensor:
    """Features with zeros behind them, as the stem `kan/raw` gives them."""
    if x.dim() != 2 or x.shape[1] > like.shape[1]:
        return x
    return torch.nn.functional.pad(x, (0, like.shape[1] - x.shape[1])).to(like.dtype)
