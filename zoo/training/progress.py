"""Progress: a bar with rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typing_extensions import override

from zoo.training.lightning import pl

#: Between two drawings of the bar: each takes milliseconds, and on a GPU waits for the loss.
SECONDS = 0.25


class ShowProgress(pl.Callback):
    """A line per evaluation; on a terminal a bar below them.

    Args:
        batches: of the whole run.
        start: batches that an earlier part of the run has done.
        metric: the monitored metric, shown beside the losses.
    """

    def __init__(self, *, batches: int, start: int, metric: str) -> None:
        self._batches = batches
        self._start = start
        self._metric = metric
        self._console = Console(file=sys.stderr, highlight=False)
        self._bar: Progress | None = None
        self._began = self._drawn = time.monotonic()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.monotonic()
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            auto_refresh=False,
        )
        self._bar.add_task("train", total=self._batches, completed=self._start, loss="")
        self._bar.start()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is None or time.monotonic() - self._drawn < SECONDS:
            return
        loss = f"{float(outputs['loss']):.4f}" if isinstance(outputs, dict) and "loss" in outputs else ""
        self._bar.update(self._bar.task_ids[0], completed=batch_idx + 1, loss=loss, refresh=True)
        self._drawn = time.monotonic()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        values = trainer.callback_metrics
        shown = [name for name in dict.fromkeys(("val/loss", self._metric)) if name in values]
        scores = "  ".join(f"{name} {float(values[name]):.4g}" for name in shown)
        seconds = time.monotonic() - self._began
        self._console.print(f"batch {pl_module.batches_done}/{self._batches}  {scores}  {seconds:.0f} s")

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
