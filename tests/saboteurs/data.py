"""Honest and dishonest datasets, tasks and transforms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.data import Splits, TensorSplit
from zoo.plugin import IGNORE
from zoo.tasks.classification import Classification
from zoo.tasks.language_modelling import LanguageModelling

# -- datasets: rows of 4 numbers, the class is which of the first three is largest ------------


def _split(size: int, *, generator: torch.Generator) -> TensorSplit:
    rows = torch.randn(size, 4, generator=generator)
    return TensorSplit(rows, rows[:, :3].argmax(1))


def rows(config: None) -> Splits:
    """Honest."""
    generator = torch.Generator().manual_seed(0)
    return Splits(**{n: _split(40, generator=generator) for n in ("train", "val", "test")})


def missing(config: None) -> Splits:
    raise FileNotFoundError("rows.csv")


def more_classes(config: None) -> Splits:
    """Three classes declared, a fourth in the data."""
    splits = rows(config)
    for split in (splits.train, splits.val, splits.test):
        split.targets[-1] = 3  # type: ignore[attr-defined]
    return splits


def never_the_same(config: None) -> Splits:
    generator = torch.Generator()
    generator.seed()
    return Splits(**{n: _split(40, generator=generator) for n in ("train", "val", "test")})


def tests_on_train(config: None) -> Splits:
    splits = rows(config)
    return Splits(train=splits.train, val=splits.val, test=splits.train)


# -- tasks -----------------------------------------------------------------------------------


class NothingIsNaN(LanguageModelling):
    """0 / 0 where a batch asks nothing."""

    def loss(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        asked = (batch["target"] != IGNORE).any()
        return super().loss(outputs, batch).where(asked, torch.nan)


class Waits(Classification):
    """Its loss reads how many answers there are."""

    def loss(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return super().loss(outputs, batch) * (self.count(batch) / max(self.count(batch), 1))


class Unweighted(Classification):
    """Averages over batches, whatever their size."""

    def update(self, metrics: Any, outputs: Tensor, batch: dict[str, Tensor], loss: Tensor) -> None:
        super().update(metrics, outputs, batch, loss)
        metrics["loss"].update(loss.detach(), weight=1 - self.count(batch))


class SpeaksInTensors(Classification):
    """Predictions that no JSON can hold."""

    def predict(self, outputs: Tensor, mask: Tensor | None = None) -> list[Any]:
        return list(outputs.argmax(-1))


class OwnBaseline(Classification):
    """Scores the naive answer with a metric of its own."""

    def baseline(self, train: Any, test: Any) -> dict[str, float]:
        return {"share_of_majority": super().baseline(train, test)["accuracy"]}


# -- transforms ------------------------------------------------------------------------------


class _Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight


def scale(model: nn.Module, config: None) -> nn.Module:
    """The last linear map's weight times a learned factor. Honest."""
    return _scale(model, _Scaled(1.5))


def unscale(model: nn.Module) -> nn.Module:
    """Fold the factor into the weight. Honest."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return model


def _scale(model: nn.Module, factor: nn.Module, *, again: bool = False) -> nn.Module:
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    if again or not parametrize.is_parametrized(last, "weight"):
        parametrize.register_parametrization(last, "weight", factor.to(last.weight.dtype))
    return model


def freezes(model: nn.Module, config: None) -> nn.Module:
    """Leaves a weight without a gradient."""
    next(model.parameters()).requires_grad_(False)
    return scale(model, config)


def piles_up(model: nn.Module, config: None) -> nn.Module:
    """Applied again, it puts a second factor upon the first."""
    return _scale(model, _Scaled(1.5), again=True)


class _Drawn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0 + torch.rand(()).item()

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight


def forgets(model: nn.Module, config: None) -> nn.Module:
    """Draws a factor that no state_dict holds."""
    return _scale(model, _Drawn())


class _Counted(_Scaled):
    def __init__(self, factor: float) -> None:
        super().__init__(factor)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            self.calls += 1
        return super().forward(weight)


def counts(model: nn.Module, config: None) -> nn.Module:
    """Evaluation changes a buffer."""
    return _scale(model, _Counted(1.5))


def climbs(model: nn.Module, config: None) -> nn.Module:
    """Gradients point uphill."""
    scale(model, config)
    for parameter in model.parameters():
        parameter.requires_grad_(True).register_hook(torch.neg)
    return model


def forget_factor(model: nn.Module) -> nn.Module:
    """Folding forgets the factor."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    return model
