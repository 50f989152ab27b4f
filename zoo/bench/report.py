"""What `zoo bench` found: cells by model and length, exponents of growth, tables. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from zoo.bench.subjects import BASELINE
from zoo.quantities import amount


@dataclass(kw_only=False)
class Cell:
    """One model at one length; `None` where it was not measured or has no such thing.

    forward_ms, backward_ms: of a batch. decode_us: of the next token of all its streams.
    peak_bytes: beyond what was in use before forward and backward. state_bytes: of one stream.
    """

    model: str
    tokens: int
    parameters: int
    forward_ms: float | None = None
    backward_ms: float | None = None
    decode_us: float | None = None
    peak_bytes: int | None = None
    state_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A column. key: of a cell. show: the value with its unit."""

    key: str
    title: str
    show: Callable[[float], str]


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


QUANTITIES = (
    Quantity(key="forward_ms", title="forward", show=_milliseconds),
    Quantity(key="backward_ms", title="backward", show=_milliseconds),
    Quantity(key="decode_us", title="decode, per token", show=lambda value: f"{value:,.0f} µs"),
    Quantity(key="peak_bytes", title="peak memory", show=lambda value: amount(value, "B")),
    Quantity(key="state_bytes", title="state", show=lambda value: amount(value, "B")),
)


@dataclass(kw_only=True)
class Bench:
    """All that was measured. notes: sentences on what was not."""

    settings: dict[str, Any]
    circumstances: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(cell.model for cell in self.cells))

    def values(self, model: str, quantity: Quantity) -> dict[int, float]:
        """By length, where measured and not zero."""
        of_model = [cell for cell in self.cells if cell.model == model]
        found = {cell.tokens: getattr(cell, quantity.key) for cell in of_model}
        return {tokens: value for tokens, value in found.items() if value}

    def exponent(self, model: str, quantity: Quantity) -> float | None:
        """The power of the length that the cost grows with, see `exponent`."""
        return exponent(self.values(model, quantity))

    def quantities(self) -> list[Quantity]:
        """Those that any cell has."""
        return [q for q in QUANTITIES if any(getattr(cell, q.key) is not None for cell in self.cells)]

    def table(self) -> list[list[str]]:
        """A heading, then a line for each model at each length; in brackets as a multiple of the baseline."""
        quantities = self.quantities()
        reference = {q.key: self.values(BASELINE, q) for q in quantities}
        lines = [["tokens", "model", "parameters", *(q.title for q in quantities)]]
        for cell in sorted(self.cells, key=lambda cell: cell.tokens):
            line = [f"{cell.tokens:,}", cell.model, amount(cell.parameters)]
            for quantity in quantities:
                value = getattr(cell, quantity.key)
                base = reference[quantity.key].get(cell.tokens)
                ratio = f" ({value / base:.2g}x)" if value and base and cell.model != BASELINE else ""
                line.append("" if value is None else quantity.show(value) + ratio)
            lines.append(line)
        return lines

    def growth(self) -> list[list[str]]:
        """A heading, then a line for each model: the exponents; nothing where there is one length."""
        quantities = self.quantities()
        body = []
        for model in self.models:
            powers = [self.exponent(model, quantity) for quantity in quantities]
            if any(power is not None for power in powers):
                body.append([model, *("" if power is None else f"N^{power:.2f}" for power in powers)])
        return [["model", *(q.title for q in quantities)], *body] if body else []

    def conditions(self) -> str:
        """One line on what was measured where."""
        s, c = self.settings, self.circumstances
        where = c["gpu"] or f"{c['system']}, {c['threads']} thread{'s' * (c['threads'] > 1)}"
        sees = "causal" if s["causal"] else "both ways"
        return (
            f"Backbones of width {s['width']}, depth {s['depth']}, {s['heads']} heads, {sees}, batch "
            f"{s['batch']}, float32; the least of {s['repeats']} turns. {c['date']}, {where}, "
            f"torch {c['torch']}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "settings": {**self.settings, "lengths": list(self.settings["lengths"])},
            "circumstances": self.circumstances,
            "baseline": BASELINE,
            "interrupted": self.interrupted,
            "notes": self.notes,
            "cells": [asdict(cell) for cell in self.cells],
            "exponents": {
                model: {q.key: self.exponent(model, q) for q in QUANTITIES} for model in self.models
            },
        }

    def markdown(self) -> str:
        """Conditions, both tables and the notes."""
        parts = [self.conditions(), _markdown(self.table())]
        if growth := self.growth():
            parts += ["Cost grows with the length N like:", _markdown(growth)]
        return "\n\n".join([*parts, *self.notes]) + "\n"


def exponent(values: dict[int, float]) -> float | None:
    """The slope of log cost over log length, by least squares; `None` with fewer than two lengths."""
    if len(values) < 2:
        return None
    x, y = [math.log(n) for n in values], [math.log(value) for value in values.values()]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


def _markdown(table: Sequence[Sequence[str]]) -> str:
    heading, *body = table
    return "\n".join(f"| {' | '.join(line)} |" for line in [heading, ["---"] * len(heading), *body])
