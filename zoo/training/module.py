"""The LightningModule: a model, a task, an optimiser with its schedule, and rows of metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.data.batch import Batch, mask_of
from zoo.errors import ZooError
from zoo.tasks.base import Task
from zoo.tasks.metrics import MetricCollection, values_of
from zoo.training.lightning import pl
from zoo.training.loaders import derived_seed, seed_generators
from zoo.training.optim import Schedule


class Diverged(ZooError):
    """The loss, or a weight, is no longer a number."""

    @classmethod
    def after(cls, what: str) -> Diverged:
        """What happened and where, with what to do."""
        return cls(
            f"{what}. Checkpoints from before are kept. Try a lower optim.lr, a longer schedule.warmup_steps "
            "or trainer.gradient_clip_norm."
        )


class TrainingModule(pl.LightningModule):
    """What Lightning trains.

    A run is one long epoch to Lightning: a stream of batches with an evaluation every so many. Whatever
    is random in a step starts from a seed made of the run's seed and the number of the batch, so that a
    resumed run repeats the uninterrupted one.

    Args:
        model: `forward(x, *, mask=None)`.
        task: its loss and metrics.
        make_optimizer: model -> (optimiser, schedule); called once weights lie where they train.
        seed: of the run.
        batches_per_epoch: turns counted batches into epochs, for the log.
        log_every_steps: updates between logged rows of the training loss.
        monitor: the metric that the schedule may listen to.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task[Any, Any],
        *,
        make_optimizer: Callable[[nn.Module], tuple[Optimizer, Schedule]],
        seed: int,
        batches_per_epoch: int,
        log_every_steps: int,
        monitor: str,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.batches_done = 0
        self._make_optimizer = make_optimizer
        self._seed = seed
        self._batches_per_epoch = batches_per_epoch
        self._log_every_steps = log_every_steps
        self._monitor = monitor
        self._schedule: Schedule | None = None
        self._restored: Mapping[str, Any] = {}
        self._losses: list[Tensor] = []  # of the batches since the last logged row
        self._metrics: list[MetricCollection] = []  # in a list: no submodule, no part of the weights

    def configure_optimizers(self) -> Optimizer:
        optimizer, self._schedule = self._make_optimizer(self.model)
        self._schedule.load_state_dict(self._restored.get("schedule") or self._schedule.state_dict())
        return optimizer

    # -- training ----------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        seed_generators(derived_seed(self._seed, "step", batch_idx), self.device)
        self.schedule.before_update(self.trainer.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.task.loss(self.model(batch["input"], mask=mask_of(batch)), batch)
        if not torch.isfinite(loss):
            raise Diverged.after(
                f"the loss is {float(loss.detach())} at step {self.trainer.global_step} (batch {batch_idx})"
            )
        self.batches_done = batch_idx + 1
        self._losses.append(loss.detach().float())
        return loss

    def log_training(self) -> None:
        """Write a row of the training loss, where one is due. Called after each batch."""
        step = self.trainer.global_step
        if step % self._log_every_steps == 0 and self.update_is_complete:
            self.write(self._training_values())

    @property
    def update_is_complete(self) -> bool:
        """Whether no gradient of earlier batches waits for more."""
        return self.batches_done % self.trainer.accumulate_grad_batches == 0

    @property
    def lr(self) -> float:
        """The learning rate of the last update."""
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    @property
    def schedule(self) -> Schedule:
        """The schedule; there is one once the optimiser is configured."""
        if self._schedule is None:
            raise RuntimeError("the schedule exists only while training")
        return self._schedule

    # -- evaluation --------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        seed_generators(derived_seed(self._seed, "evaluation"), self.device)
        self._metrics = [self.task.metrics().to(self.device)]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        outputs = self.model(batch["input"], mask=mask_of(batch))
        self.task.update(self._metrics[0], outputs, batch, self.task.loss(outputs, batch))

    def on_validation_epoch_end(self) -> None:
        values = {f"val/{name}": value for name, value in values_of(self._metrics[0]).items()}
        self._metrics = []
        self.log_dict(values, logger=False)  # for callbacks that monitor
        self.write({**self._training_values(), **values})
        self.schedule.after_evaluation(values.get(self._monitor, math.nan))

    # -- rows and checkpoints ----------------------------------------------------------------

    def write(self, values: Mapping[str, float]) -> None:
        """One row to every logger, with where the run stands."""
        row = {"epoch": self.batches_done / self._batches_per_epoch, **values}
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=self.trainer.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The loss of a step is that of the weights before it: here the last update shows.
        spoilt = next((n for n, p in self.model.named_parameters() if not p.isfinite().all()), None)
        if spoilt is not None:
            step = self.trainer.global_step
            raise Diverged.after(f"the weights are no longer numbers at step {step} ({spoilt})")
        checkpoint["zoo"] = {
            "batches": self.batches_done,
            "losses": [float(loss) for loss in self._losses],
            "schedule": self.schedule.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint["zoo"]
        # A finished run that goes on for longer: what was its last batch is so no more.
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False
        self.batches_done = self._restored["batches"]
        self._losses = [torch.tensor(loss, device=self.device) for loss in self._restored["losses"]]

    def _training_values(self) -> dict[str, float]:
        """The learning rate and the mean loss since the last row, where there was a batch since."""
        losses, self._losses = self._losses, []
        return {"lr": self.lr, "train/loss": float(torch.stack(losses).mean())} if losses else {}
