"""The callback `titans/memories`: what the memories of a model do over a training run."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.callbacks import Callback, LiveRun
from zoo_titans.config import MemoriesConfig
from zoo_titans.memory import Memory
from zoo_titans.state import MemoryState
from zoo_titans.told import Told

#: The file of a run folder.
TABLE = "memories.csv"
#: What is measured of each head: its gates' means; the root mean square of |M(k) - v|^2 over tokens, before a
#: stretch is learned and after; the norm of what is left of the surprise at its end; the norm of its weights.
MEASURES = ("theta", "eta", "alpha", "error", "error_after", "surprise", "weights")


def memory_measures(model: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
    """What every memory of the model did while `run` was called: (measures, H) each, by the memory's name.

    Means over streams and tokens; without gradients.
    """
    found: dict[str, list[tuple[int, Tensor]]] = {}
    memories = {name: module for name, module in model.named_modules() if isinstance(module, Memory)}

    def observer(name: str, memory: Memory) -> Callable[[Told, MemoryState, MemoryState], None]:
        def observe(told: Told, before: MemoryState, after: MemoryState) -> None:
            if told.k.shape[2]:
                found.setdefault(name, []).append((told.k.shape[2], _measure(memory, told, before, after)))

        return observe

    for name, memory in memories.items():
        memory.observer = observer(name, memory)
    try:
        run()
    finally:
        for memory in memories.values():
            memory.observer = None
    return {
        name: torch.stack([tokens * values for tokens, values in parts]).sum(0) / sum(n for n, _ in parts)
        for name, parts in found.items()
    }


@torch.no_grad()
def _measure(memory: Memory, told: Told, before: MemoryState, after: MemoryState) -> Tensor:
    def error(state: MemoryState) -> Tensor:
        read = memory.recall(told.k, state.weights).unflatten(-1, (memory.heads, -1)).transpose(1, 2)
        return (read - told.v).float().square().mean((0, 2, 3)).sqrt()

    def norm(parts: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([part.square().sum((2, 3)) for part in parts]).sum(0).sqrt().mean(0)

    gates = [gate.float().mean((0, 2)) for gate in (told.theta, told.eta, told.alpha)]
    rest = [error(before), error(after), norm(after.momentum), norm(after.weights)]
    return torch.stack([*gates, *(value.to(gates[0].dtype) for value in rest)]).cpu()


class Memories(Callback):
    """Reads a few examples every so many steps and looks at the memories: no change to training.

    Logs means over layers and heads; writes every head to memories.csv. Says so where learning makes a
    memory worse at what it has just learned.
    """

    columns = tuple(f"train/memory_{name}" for name in MEASURES)

    def __init__(self, config: MemoriesConfig | None = None) -> None:
        self.config = config or MemoriesConfig()
        self._rows: list[list[Any]] = []
        self._warned: list[str] = []

    def after_step(self, run: LiveRun, batch: Mapping[str, Any]) -> None:
        if run.step % self.config.every_steps and run.step != 1:
            return
        few = {
            key: value[: self.config.examples]
            for key, value in batch.items()
            if key in ("input", "length") and isinstance(value, Tensor)
        }
        found = memory_measures(run.model, lambda: run.forward(few))
        if not found:
            self._warn(run, "", "this model has no neural memory to watch")
            return
        for name, values in found.items():
            self._rows += [
                [run.step, name, head, *(f"{value:.6g}" for value in column)]
                for head, column in enumerate(values.T.tolist())
            ]
            error, after = (values[MEASURES.index(key)].mean().item() for key in ("error", "error_after"))
            if after > error:
                self._warn(
                    run,
                    name,
                    f"the memory of {name} unlearns at step {run.step}: its error on what it has just read "
                    f"grows from {error:.3g} to {after:.3g}. A smaller theta_max or eta_init may help",
                )
        means = torch.stack([values.mean(1) for values in found.values()]).mean(0).tolist()
        run.log(dict(zip(self.columns, means, strict=True)))

    def after_evaluation(self, run: LiveRun) -> None:
        self._write(run)

    def on_end(self, run: LiveRun) -> None:
        self._write(run)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows, "warned": self._warned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._rows = [list(row) for row in state["rows"]]
        self._warned = list(state["warned"])

    def _warn(self, run: LiveRun, about: str, text: str) -> None:
        """Once for each memory."""
        if about not in self._warned:
            self._warned.append(about)
            run.note(text)

    def _write(self, run: LiveRun) -> None:
        if not self._rows:
            return
        with (run.folder / TABLE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["step", "memory", "head", *MEASURES])
            writer.writerows(self._rows)
