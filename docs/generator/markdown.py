"""Tables: plain ones, and those of a config class."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zoo.config import spelt, type_name


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped, line breaks are spaces."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def parameters_table(config: type | None, given: Mapping[str, Any] | None = None) -> str:
    """The fields of a config class: type and bounds, default (or what is given instead), help."""
    if config is None or not dataclasses.fields(config):
        return "It takes no parameters."
    rows = []
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        default = code(given[field.name]) if given and field.name in given else default_text(field)
        help = field.metadata.get("help", "")
        rows.append([f"`{field.name}`", bounded(type_name(hints[field.name]), field), default, help])
    return table(["parameter", "type", "default", "what it is"], rows)


def bounded(kind: str, field: dataclasses.Field[Any]) -> str:
    """`a whole number, at least 1`."""
    bounds = [
        f"{name.replace('_', ' ')} {field.metadata[name]:g}"
        for name in ("at_least", "above", "at_most", "below")
        if name in field.metadata
    ]
    return ", ".join([kind, *bounds])


def default_text(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return "as below" if dataclasses.is_dataclass(made) else code(made)
    return "required" if field.default is dataclasses.MISSING else code(field.default)


def code(value: Any) -> str:
    """A value as it is written in a recipe."""
    return f"`{spelt(value)}`"


def _cell(text: str) -> str:
    # A bar inside of `code` does not end a cell, and an escape would show.
    return re.sub(r"(`[^`]*`)|\|", lambda match: match[1] or "\\|", " ".join(str(text).split()))
