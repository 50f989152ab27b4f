"""Optimisers and schedules by name, through timm's factories. A schedule counts updates of the weights."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from zoo import torchvision_shim
from zoo.errors import ZooError, suggest

torchvision_shim.install()

from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402


def build_optimizer(
    model: nn.Module, *, name: str, lr: float, weight_decay: float, params: Mapping[str, Any]
) -> Optimizer:
    """An optimiser over all parameters; biases, norms and what `model.no_weight_decay()` names do not decay.

    Raises:
        ZooError: timm knows no such optimiser, or it does not take these parameters.
    """
    try:
        return create_optimizer_v2(model, opt=name, lr=lr, weight_decay=weight_decay, **params)
    except ValueError as error:
        if "not found in registry" not in str(error):
            raise ZooError(f"{name!r}: {error}") from error
        raise ZooError(
            f"name: there is no optimiser {name!r}.{suggest(name, map(str, list_optimizers()))}"
        ) from None
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            raise ZooError(f"{name!r}: {error}") from error
        known = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
        names = [each for each in known if each not in ("params", "lr", "weight_decay")]
        hint = suggest(unknown[1], names, list_up_to=20)
        raise ZooError(f"params: the optimiser {name!r} takes no {unknown[1]!r}.{hint}") from None
    except ImportError as error:
        raise ZooError(f"{name!r}: {error}") from error


def warmup_within(warmup_steps: int, updates: int) -> int:
    """The warm-up of a run: as asked, or half of a run that is no longer than that (a quick trial)."""
    return warmup_steps if warmup_steps < updates else updates // 2


class Schedule(Protocol):
    """What sets the learning rate."""

    def before_update(self, update: int) -> None:
        """Set the learning rate of update number `update`, from 0."""

    def after_evaluation(self, value: float) -> None:
        """Hear the monitored metric."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def build_schedule(
    optimizer: Optimizer,
    *,
    name: str,
    updates: int,
    warmup_steps: int,
    final_lr_ratio: float,
    params: Mapping[str, Any],
    mode: str,
) -> Schedule:
    """A schedule over `updates` updates, `warmup_steps` of them a linear rise (see `warmup_within`).

    Args:
        name: one of timm's, or `plateau`.
        final_lr_ratio: the last learning rate over the highest, where the schedule falls to one.
        params: timm's further parameters; what timm counts in epochs is counted in updates and called
            `..._steps` here (`decay_steps`, `cooldown_steps`).
        mode: "min" or "max", which way the monitored metric is better (for `plateau`).

    Raises:
        ZooError: no such schedule or parameter.
    """
    warmup_steps = warmup_within(warmup_steps, updates)
    if name == "plateau":
        return PlateauSchedule(
            optimizer, warmup_steps=warmup_steps, final_lr_ratio=final_lr_ratio, mode=mode, **_plateau(params)
        )
    lr = max(group["lr"] for group in optimizer.param_groups)
    ours: dict[str, Any] = {
        "sched": name,
        "num_epochs": updates,
        "warmup_epochs": warmup_steps,
        "min_lr": final_lr_ratio * lr,
        "step_on_epochs": False,
        "updates_per_epoch": 1,
    }
    if warmup_steps:
        ours["warmup_lr"] = lr / warmup_steps  # not 0: the first update counts too
    accepted = (
        set(inspect.signature(create_scheduler_v2).parameters) - set(ours) - {"optimizer", "plateau_mode"}
    )
    accepted |= {"warmup_lr"}
    theirs = {key.replace("_steps", "_epochs"): value for key, value in params.items()}
    for key in params:
        if key.replace("_steps", "_epochs") not in accepted or key.endswith("_epochs"):
            known = {key.replace("_epochs", "_steps") for key in accepted}
            raise ZooError(f"schedule.params: there is no key {key!r} here.{suggest(key, known)}")
    try:
        scheduler, _ = create_scheduler_v2(optimizer, **{**ours, **theirs})
    except (AssertionError, TypeError, ValueError) as error:
        raise ZooError(f"schedule {name!r}: {error}") from error
    if scheduler is None and name != "none":
        raise ZooError(f"schedule.name: timm has no schedule {name!r}")
    return TimmSchedule(scheduler)


class TimmSchedule:
    """A schedule of timm's: a function of the number of the update, without state."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def before_update(self, update: int) -> None:
        if self._scheduler is not None:
            self._scheduler.step_update(update)

    def after_evaluation(self, value: float) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class PlateauSchedule:
    """The learning rate falls by `decay_rate` after `patience` evaluations without a better monitored metric.

    Our own: timm's is deprecated, steps by epochs and forgets its counters in a checkpoint.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        warmup_steps: int,
        final_lr_ratio: float,
        mode: str,
        decay_rate: float,
        patience: int,
    ) -> None:
        self._optimizer = optimizer
        self._base = [group["lr"] for group in optimizer.param_groups]
        self._warmup_steps = warmup_steps
        self._lowest = final_lr_ratio
        self._sign = 1.0 if mode == "max" else -1.0
        self._decay_rate = decay_rate
        self._patience = patience
        self._best: float | None = None
        self._worse = 0
        self._factor = 1.0

    def before_update(self, update: int) -> None:
        rise = min(1.0, (update + 1) / self._warmup_steps) if self._warmup_steps else 1.0
        for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * rise * self._factor * group.get("lr_scale", 1.0)

    def after_evaluation(self, value: float) -> None:
        if self._best is None or self._sign * value > self._sign * self._best:
            self._best, self._worse = value, 0
            return
        self._worse += 1
        if self._worse > self._patience:
            self._factor, self._worse = max(self._lowest, self._factor * self._decay_rate), 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "worse": self._worse, "factor": self._factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._best, self._worse, self._factor = state["best"], state["worse"], state["factor"]


def _plateau(params: Mapping[str, Any]) -> dict[str, Any]:
    known = {"decay_rate": 0.1, "patience": 10}
    for key in params:
        if key not in known:
            raise ZooError(f"schedule.params: there is no key {key!r} here.{suggest(key, known)}")
    return known | dict(params)
