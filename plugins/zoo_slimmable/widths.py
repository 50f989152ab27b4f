"""Widths: how many of its channels a network uses, chosen while it runs.

A `Channels` stands for one set of channels, shared by all layers that write or read them: layers whose
outputs are added share one, and so can never disagree. A sub-network is the first so many of each (nested
prefixes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

#: A width of one sub-network: one ratio for all channels, or ratios by name or pattern of the modules that
#: write them.
Width = float | Mapping[str, float]


class Channels:
    """Channels of which the first `active` are used.

    Args:
        full: how many there are.
        divisor: how many are used is a multiple of this, where there are as many.
        unit: channels that stand or fall together, as those of an attention head: a width must then give
            whole units, and is not rounded to some.
        fixed: all are always used.

    Attributes:
        width: the ratio that was asked for. active: how many channels that is.

    Raises:
        ValueError: sizes below 1 or that are no whole numbers, or units that do not divide the channels.
    """

    def __init__(self, full: int, *, divisor: int = 8, unit: int | None = None, fixed: bool = False) -> None:
        for name, size in {"channels": full, "divisor": divisor, "unit": 1 if unit is None else unit}.items():
            if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be at least 1, and a whole number, got {size!r}")
        if unit is not None and full % unit:
            raise ValueError(f"{full} channels are not whole units of {unit}")
        self.full = full
        self.divisor = divisor
        self.unit = unit
        self.fixed = fixed
        self.width = 1.0
        self.active = full

    def __repr__(self) -> str:
        return f"Channels({self.active} of {self.full})"

    @property
    def is_full(self) -> bool:
        """Whether all are used."""
        return self.active == self.full

    def count(self, width: float, *, strict: bool = True) -> int:
        """How many channels a width is.

        strict: refuse a width that gives no whole number of units; else the nearest number, at least one.

        Raises:
            ValueError: the width is not in (0, 1], or tears units apart.
        """
        if not 0 < width <= 1:
            raise ValueError(f"a width must be above 0 and at most 1, got {width:g}")
        if self.fixed or width == 1:
            return self.full
        if self.unit is not None:
            units = self.full // self.unit
            wanted = width * units
            kept = max(1, int(wanted + 0.5))
            if strict and abs(wanted - kept) > 1e-6:
                fitting = ", ".join(f"{n / units:.4g}" for n in range(1, units + 1))
                raise ValueError(
                    f"width {width:g} of {units} heads or groups of {self.unit} channels is {wanted:.4g} of "
                    f"them, no whole number; widths that fit: {fitting}"
                )
            return kept * self.unit
        return min(self.full, divisible(width * self.full, self.divisor))

    def set(self, width: float, *, strict: bool = True) -> None:
        """Use so many of the channels from now on.

        Raises:
            ValueError: as `count`.
        """
        self.active = self.count(width, strict=strict)
        self.width = 1.0 if self.fixed else width


def divisible(channels: float, divisor: int) -> int:
    """The nearest multiple of `divisor`, at least one, and never less than 0.9 of what was asked for."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def fixed(size: int) -> Channels:
    """Channels that are always all used: those of an image, classes."""
    return Channels(size, fixed=True)


class Slimmable:
    """What slimmable layers have in common, beside `nn.Module`.

    inputs, outputs: the channels read and written, side by side where there are several.
    """

    inputs: tuple[Channels, ...]
    outputs: tuple[Channels, ...]
    #: Whether `outputs` are made here; a norm passes on those of another layer.
    produces = True

    def active_parameters(self) -> int:
        """How many numbers of its weights are used at the present width."""
        raise NotImplementedError

    def check_width(self) -> None:
        """Raises ValueError where the present widths of its sides do not fit each other."""


def first(tensor: Tensor, dim: int, parts: tuple[Channels, ...]) -> Tensor:
    """The used entries along a dimension in which `parts` lie side by side."""
    if all(part.is_full for part in parts):
        return tensor
    pieces, start = [], 0
    for part in parts:
        pieces.append(tensor.narrow(dim, start, part.active))
        start += part.full
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat(pieces, dim)


def active(parts: tuple[Channels, ...]) -> int:
    """How many channels of several sets are used."""
    return sum(part.active for part in parts)


