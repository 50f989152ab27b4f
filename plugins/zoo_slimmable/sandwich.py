"""Training a slimmable network: which widths a step trains, and features that do not depend on them.

Yu and Huang 2019, arXiv:1903.05134, section 3.3: in every step the widest, the narrowest and some random
sub-networks. Yu et al. 2019, arXiv:1812.08928, algorithm 1: each width of a list. Aich et al. 2023,
arXiv:2308.11744: features of the widest encoder teach the narrower ones, see `zoo_slimmable.distillation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.callbacks import Callback, LiveRun
from zoo_slimmable.config import SandwichConfig
from zoo_slimmable.configuration import Configuration, groups_of
from zoo_slimmable.distillation import answer_distance, feature_distance
from zoo_slimmable.widths import width_scope


class Sandwich(Callback):
    """Each step minimises the mean loss of its passes, each at other widths, with the targets of the data.

    `rule` says which. The first pass of `sandwich` and `each` is at full width. Later in training narrower
    passes add `distill` times the distance of their features from those of the first, and `answers` times
    that of their answers; the first pass gets no gradient from either.

    Deviations: the mean of the passes where the papers have the sum, so that losses compare with
    evaluation's; `turns` updates the weights after every pass, where the papers do so after all of them.
    """

    def __init__(self, config: SandwichConfig | None = None) -> None:
        self.config = config or SandwichConfig()
        self.run: LiveRun | None = None

    def on_start(self, run: LiveRun) -> None:
        """Remember the run, whose steps say when something is distilled."""
        self.run = run

    def objective(
        self, model: nn.Module, batch: Mapping[str, Any], loss_of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """See `zoo.callbacks.Callback.objective`.

        Raises:
            ValueError: the model has no slimmable layers, or is compiled.
        """
        if getattr(model, "_compiled_call_impl", None) is not None:  # as trainer.compile does it
            raise ValueError(
                "a compiled model cannot follow widths that change in every step: trainer.compile"
            )
        x, config = batch["input"], self.config
        done = self._done()
        distill = config.distill if done >= config.distill_from else 0.0
        answers = config.answers if done >= config.answers_from else 0.0
        losses: list[Tensor] = []
        teachers: list[Tensor] = []
        taught = torch.empty(0)
        for configuration in self.configurations(groups_of(model)):
            with width_scope(model, configuration, strict=False), self._features(model) as features:
                outputs = model(x)
                loss = loss_of(outputs)
            if not losses:
                teachers, taught = [feature.detach() for feature in features], outputs.detach()
            else:
                if distill:
                    loss = loss + distill * feature_distance(features, teachers, kind=config.distance)
                if answers:
                    targets = model.plan.targets  # type: ignore[union-attr]
                    loss = loss + answers * answer_distance(outputs, taught, targets, batch["target"])
            losses.append(loss)
        return torch.stack(losses).mean()

    def _done(self) -> float:
        """The share of the run's steps that are done; all, outside a run."""
        return 1.0 if self.run is None else self.run.step / max(1, self.run.steps)

    def configurations(self, groups: tuple[str, ...]) -> list[Configuration]:
        """The widths of a step's passes, by group of layers; the random ones are drawn anew each time."""
        widths = sorted(self.config.widths, reverse=True)
        if self.config.rule == "turns":
            step = 0 if self.run is None else self.run.step
            return [self._around(widths[step % len(widths)], groups)]
        if self.config.rule == "each":
            return [self._around(width, groups) for width in widths]
        passes = [dict.fromkeys(groups, widths[0])]
        if self.config.passes > 1 and len(widths) > 1:
            passes.append(dict.fromkeys(groups, widths[-1]))
        while len(passes) < self.config.passes and len(widths) > 1:
            drawn = [widths[int(n)] for n in torch.randint(len(widths), (len(groups),))]
            if self.config.uniform:
                drawn = drawn[:1] * len(groups)
            passes.append(dict(zip(groups, drawn, strict=True)))
        return passes

    def _around(self, width: float, groups: tuple[str, ...]) -> Configuration:
        """The encoder, the first group, at this width; each decoder too, or one time in two at any width.

        At full width all are full: that is what teaches, and what is compared with a plain network.
        """
        found, widths = dict.fromkeys(groups, width), self.config.widths
        if width < max(widths) and not self.config.uniform:
            for group in groups[1:]:
                if torch.rand(()) < 0.5:
                    found[group] = widths[int(torch.randint(len(widths), ()))]
        return found

    @contextmanager
    def _features(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """What the encoder's taps give while the model runs; without taps what the encoder gives."""
        encoder = getattr(model, "backbone", model)
        names = (getattr(encoder, "taps", None) or ("",)) if self.config.features == "all" else ("",)
        found: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            found.append(output)

        handles = [encoder.get_submodule(name).register_forward_hook(keep) for name in names]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()
