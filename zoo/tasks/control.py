"""`core/control`: act as in recorded episodes, and be judged by playing. B windows, N tokens, A numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.kinds import Actions
from zoo.tasks.base import Batch, Task, batches
from zoo.tasks.config import ControlConfig
from zoo.tasks.metrics import Mean, MetricCollection, collection


class Control(Task[ControlConfig, Actions]):
    """Cross entropy of the recorded choice, or the squared error of recorded values; then returns of play.

    Outputs are (B, N, count), targets float (B, N, A), NaN where no action is asked for. `error` is the share
    of choices that differ, or the mean absolute error. After training the model plays, told which return to
    reach: its returns stand beside those of random actions and of the recorded episodes.
    """

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean over the asked actions, 0 without any. outputs: (B, N, count)."""
        return self._losses(outputs, batch).sum() / _asked(batch).sum().clamp_min(1)

    def count(self, batch: Batch) -> int:
        """The number of asked actions."""
        return int(_asked(batch).sum())

    played = ("return", "return_deviation", "score")

    def metrics(self) -> MetricCollection:
        """`loss`, `error`."""
        return collection(loss=Mean(), error=Mean())

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch, loss: Tensor) -> None:
        """Add one batch. outputs: (B, N, count)."""
        asked = _asked(batch)
        if not asked.any():
            return
        metrics["loss"].update(loss.detach(), weight=self.count(batch))
        actions, target = self.act(outputs.detach().float())[asked], batch["target"][asked].float()
        if self.targets.choices:
            metrics["error"].update((actions != target[:, 0]).float())
        else:
            metrics["error"].update((actions - target).abs())

    def act(self, outputs: Tensor) -> Tensor:
        """Outputs (..., count) -> the choice (...), or the values (..., count)."""
        return outputs.argmax(-1) if self.targets.choices else outputs

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        """The action after the last token: a name or number, or `{name: value}`. outputs: (B, N, count)."""
        keep = torch.ones(outputs.shape[:2], dtype=torch.bool) if mask is None else mask.cpu()
        last = torch.where(keep, torch.arange(keep.shape[1]), -1).amax(1).clamp_min(0).to(outputs.device)
        actions = self.act(outputs[torch.arange(len(last), device=outputs.device), last].float())
        names = self.targets.names or tuple(str(i) for i in range(self.targets.count))
        if self.targets.choices:
            return [names[i] for i in actions.tolist()]
        return [dict(zip(names, row, strict=True)) for row in actions.tolist()]

    def naive(self, train: Any) -> Tensor:
        """Log frequencies of the choices, each counted once more, or the mean action: (1, 1, count)."""
        taken = torch.cat([batch["target"][_asked(batch)] for batch in batches(train)]).double()
        if not self.targets.choices:
            return taken.mean(0).float()[None, None]
        counts = 1 + torch.bincount(taken[:, 0].long(), minlength=self.targets.count)
        return (counts / counts.sum()).log().float()[None, None]

    @torch.no_grad()
    def play(self, model: Any, arena: Any, *, seed: int = 0) -> dict[str, float]:
        """`return`, its deviation over episodes, and `score` (0: random actions, 100: the best recorded).

        model: tokens (B, N, C) -> outputs (B, N, count), in evaluation mode, where its weights lie.
        """
        device = next(model.parameters()).device
        target = self.config.target_return
        best, random = arena.references["best_recorded"], arena.references["random"]
        returns = arena.play(
            lambda tokens: self.act(model(tokens.to(device))[:, -1].float()).cpu(),
            episodes=self.config.episodes,
            target_return=best if target is None else target,
            seed=seed,
        )
        return {
            "return": float(returns.mean()),
            "return_deviation": float(returns.std()),
            "score": 100 * (float(returns.mean()) - random) / (best - random),
        }

    def _losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Of each token, 0 where nothing is asked: (B, N)."""
        asked, target = _asked(batch), batch["target"].float().nan_to_num(0.0)
        if self.targets.choices:
            losses = F.cross_entropy(outputs.float().mT, target[..., 0].long(), reduction="none")
        else:
            losses = (outputs.float() - target).square().mean(-1)
        return losses.where(asked, 0.0)


def _asked(batch: Batch) -> Tensor:
    """Where an action is asked for: bool (B, N)."""
    return ~batch["target"][..., 0].isnan()