def slimmable_layers(model: nn.Module) -> dict[str, Any]:
    """The slimmable layers of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Slimmable)}


def channels_of(model: nn.Module) -> dict[Channels, list[str]]:
    """Every set of channels whose width can be chosen, and the names of the layers that write it."""
    found: dict[Channels, list[str]] = {}
    for name, layer in slimmable_layers(model).items():
        if layer.produces:
            for channels in layer.outputs:
                if not channels.fixed and name not in found.setdefault(channels, []):
                    found[channels].append(name)
    return found


def set_width(model: nn.Module, width: Width, *, strict: bool = True) -> None:
    """Use a part of a model's channels from now on. Nothing is changed where anything is wrong.

    Args:
        model: one with slimmable layers.
        width: a ratio for all channels; or ratios by name of a module or pattern, e.g. `{"*": 1.0, "head.*":
            0.5}`, of which the last that fits counts. Layers that none fits keep theirs.
        strict: refuse widths that tear heads or groups apart; else whole ones are used, at least one.

    Raises:
        ValueError: a width that cannot be, a name that fits nothing, layers that share channels but are given
            different widths, groups of which the two sides keep different numbers, or a model without
            slimmable layers.
    """
    ratios = _ratios(model, width)
    before = {channels: (channels.width, channels.active) for channels in ratios}
    try:
        for channels, ratio in ratios.items():
            channels.set(ratio, strict=strict)
        for layer in slimmable_layers(model).values():
            layer.check_width()
    except ValueError:
        _restore(before)
        raise


def _restore(before: Mapping[Channels, tuple[float, int]]) -> None:
    for channels, (width, count) in before.items():
        channels.width, channels.active = width, count


def current_width(model: nn.Module) -> float | dict[str, float]:
    """The width of a model; where its channels have different ones, by name of a layer that writes them.

    Raises:
        ValueError: the model has no slimmable layers.
    """
    found = _known(model)
    widths = {channels.width for channels in found}
    if len(widths) == 1:
        return widths.pop()
    return {names[0]: channels.width for channels, names in found.items()}


@contextmanager
def width_scope(model: nn.Module, width: Width, *, strict: bool = True) -> Iterator[None]:
    """A width for a while; afterwards each layer has the one from before.

    Raises:
        ValueError: as `set_width`.
    """
    before = {channels: (channels.width, channels.active) for channels in channels_of(model)}
    set_width(model, width, strict=strict)
    try:
        yield
    finally:
        _restore(before)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern fits the name of a module or of one that it is in."""
    parts = name.split(".")
    return pattern == "*" or any(
        fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1)
    )


def _known(model: nn.Module) -> dict[Channels, list[str]]:
    found = channels_of(model)
    if not found:
        raise ValueError(
            "this model has no slimmable layers: build one of slimmable layers, or convert it with "
            "zoo.apply_transform(model, 'slimmable')"
        )
    return found


def _ratios(model: nn.Module, width: Width) -> dict[Channels, float]:
    """The ratio of each set of channels that is given one."""
    found = _known(model)
    if not isinstance(width, Mapping):
        return dict.fromkeys(found, _number(width))
    width = {pattern: _number(ratio) for pattern, ratio in width.items()}
    names = sorted({name for each in found.values() for name in each})
    for pattern in width:
        if not any(matches(name, pattern) for name in names):
            raise ValueError(
                f"no layer with a width is called {pattern!r} or lies in it; there is: "
                + ", ".join(names[:20])
                + (f" and {len(names) - 20} more" if len(names) > 20 else "")
            )
    chosen = {channels: _ratio(writers, width) for channels, writers in found.items()}
    return {channels: ratio for channels, ratio in chosen.items() if ratio is not None}


def _ratio(writers: list[str], width: Mapping[str, float]) -> float | None:
    """What layers that write the same channels are given: the last entry that fits any; `None`: none does.

    Raises:
        ValueError: an entry for one of them says otherwise, and no later one is for that layer, too.
    """
    fitting = {pattern: [name for name in writers if matches(name, pattern)] for pattern in width}
    last = {name: pattern for pattern, names in fitting.items() for name in names}
    if not last:
        return None
    decides = [pattern for pattern in width if fitting[pattern]][-1]
    for name, pattern in last.items():
        if width[pattern] != width[decides] and not set(fitting[pattern]) & set(fitting[decides]):
            raise ValueError(
                f"{name} and {fitting[decides][0]} write the same channels (their outputs are added), so "
                f"that they must have one width, not {width[pattern]:g} and {width[decides]:g}"
            )
    return width[decides]


def _number(width: object) -> float:
    """Raises ValueError for what is no number."""
    try:
        return float(width)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"a width is a number, or numbers by name of a module, got {width!r}") from None
