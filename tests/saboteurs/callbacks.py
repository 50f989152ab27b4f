"""Honest and dishonest callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from zoo.callbacks import Callback, LiveRun


class Count(Callback):
    """Counts the examples seen. Honest."""

    columns = ("train/examples",)

    def __init__(self, config: None) -> None:
        self.seen = 0

    def after_step(self, run: LiveRun, batch: Mapping[str, Any]) -> None:
        run.forward(batch)
        self.seen += len(batch["input"])
        run.log({"train/examples": self.seen})

    def after_evaluation(self, run: LiveRun) -> None:
        (run.folder / "count.json").write_text(f"{self.seen}\n")

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


class Touches(Count):
    """Changes what it should look at."""

    def after_step(self, run: LiveRun, batch: Mapping[str, Any]) -> None:
        super().after_step(run, batch)
        with torch.no_grad():
            next(run.model.parameters()).mul_(0.999)


class Chatters(Count):
    """Logs what is no column of its."""

    def after_step(self, run: LiveRun, batch: Mapping[str, Any]) -> None:
        super().after_step(run, batch)
        run.log({"train/weather": 1.0})


class StartsOver(Count):
    """Has no state to go on from."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
