"""The callback `sigmareparam/attention_entropy`: attention entropy over a training run."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.callbacks import Callback, LiveRun
from zoo_sigmareparam.config import AttentionEntropyConfig
from zoo_sigmareparam.probe import HeadEntropies, attention_entropies

#: The files of a run folder.
TABLE, PICTURE = "attention_entropy.csv", "attention_entropy.png"
_COLUMNS = ("entropy", "normalized", "bound")


@dataclass(kw_only=True)
class History:
    """What was measured: steps, and for each layer and measurement (entropy, normalized, bound) by head."""

    steps: list[int] = field(default_factory=list)
    layers: dict[str, list[dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, step: int, found: Mapping[str, HeadEntropies]) -> None:
        self.steps.append(step)
        for name, heads in found.items():
            values = {column: getattr(heads, column).tolist() for column in _COLUMNS}
            # A layer that is seen for the first time only now has no earlier values.
            missing = len(self.steps) - 1 - len(self.layers.setdefault(name, []))
            blank = {column: [math.nan] * len(values[column]) for column in _COLUMNS}
            self.layers[name] += [blank] * missing + [values]

    def rows(self) -> list[list[Any]]:
        """(step, layer, head, entropy, normalized, bound), by step."""
        return [
            [step, name, head, *(f"{values[column][head]:.6g}" for column in _COLUMNS)]
            for index, step in enumerate(self.steps)
            for name, series in self.layers.items()
            for values in series[index : index + 1]
            for head in range(len(values["entropy"]))
        ]


class AttentionEntropy(Callback):
    """Probes the model on a few examples every so many steps: no gradient, no change to training.

    Logs the mean over layers and the lowest layer; writes every head to attention_entropy.csv, and a heat map
    of them over the steps to attention_entropy.png.
    """

    columns = (
        "train/attention_entropy",
        "train/attention_entropy_lowest",
        "train/attention_entropy_lowest_normalized",
    )

    def __init__(self, config: AttentionEntropyConfig) -> None:
        self.config = config
        self.history = History()
        self._warned: list[str] = []

    def after_step(self, run: LiveRun, batch: Mapping[str, Any]) -> None:
        if run.step % self.config.every_steps and run.step != 1:
            return
        found = self._probe(run, batch)
        if not found:
            if "" not in self._warned:
                self._warned.append("")
                run.note("this model has no softmax attention to watch")
            return
        self.history.add(run.step, found)
        means = {name: heads.entropy.nanmean().item() for name, heads in found.items()}
        spread = {name: heads.normalized.nanmean().item() for name, heads in found.items()}
        values = (sum(means.values()) / len(means), min(means.values()), min(spread.values()))
        run.log(dict(zip(self.columns, values, strict=True)))
        self._warn(run, spread)

    def after_evaluation(self, run: LiveRun) -> None:
        self._write(run)

    def on_end(self, run: LiveRun) -> None:
        self._write(run)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.history.steps, "layers": self.history.layers, "warned": self._warned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.history = History(steps=list(state["steps"]), layers=dict(state["layers"]))
        self._warned = list(state["warned"])

    def _probe(self, run: LiveRun, batch: Mapping[str, Any]) -> dict[str, HeadEntropies]:
        few = {
            key: value[: self.config.examples]
            for key, value in batch.items()
            if key in ("input", "length") and isinstance(value, Tensor)
        }
        kept: list[Tensor | None] = [None]
        stem = getattr(run.model, "stem", None)

        def keep_mask(module: Any, inputs: Any, outputs: Any) -> None:
            kept[0] = outputs[1] if isinstance(outputs, tuple) else None

        handle = stem.register_forward_hook(keep_mask) if isinstance(stem, torch.nn.Module) else None
        try:
            return attention_entropies(run.model, lambda: run.forward(few), mask=lambda: kept[0])
        finally:
            if handle is not None:
                handle.remove()

    def _warn(self, run: LiveRun, spread: Mapping[str, float]) -> None:
        """Once for each layer whose attention has collapsed."""
        for name, normalized in spread.items():
            if normalized < self.config.warn_below and name not in self._warned:
                self._warned.append(name)
                run.note(
                    f"attention of {name} has collapsed at step {run.step}: its entropy is {normalized:.1%} "
                    "of what it could be. What helps: a lower optim.lr, or transforms: {sigmareparam: {}}"
                )

    def _write(self, run: LiveRun) -> None:
        if not self.history.steps:
            return
        with (run.folder / TABLE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["step", "layer", "head", *_COLUMNS])
            writer.writerows(self.history.rows())
        draw(self.history, run.folder / PICTURE, bound=self.config.bound)


def draw(history: History, path: Path, *, bound: bool) -> None:
    """Heat map of the normalised entropy, a row per head, and beside it each layer's mean in nats."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: no global state, no display
    from matplotlib.figure import Figure

    names = list(history.layers)
    heads = [(name, head) for name in names for head in range(len(history.layers[name][0]["entropy"]))]
    table = [[values["normalized"][head] for values in history.layers[name]] for name, head in heads]
    figure = Figure(figsize=(11.0, max(3.2, 1.2 + 0.17 * len(heads))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    image = left.imshow(table, aspect="auto", vmin=0.0, vmax=1.0, cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=left, label="entropy / log(visible keys)")
    firsts = [heads.index((name, 0)) for name in names]
    left.set_yticks(firsts, names, fontsize=7)
    for first in firsts[1:]:
        left.axhline(first - 0.5, color="white", linewidth=0.6)
    shown = _some(len(history.steps), most=8)
    left.set_xticks(shown, [str(history.steps[i]) for i in shown])
    left.set(xlabel="step", title="every head")
    for index, name in enumerate(names):
        colour = f"C{index % 10}"
        series = history.layers[name]
        right.plot(history.steps, [_mean(v["entropy"]) for v in series], color=colour, label=name)
        if bound:
            right.plot(history.steps, [_mean(v["bound"]) for v in series], color=colour, linestyle=":")
    right.set(
        xlabel="step", ylabel="nats", title="mean of each layer" + (", dotted: its bound" if bound else "")
    )
    right.set_ylim(
        0.0, 1.08 * max(1e-3, *(_mean(v["entropy"]) for each in history.layers.values() for v in each))
    )
    right.grid(alpha=0.3)
    if len(names) <= 12:
        right.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _some(n: int, *, most: int) -> list[int]:
    """At most so many of n indices, evenly spread."""
    step = max(1, -(-n // most))
    return list(range(0, n, step))


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan
