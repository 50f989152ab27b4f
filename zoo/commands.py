"""Commands that plugins add to the command line, `zoo PLUGIN COMMAND RUN` (torch-free).

A plugin declares one with `zp.CommandSpec`; its target is `command(run, config) -> Answer`. The parameters of
its config are the options: `--beta 3` for the field `beta`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from zoo.data import Splits
    from zoo.layers import Model


class SavedRun(Protocol):
    """A trained run, as a command sees it.

    folder: the run's folder; files in it should be named after the plugin. info: what run.json says.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def info(self) -> Mapping[str, Any]: ...

    def model(self) -> Model:
        """The model with the weights of the best checkpoint, in evaluation mode; a new one each time."""

    def splits(self) -> Splits:
        """The data of the run."""

    def score(self, model: Model, split: Literal["train", "val", "test"] = "test") -> dict[str, float]:
        """The metrics of a model on the run's data, `test/mse` and so on."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command found. text: for people. data: the same as plain data, for `--json`."""

    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


__all__ = ["Answer", "SavedRun"]
