"""The LightningModule: a model, a task, an optimiser with its schedule, and rows of metrics."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from zoo.data.batch import Batch, mask_of
from zoo.errors import ZooError
from zoo.layers.model import Model
from zoo.tasks.base import Task
from zoo.tasks.metrics import MetricCollection, values_of
from zoo.training.lean import skip_idle_hooks
from zoo.training.lightning import GradClipAlgorithmType, pl
from zoo.training.loaders import IDLE, derived_seed, own, seed_generators
from zoo.training.optim import Schedule

#: (model, batch, outputs -> loss) -> what a step minimises.
Objective = Callable[[nn.Module, Batch, Callable[[Tensor], Tensor]], Tensor]


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
    resumed run repeats the uninterrupted one. Of several processes each computes its part of a batch; the
    parts are weighted so that their sum is the mean over the whole batch.

    Args:
        model: `forward(x, *, mask=None)`.
        task: its loss and metrics.
        make_optimizer: model -> (optimiser, schedule); called once weights lie where they train.
        seed: of the run.
        batches_per_epoch: turns counted batches into epochs, for the log.
        log_every_steps: updates between logged rows of the training loss.
        monitor: the metric that the schedule may listen to.
        objective: what a step minimises instead of the task's loss, see `zoo.callbacks.Callback.objective`.
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
        objective: Objective | None = None,
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
        self._objective = objective
        self._schedule: Schedule | None = None
        self._restored: Mapping[str, Any] = {}
        self._losses: list[Tensor] = []  # of the batches since the last logged row
        self._metrics: list[MetricCollection] = []  # in a list: no submodule, no part of the weights
        skip_idle_hooks(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning does it forty times a step; torch's way takes long
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def configure_optimizers(self) -> Optimizer:
        optimizer, self._schedule = self._make_optimizer(self.model)
        self._schedule.load_state_dict(self._restored.get("schedule") or self._schedule.state_dict())
        return optimizer

    # -- training ----------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        purpose = own("step", self.trainer.global_rank)
        seed_generators(derived_seed(self._seed, purpose, batch_idx), self.device)
        self.schedule.before_update(self.trainer.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self._objective is None:
            loss = self._loss_of(self.model(batch["input"], mask=mask_of(batch)), batch)
        else:
            loss = self._objective(self.model, batch, lambda outputs: self._loss_of(outputs, batch))
        self.batches_done = batch_idx + 1
        if self.trainer.world_size > 1:
            loss = loss * self._share(batch)
        self._losses.append(loss.detach().float())
        # Looked at where that is no wait; elsewhere before they are written.
        if loss.device.type == "cpu" and self.trainer.world_size == 1 and not math.isfinite(loss.item()):
            self._check_losses(self._losses[-1:])
        return loss * self.trainer.world_size  # of the processes' gradients the mean is taken

    def _loss_of(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The task's loss, and what the model's layers add to it."""
        loss = self.task.loss(outputs, batch)
        penalty = self.model.penalty() if isinstance(self.model, Model) else None
        return loss if penalty is None else loss + penalty

    def _share(self, batch: Batch) -> Tensor:
        """What this process's part counts in the mean over the whole batch: its share of the answers."""
        count = 0 if IDLE in batch else self.task.count(batch)
        mine = torch.tensor(float(count), device=self.device)
        return mine / self._sum(mine.clone()).clamp_min(1)

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

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """There is nothing to do on the CPU."""
        if device.type == "cpu":
            return batch
        return cast(Batch, super().transfer_batch_to_device(batch, device, dataloader_idx))

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """As Lightning does it, without looking at its options again in every step."""
        if gradient_clip_val is not None:
            algorithm = gradient_clip_algorithm or GradClipAlgorithmType.NORM
            self.trainer.precision_plugin.clip_gradients(optimizer, gradient_clip_val, algorithm)

    # -- evaluation --------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        seed_generators(derived_seed(self._seed, "evaluation"), self.device)
        self._metrics = [self.task.metrics().to(self.device)]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        outputs = self.model(batch["input"], mask=mask_of(batch))
        if IDLE in batch:
            return
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
        losses = self._whole_losses()
        self._check_weights()
        checkpoint["zoo"] = {
            "batches": self.batches_done,
            "losses": losses.tolist(),
            "schedule": self.schedule.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint["zoo"]
        # A finished run that goes on for longer: what was its last batch is so no more.
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False
        self.batches_done = self._restored["batches"]
        mine = 1.0 if self.trainer.global_rank == 0 else 0.0  # the sum over the processes is what was saved
        self._losses = [torch.tensor(mine * loss, device=self.device) for loss in self._restored["losses"]]

    def _training_values(self) -> dict[str, float]:
        """The learning rate and the mean loss since the last row, where there was a batch since."""
        losses, self._losses = self._whole_losses(), []
        return {"lr": self.lr, "train/loss": float(losses.mean())} if len(losses) else {}

    def _whole_losses(self) -> Tensor:
        """The loss of each batch since the last row, over all processes.

        Raises:
            Diverged: one is no number; in all processes.
        """
        if not self._losses:
            return torch.zeros(0)
        losses = self._sum(torch.stack(self._losses))
        self._check_losses(losses)
        return losses

    def _check_losses(self, losses: Sequence[Tensor] | Tensor) -> None:
        """Refuse losses, of the last batches, that are no numbers."""
        first = self.batches_done - len(losses)
        for batch, loss in enumerate(losses, start=first):
            if not torch.isfinite(loss):
                step = batch // self.trainer.accumulate_grad_batches
                raise Diverged.after(f"the loss is {float(loss)} at step {step} (batch {batch})")

    def _check_weights(self) -> None:
        """Refuse weights that are no numbers: the loss of a step is that of the weights before it."""
        local = ((n, p.to_local() if isinstance(p, DTensor) else p) for n, p in self.model.named_parameters())
        spoilt = next((name for name, values in local if not values.isfinite().all()), None)
        if self.trainer.strategy.reduce_boolean_decision(spoilt is not None, all=False):
            where = f" ({spoilt})" if spoilt else ""
            raise Diverged.after(
                f"the weights are no longer numbers at step {self.trainer.global_step}{where}"
            )

    def _sum(self, values: Tensor) -> Tensor:
        """Over the processes, in place; `values` where there is one."""
        return cast(Tensor, self.trainer.strategy.reduce(values, reduce_op="sum"))


# Lightning asks for it in every step.
TrainingModule.training_step.__signature__ = inspect.signature(TrainingModule.training_step)  # type: ignore[attr-defined]
