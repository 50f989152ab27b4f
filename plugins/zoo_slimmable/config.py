"""Parameters of the plugin's components (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zoo.plugin import Config, ConfigError, Problem, param


@dataclass(frozen=True, kw_only=True)
class SlimmableConfig(Config):
    """Parameters of the transform `slim/slimmable`."""

    divisor: int = param(8, "channels in use are a multiple of this, where there are as many", at_least=1)
    exclude: tuple[str, ...] = param(
        (), "names of modules whose outputs keep their width, or patterns such as 'layer4*'"
    )
    input_size: tuple[int, ...] = param(
        (),
        "channels, height and width of an image, where the model does not say; it is traced once",
        at_least=1,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if len(self.input_size) not in (0, 3):
            yield "input_size", f"must be channels, height and width, got {self.input_size}"


@dataclass(frozen=True, kw_only=True)
class NormConfig(Config):
    """What encoder and decoders have in common."""

    divisor: int = param(
        4, "channels in use are a multiple of this; also the channels of a group", at_least=1
    )
    norm: Literal["group", "batch", "switchable"] = param(
        "group",
        "group norms need no statistics; batch: taken for each width after training; switchable: weights and "
        "statistics for each width of `widths`",
    )
    widths: tuple[float, ...] = param((0.25, 0.5, 0.75, 1.0), "of switchable norms", above=0, at_most=1)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from check_widths(self.widths)


@dataclass(frozen=True, kw_only=True)
class ConvConfig(NormConfig):
    """Parameters of `slim/conv`. `model.width` is that of the last stage; each before it is half as wide."""

    stages: int = param(3, "stages, each half as large and twice as wide as the one before", at_least=1)
    blocks: int = param(1, "residual blocks of each stage", at_least=0)
    stride: int = param(
        1, "pixels from one place of the first stage to the next, of a larger image", at_least=1
    )

    def check_width(self, width: int) -> None:
        """Refuse a width that the stages do not divide."""
        least = self.divisor << (self.stages - 1)
        if width % least:
            message = f"must be a multiple of divisor x 2^(stages - 1), here {least}; got {width}"
            raise ConfigError([Problem("width", message)])


@dataclass(frozen=True, kw_only=True)
class DecodersConfig(NormConfig):
    """Parameters of `slim/decoders`, `slim/classifier` and `slim/regressor`."""

    hidden: int = param(32, "channels of each decoder", at_least=1)
    kernel: int = param(3, "side of its convolution; 1 for features that are pooled already", at_least=1)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.hidden % self.divisor:
            yield "hidden", f"must be a multiple of divisor ({self.divisor}), got {self.hidden}"
        if self.kernel % 2 == 0:
            yield "kernel", f"must be odd, got {self.kernel}"


@dataclass(frozen=True, kw_only=True)
class MapDecodersConfig(DecodersConfig):
    """Parameters of `slim/map_decoders`."""

    kernel: int = param(3, "side of the convolution at the size of the image", at_least=1)
    unfold: int = param(
        4, "pixels per side that each place of the features becomes before it is resized", at_least=1
    )


@dataclass(frozen=True, kw_only=True)
class SandwichConfig(Config):
    """Parameters of the callback `slim/sandwich`."""

    widths: tuple[float, ...] = param((0.25, 0.5, 0.75, 1.0), "that are trained", above=0, at_most=1)
    rule: Literal["sandwich", "each", "turns"] = param(
        "sandwich",
        "widths of a step; sandwich: the widest, the narrowest, random ones; each: the encoder at each of "
        "`widths`, a decoder as well or, one time in two, at any; turns: as each, but one width a step, in "
        "turn, in a run of as many times the steps",
    )
    passes: int = param(4, "forward passes of a step, of the rule `sandwich`", at_least=1)
    distill: float = param(
        0.1, "weight of the distance between features and those of full width; 0: none", at_least=0
    )
    distill_from: float = param(
        0.5,
        "share of the steps after which features are distilled: a teacher must have learnt",
        at_least=0,
        at_most=1,
    )
    features: Literal["all", "last"] = param(
        "all", "which features are compared: of every stage of the encoder, or what it gives"
    )
    distance: Literal["prefix", "attention", "relation"] = param(
        "prefix",
        "of features; prefix: of the first channels; attention: of where they are large; relation: of how "
        "places and examples relate, of which all channels of full width count",
    )
    answers: float = param(
        0.0, "weight of the distance between answers and those of full width; 0: none", at_least=0
    )
    answers_from: float = param(
        0.5,
        "the same of answers",
        at_least=0,
        at_most=1,
    )
    uniform: bool = param(False, "one width for encoder and decoders, in place of one for each")

    def check(self) -> Iterator[tuple[str, str]]:
        yield from check_widths(self.widths)
        for name in ("distill", "answers"):
            if self.rule == "turns" and getattr(self, name):
                yield name, "must be 0 with rule: turns, whose steps have no pass at full width to learn from"


def check_widths(widths: tuple[float, ...]) -> Iterator[tuple[str, str]]:
    """What is wrong with widths to choose from."""
    if len(set(widths)) < len(widths) or 1.0 not in widths:
        yield "widths", f"must be different numbers, 1.0 among them, got {widths}"


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Config):
    """Options of `zoo slim search`."""

    budget: str | float = param("0.5x", "of full width, as 0.4x; or FLOPs of one example, as 2M")
    prefer: str = param(
        "", "weights of tasks, as digit=2,loops=1; those not named count nothing; none: alike"
    )
    spend: float = param(
        0.95,
        "choose among configurations that use this share of the budget, where there are any; 0: among all",
        at_least=0,
        at_most=1,
    )
    widths: tuple[float, ...] = param((0.25, 0.5, 0.75, 1.0), "to choose from", above=0, at_most=1)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from check_widths(self.widths)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Config):
    """Options of `zoo slim export`."""

    widths: str | float = param(
        "1.0", "one number, or by part as encoder=0.5,digit=0.25; patterns of modules too"
    )
    tasks: str = param("", "decoders to keep, as digit,loops; none: all")
    name: str = param(
        "", "of the file, slim_NAME.pt2 in the run's folder; none: made of the widths and tasks"
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if set(self.name) & set('/\\:*?"<>|'):
            yield "name", f"must be part of a file's name, got {self.name!r}"


@dataclass(frozen=True, kw_only=True)
class CurvesConfig(Config):
    """Options of `zoo slim curves`."""

    budgets: tuple[float, ...] = param((0.3, 0.5, 0.7), "shares of full width's FLOPs", above=0, at_most=1)
    widths: tuple[float, ...] = param((0.25, 0.5, 0.75, 1.0), "to choose from", above=0, at_most=1)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from check_widths(self.widths)
