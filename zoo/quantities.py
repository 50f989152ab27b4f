"""Numbers as people read them (torch-free)."""

from __future__ import annotations


def number(value: float | None) -> str:
    """A score in four digits."""
    return "" if value is None else f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.2e}"


def amount(value: float | None, unit: str = "") -> str:
    """`1.31 M`: three digits and a prefix; nothing for `None`."""
    if value is None:
        return ""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()
