"""Callbacks of plugins, carried out by Lightning."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from zoo.callbacks import Callback
from zoo.catalogue import Catalogue, Part, blaming
from zoo.data.batch import mask_of
from zoo.errors import ZooError
from zoo.layers.modes import evaluating
from zoo.runs import Run
from zoo.training.lightning import pl
from zoo.training.module import Objective


def build_callback(part: Part, catalogue: Catalogue) -> Callback:
    """The callback that a recipe names.

    Raises:
        ZooError: it cannot be built, or is no `zoo.callbacks.Callback`.
    """
    target = catalogue.get(part.kind, part.id).load()
    with blaming(f"callback {part.id!r} cannot be built"):
        callback = target(part.config)
    if not isinstance(callback, Callback):
        raise ZooError(f"callback {part.id!r} is a {type(callback).__name__}, not a zoo.callbacks.Callback")
    return callback


def objective_of(callbacks: Iterable[tuple[str, Callback]]) -> Objective | None:
    """What a step minimises where one of the callbacks, by full name, decides that; `None`: the task's loss.

    Raises:
        ZooError: two of them want to.
    """
    deciding = [
        (id, callback) for id, callback in callbacks if type(callback).objective is not Callback.objective
    ]
    if len(deciding) > 1:
        names = " and ".join(id for id, _ in deciding)
        raise ZooError(f"{names} both decide what a step minimises: leave one of them out")
    if not deciding:
        return None
    id, callback = deciding[0]

    def objective(model: nn.Module, batch: Any, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        with blaming(f"callback {id!r} failed"):
            return callback.objective(model, batch, loss_of)

    return objective


class Plugged(pl.Callback):
    """One callback of a plugin, in Lightning's terms.

    Args:
        id: its full name, for messages and for its state in checkpoints.
        steps: updates of the whole run.
    """

    def __init__(self, callback: Callback, *, id: str, run: Run, steps: int) -> None:
        self.callback, self.id, self.run, self.steps = callback, id, run, steps

    @property
    @override
    def state_key(self) -> str:
        return f"callback {self.id}"

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        with self._calling():
            self.callback.on_start(self._live(trainer, pl_module))

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.update_is_complete:
            with self._calling():
                self.callback.after_step(self._live(trainer, pl_module), batch)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        with self._calling():
            self.callback.after_evaluation(self._live(trainer, pl_module))

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        with self._calling():
            self.callback.on_end(self._live(trainer, pl_module))

    @override
    def state_dict(self) -> dict[str, Any]:
        with self._calling():
            return self.callback.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with self._calling():
            self.callback.load_state_dict(state_dict)

    def _live(self, trainer: pl.Trainer, module: Any) -> _Live:
        return _Live(trainer, module, self.run, id=self.id, steps=self.steps)

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """What is random in a callback does not reach the run, and what it raises names it."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices), blaming(f"callback {self.id!r} failed"):
            yield


class _Live:
    """The run as the callback sees it, see `zoo.callbacks.LiveRun`."""

    def __init__(self, trainer: pl.Trainer, module: Any, run: Run, *, id: str, steps: int) -> None:
        self._trainer, self._module, self._run, self._id = trainer, module, run, id
        self.steps = steps

    @property
    def model(self) -> nn.Module:
        return self._module.model

    @property
    def folder(self) -> Path:
        return self._run.path

    @property
    def step(self) -> int:
        return self._trainer.global_step

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        with evaluating(self.model), self._trainer.strategy.precision_plugin.forward_context():
            return self.model(batch["input"], mask=mask_of(dict(batch)))

    def log(self, values: Mapping[str, float]) -> None:
        self._module.write(values)

    def forget(self, parameters: Iterable[nn.Parameter]) -> None:
        for optimizer in self._trainer.optimizers:
            for parameter in parameters:
                optimizer.state.pop(parameter, None)

    def note(self, text: str) -> None:
        print(f"note: {self._id}: {text}", file=sys.stderr)
        self._run.update(notes=[*self._run.info.get("notes", []), f"{self._id}: {text}"])
