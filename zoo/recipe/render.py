"""A recipe as YAML again: everything spelt out, each line with a word on where its value comes from.

What is rendered can be loaded, and renders to the same text (but for the comments, which then name the
rendered file). Text that YAML, this zoo's reader or an interpolation could misread is quoted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from zoo.catalogue import Part
from zoo.config import join
from zoo.recipe.errors import printable
from zoo.recipe.scalar import Ambiguous, scalar

if TYPE_CHECKING:
    from zoo.recipe.load import LoadedRecipe

_PLAIN_TEXT = re.compile(r"[A-Za-z_./][\w./+@ -]*(?<! )")
_UNPRINTABLE = re.compile(
    r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_COMMENT_COLUMN = 44
#: What the contract decides where the recipe does not.
_CHOSEN = ("model.stem", "model.stem.name", "model.head.name", "task.name", "task.monitor", "task.mode")


def render(loaded: LoadedRecipe, *, comments: bool = True) -> str:
    """The resolved recipe: defaults, presets and the contract's choices included."""
    data = resolved(loaded)
    if not comments:
        return dump(data)
    heading = [f"# {loaded.name} as it runs. Right of each value: where it comes from."]
    heading += [f"# note: {printable(note)}" for note in loaded.notes]
    return "\n".join(heading) + "\n" + dump(data, lambda path: _origin(loaded, path))


def resolved(loaded: LoadedRecipe) -> dict[str, Any]:
    """Plain data: the recipe with its components by full name and all their parameters."""
    plan = loaded.plan
    data = asdict(loaded.recipe)
    data["model"] |= _part(plan.model)
    data["model"]["stem"] = _part(plan.stem) if plan.stem else None
    data["model"]["head"] = _part(plan.head)
    if plan.dataset:
        data["data"] |= _part(plan.dataset)
    if plan.task:
        data["task"] |= _part(plan.task)
    data["task"] |= {"monitor": plan.monitor, "mode": plan.mode}
    data["callbacks"] |= {part.id: _part(part)["params"] for part in loaded.callbacks}
    data["transforms"] = {part.id: _part(part)["params"] for part in plan.transforms}
    return _escaped(data)


def dump(data: Mapping[str, Any], comment: Callable[[str], str] | None = None) -> str:
    """A mapping as YAML, one entry a line; `comment` says what to write beside the entry at a path."""
    lines = []
    for path, line in _lines(data, "", ""):
        remark = comment(path) if comment and path else ""
        lines.append(f"{line:<{_COMMENT_COLUMN}}  # {printable(remark)}" if remark else line)
    return "\n".join(lines) + "\n"


def _lines(data: Mapping[str, Any], path: str, indent: str) -> Iterator[tuple[str, str]]:
    """(path, line); the path is empty for a line that holds no value."""
    after_block = False
    for key, value in data.items():
        here = join(path, key)
        block = not indent and isinstance(value, Mapping) and bool(value)
        if block or after_block:
            yield "", ""
        after_block = block
        if isinstance(value, Mapping) and value:
            yield "", f"{indent}{key}:"
            yield from _lines(value, here, indent + "  ")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            yield here, f"{indent}{key}:"
            for index, item in enumerate(value):
                yield join(here, str(index)), f"{indent}  - {flow(item)}"
        else:
            yield here, f"{indent}{key}: {flow(value)}"


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    return _text(value) if isinstance(value, str) else str(value)


def _number(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    digits, e, exponent = repr(value).partition("e")
    return f"{digits if '.' in digits else digits + '.0'}{e}{exponent}"  # 1e-05 is a text to YAML 1.1


def _text(value: str) -> str:
    try:
        if _PLAIN_TEXT.fullmatch(value) and scalar(value) == value:
            return value
    except Ambiguous:
        pass
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + _UNPRINTABLE.sub(lambda match: f"\\U{ord(match[0]):08x}", quoted) + '"'


def _escaped(value: Any) -> Any:
    """With each literal `${`, which came from an escaped one, escaped again; tuples become lists."""
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return value


def part_params(part: Part) -> dict[str, Any]:
    """All parameters of a component, as plain data."""
    return asdict(part.config) if is_dataclass(part.config) and not isinstance(part.config, type) else {}


def _part(part: Part) -> dict[str, Any]:
    return {"name": part.id, "params": part_params(part)}


def _origin(loaded: LoadedRecipe, path: str) -> str:
    path = _as_given(loaded, path)
    if path in loaded.origins:
        return str(loaded.origins[path])
    section, _, key = path.partition(".params.")
    if section == "model" and key:
        spec: Any = loaded.catalogue.get("model", loaded.plan.model.id)
        name = key.partition(".")[0]
        preset = loaded.recipe.model.preset
        if preset is not None and name in spec.presets[preset]:
            return f"preset {preset}"
        if name in spec.params:
            return spec.id
    return "contract" if path in _CHOSEN else "default"


def _as_given(loaded: LoadedRecipe, path: str) -> str:
    """The path as the recipe has it, which may name a transform or a callback by its short name."""
    section, _, rest = path.partition(".")
    id, _, key = rest.partition(".")
    short = join(section, id.partition("/")[2], key)
    return (
        short if section in ("transforms", "callbacks") and "/" in id and path not in loaded.origins else path
    )
