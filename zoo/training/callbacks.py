"""What happens around the steps: averaging, stopping, saving, and an orderly end on Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from typing_extensions import override

from zoo.training.lightning import Checkpoint, EarlyStopping, EMAWeightAveraging, pl

#: Several processes ask each other at these updates whether to save or to stop: asking costs a wait.
AGREE_EVERY_STEPS = 10
LEAVES_WITHIN_SECONDS = 30.0


class Interrupted(BaseException):
    """The run was told to stop, and has. Not a `KeyboardInterrupt`, which Lightning turns into an exit."""


class StopRequest:
    """Ctrl-C, or SIGTERM: the first asks the run to end after the current step, the second ends it at once.

    From then on the run is leaving, and more of them change nothing, lest they cut its last words in two;
    unless it takes longer than `LEAVES_WITHIN_SECONDS`. `with request.listening():` around whatever belongs
    to the run, `with request.training():` around its steps. Signals can only be heard in the main thread.
    SIGTERM is what a cluster sends before it takes a machine away.
    """

    def __init__(self) -> None:
        self.made = False
        self._training = False
        self._left_at = math.inf

    def leave(self) -> NoReturn:
        """End the training here.

        Raises:
            Interrupted: always.
        """
        self._left_at = time.monotonic()
        raise Interrupted

    def _handle(self, signum: int, frame: Any) -> None:
        waited = time.monotonic() - self._left_at
        if 0 <= waited < LEAVES_WITHIN_SECONDS:
            return
        if not self._training:
            self._left_at = time.monotonic()
            raise KeyboardInterrupt
        if self.made:
            self.leave()
        self.made = True

    def listening(self) -> AbstractContextManager[None]:
        """From here on the request hears what is pressed; one context may hold another."""
        return _on_signals(self._handle, signal.SIGINT, signal.SIGTERM)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Listen, and let the first press wait for the current step."""
        with self.listening():
            self._training = True
            try:
                yield
            finally:
                self._training = False

    def insist(self) -> None:
        """Listen again, where Lightning has put in a handler of SIGTERM that ends a run unsaved."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handle)


def undisturbed() -> AbstractContextManager[None]:
    """A few lines that Ctrl-C cannot cut in two."""
    return _on_signals(signal.SIG_IGN, signal.SIGINT)


@contextmanager
def _on_signals(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    """What these signals do for the time being; they can only be handled in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, handler) for each in signals}
    try:
        yield
    finally:
        for each, handler_before in before.items():
            signal.signal(each, handler_before)


def agreed(trainer: pl.Trainer, wish: bool) -> bool:
    """Whether any process of the run wishes it. They all must ask."""
    return trainer.strategy.reduce_boolean_decision(wish, all=False)


class WriteRows(pl.Callback):
    """Logs the training loss. First of the callbacks, so that a checkpoint never lacks a row of its step."""

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.log_training()


class Ema(EMAWeightAveraging):
    """Lightning's moving average of the weights; until it starts, the average is the weights themselves."""

    def __init__(self, *, decay: float, start_step: int, every_steps: int) -> None:
        super().__init__(decay=decay, update_every_n_steps=every_steps)
        self._start_step = start_step

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._start_step:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        elif self._average_model is not None:
            # Lightning alone would evaluate and save the initial weights until then.
            self._average_model.module.load_state_dict(pl_module.state_dict())


class PatientStop(EarlyStopping):
    """Lightning's early stopping, which after a resume remembers that it had stopped the run."""

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class SaveCheckpoints(Checkpoint):
    """After each evaluation: last.ckpt always, best.ckpt where the monitored metric is the best so far.

    With `keep` > 1 the next best ones stay too, as step-<n>.ckpt. Between evaluations last.ckpt is written
    every so often. A requested stop is carried out here, once an update is complete and saved.

    Args:
        folder: where the files go.
        monitor, mode: the metric that decides, and whether "min" or "max" is better.
        every_minutes, every_steps: how much work a kill may cost, between evaluations; `None`: any.
        eval_every_batches: evaluations come at these batches; a stop waits for the one that is due.
    """

    def __init__(
        self,
        folder: Path,
        *,
        monitor: str,
        mode: str,
        keep: int,
        every_minutes: float | None,
        every_steps: int | None,
        stop: StopRequest,
        batches: int,
        eval_every_batches: int,
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.keep = keep
        self.every_seconds = math.inf if every_minutes is None else 60 * every_minutes
        self.every_steps = every_steps
        self.saved_at = time.monotonic()
        self.saved_step = 0
        self.stop = stop
        self.batches = batches
        self.eval_every_batches = eval_every_batches
        self.kept: list[tuple[float, int]] = []  # (value, step), best first

    @property
    def best_value(self) -> float | None:
        """The best value of the monitored metric so far."""
        return self.kept[0][0] if self.kept else None

    @property
    def best_step(self) -> int | None:
        """The step of `best_value`."""
        return self.kept[0][1] if self.kept else None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step
        self.stop.insist()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        if done == self.batches:
            trainer.should_stop = True  # Lightning then evaluates here, wherever the interval stands
        evaluation_due = done == self.batches or done % self.eval_every_batches == 0
        if evaluation_due or not pl_module.update_is_complete:
            return  # the evaluation saves; in the middle of an update there is nothing to go on from
        step = trainer.global_step
        if trainer.world_size > 1 and step % AGREE_EVERY_STEPS:
            return
        if agreed(trainer, self.stop.made or self._save_is_due(step)):
            self._save_last(trainer)
            if agreed(trainer, self.stop.made):
                self.stop.leave()

    def _save_is_due(self, step: int) -> bool:
        if self.every_steps is not None and step - self.saved_step >= self.every_steps:
            return True
        return time.monotonic() - self.saved_at >= self.every_seconds

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        value = trainer.callback_metrics.get(self.monitor, torch.tensor(math.nan)).item()
        if not math.isnan(value):
            self._keep(trainer, value)
        self._save_last(trainer)
        over = pl_module.batches_done >= self.batches or trainer.should_stop
        if agreed(trainer, self.stop.made) and not over:
            self.stop.leave()

    def _keep(self, trainer: pl.Trainer, value: float) -> None:
        step = trainer.global_step
        # Equal values: the earlier one is the better one.
        ranked = sorted([*self.kept, (value, step)], key=lambda item: (-self.sign * item[0], item[1]))
        dropped = ranked[self.keep :]
        before, self.kept = self.kept, ranked[: self.keep]
        if (value, step) not in self.kept:
            return
        if self.keep > 1:
            trainer.save_checkpoint(self._path(step))
        if not before or self.kept[0] != before[0]:
            trainer.save_checkpoint(self.folder / "best.ckpt")
        for _, old in dropped if trainer.is_global_zero else ():
            self._path(old).unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step}.ckpt"

    def _save_last(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"kept": [[value, step] for value, step in self.kept]}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept = [(value, step) for value, step in state_dict["kept"]]
