"""How long a step takes, and the peak of memory from its beginning on: for `zoo compare`."""

from __future__ import annotations

import statistics
import time
from typing import Any

from typing_extensions import override

from zoo.training.lightning import pl
from zoo.training.memory import reset_peak


class Pace(pl.Callback):
    """Times every training step. The median counts; evaluations and saves lie between steps."""

    def __init__(self) -> None:
        self._began = 0.0
        self._seconds: list[float] = []

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        reset_peak(trainer.strategy.root_device)

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._began = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._seconds.append(time.perf_counter() - self._began)

    @property
    def seconds(self) -> float | None:
        """Of one batch; `None` before the first. On a GPU, what it takes to hand out the work of a step."""
        return statistics.median(self._seconds) if self._seconds else None
