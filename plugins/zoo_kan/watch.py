"""The callback `kan/grids`: grids that follow their inputs and become finer while a run trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.callbacks import Callback, LiveRun
from zoo_kan.config import GridsConfig
from zoo_kan.layers import KANLinear
from zoo_kan.model import kan_layers, layer_inputs
from zoo_kan.splines import SplineBasis


class Grids(Callback):
    """Moves and refines the grids of every KAN layer of the model, by the number of the update alone.

    So that a resumed run does the same: what it has become is in the checkpoint, the shapes of the weights
    too. Layers are moved one after the other, each by what the one before gives by then.
    """

    columns = ("train/grid_intervals", "train/grid_drift")

    def __init__(self, config: GridsConfig | None = None) -> None:
        self.config = config or GridsConfig()
        self._said = False

    def on_start(self, run: LiveRun) -> None:
        """Say what will not happen.

        Raises:
            ValueError: a refinement to come goes to grids no finer than there are.
        """
        layers = _on_splines(run)
        if not layers:
            if not self._said:
                run.note("this model has no KAN layer on splines: its grids cannot be moved or refined")
                self._said = True
            return
        coarsest = min(layer.grid_intervals for layer in layers)
        for at, intervals in zip(self.config.refine_at, self.config.refine_to, strict=True):
            if at > run.step and intervals <= coarsest:
                raise ValueError(
                    f"refine_to must go to finer grids than there are, {coarsest} intervals; got {intervals} "
                    f"after update {at}"
                )
        late = [at for at in self.config.refine_at if at > run.steps]
        if late:
            run.note(f"the run ends after {run.steps} updates: grids are not refined at {late}")

    def after_step(self, run: LiveRun, batch: Mapping[str, Any]) -> None:
        layers = _on_splines(run)
        if not layers:
            return
        drift = self._adapt(run, batch) if self._adapts(run) else 0.0
        intervals = dict(zip(self.config.refine_at, self.config.refine_to, strict=True)).get(run.step)
        for layer in layers:
            if intervals is not None and layer.grid_intervals < intervals:
                layer.refine(intervals)
                run.forget([layer.coef])
        if intervals is not None or self._adapts(run):
            finest = max(layer.grid_intervals for layer in layers)
            run.log({"train/grid_intervals": float(finest), "train/grid_drift": drift})

    def _adapts(self, run: LiveRun) -> bool:
        last = self.config.adapt_until
        last = run.steps // 2 if last is None else last
        return bool(self.config.adapt_every) and run.step % self.config.adapt_every == 0 and run.step <= last

    def _adapt(self, run: LiveRun, batch: Mapping[str, Any]) -> float:
        """Move all grids to their inputs on this batch; the largest relative drift."""
        drift = 0.0
        for name, layer in kan_layers(run.model).items():
            if isinstance(layer.basis, SplineBasis):
                x = layer_inputs(run.model, lambda: run.forward(batch))[name]
                moved = layer.update_grid(x, uniform_share=self.config.uniform_share)
                drift = max(drift, moved.relative)
                run.forget([layer.coef])
        return drift

    def state_dict(self) -> dict[str, Any]:
        return {"said": self._said}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._said = bool(state["said"])


def _on_splines(run: LiveRun) -> list[KANLinear]:
    """The layers whose grids can be moved and refined."""
    return [layer for layer in kan_layers(run.model).values() if isinstance(layer.basis, SplineBasis)]
