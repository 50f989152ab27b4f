"""Behaviour that a plugin adds to a run: what it is called with, and what it may do (torch-free).

A recipe switches one on by name, `callbacks: {attention_entropy: {every_steps: 50}}`. Lightning stays behind
`zoo.training`, which calls these methods; random numbers drawn here do not change the run's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


class LiveRun(Protocol):
    """A run while it trains, as a callback sees it.

    Attributes:
        model: what is trained, `forward(x, *, mask=None)`. Look, do not change; a callback whose spec says
            `changes_model` may, see `forget`.
        folder: the run's folder; files in it should be named after the callback.
        step: updates of the weights done so far. steps: those of the whole run.
    """

    @property
    def model(self) -> nn.Module: ...
    @property
    def folder(self) -> Path: ...
    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """The model's outputs for a batch, in evaluation mode, without gradients, in the run's precision."""

    def log(self, values: Mapping[str, float]) -> None:
        """Write a row to metrics.csv and every other logger; names are among the callback's `columns`."""

    def forget(self, parameters: Iterable[nn.Parameter]) -> None:
        """Drop what the optimiser remembers of these, whose values or shapes have been changed.

        A parameter must stay the same object: give it another shape by `parameter.data = ...`.
        """

    def note(self, text: str) -> None:
        """Tell the user something, now and in the run's record."""


class Callback:
    """Base of a callback: override what is needed. It is built anew for each part of a run that is resumed.

    columns: names of what it logs, `split/metric`, known when it is built.
    """

    columns: tuple[str, ...] = ()

    def on_start(self, run: LiveRun) -> None:
        """Before the first step; after a resume, with the state of its checkpoint restored."""

    def objective(
        self, model: nn.Module, batch: Mapping[str, Any], loss_of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """What a step minimises, in place of `loss_of(model(batch["input"]))`; one callback at most has this.

        Called in training mode with the step's own seed: what is drawn here is drawn again after a resume.
        Of several processes each calls it for its part of the batch.

        loss_of: the task's loss of outputs on this batch, with the penalties of the last forward pass.

        Returns:
            A scalar with gradients, whose size is that of a loss of one pass.
        """
        raise NotImplementedError

    def after_step(self, run: LiveRun, batch: Mapping[str, Any]) -> None:
        """After an update of the weights, with the last batch that made it."""

    def after_evaluation(self, run: LiveRun) -> None:
        """After each evaluation on the validation split, just before a checkpoint is written."""

    def on_end(self, run: LiveRun) -> None:
        """After the last step of a run that was not interrupted."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as if it had never stopped: tensors and plain data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


__all__ = ["Callback", "LiveRun"]
