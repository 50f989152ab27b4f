"""The hooks, what a claim may say, and every field of every spec."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from pathlib import Path
from typing import Any, Literal

import zoo.plugin as zp
from docs.generator.markdown import default_text, table
from zoo import specs


def hooks_page() -> str:
    blocks = [
        "# Hooks and specs",
        "All of this is imported from `zoo.plugin`, which loads no torch. "
        "[Writing a plugin](../writing_a_plugin.md) shows it in use.",
        "## Hooks",
        f"A plugin states `__zoo_api__ = {zp.API_VERSION}` and defines any of these functions in the module "
        f"that its entry point of the group `{zp.ENTRY_POINT_GROUP}` names. All are optional.",
    ]
    for name, hook in inspect.getmembers(zp.Hooks, inspect.isfunction):
        signature = inspect.signature(hook)
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
        code = f"@hookimpl\ndef {name}{signature}: ...".replace("'", "")
        blocks += [f"### {name}", f"```python\n{code}\n```", inspect.getdoc(hook) or ""]
    blocks += ["## What a claim may say", claims_table()]
    every: tuple[type, ...] = (specs.Spec, *specs.SPEC_KINDS)
    for cls in every:
        blocks += spec_section(cls)
    return "\n\n".join(blocks) + "\n"


def claims_table() -> str:
    """The named choices of zoo.specs with the comments that explain them."""
    source = Path(specs.__file__).read_text(encoding="utf-8")
    rows = []
    for comment, name in re.findall(r"((?:#: .*\n)+)(\w+) = Literal\[", source):
        text = " ".join(line.removeprefix("#: ") for line in comment.splitlines())
        choices = ", ".join(f"`{choice}`" for choice in typing.get_args(getattr(specs, name)))
        rows.append([f"`{name.lower()}`", choices, text])
    return table(["claim", "choices", "what they mean"], rows)


def spec_section(cls: type) -> list[str]:
    """Heading, prose and fields of one kind of spec; those of `Spec` itself stand there only."""
    prose, helps = described(cls)
    common = set() if cls is specs.Spec else {field.name for field in dataclasses.fields(specs.Spec)}
    hints = typing.get_type_hints(cls)
    rows = [
        [f"`{field.name}`", spec_type(hints[field.name]), default_text(field), helps.get(field.name, "")]
        for field in dataclasses.fields(cls)
        if field.name not in common
    ]
    blocks = [f"## {cls.__name__}", prose]
    if common:
        blocks.append("The fields of [`Spec`](#spec)" + (", and:" if rows else "."))
    if rows:
        blocks.append(table(["field", "type", "default", "what it says"], rows))
    return blocks


def described(cls: type) -> tuple[str, dict[str, str]]:
    """The prose of a docstring, and its `field: what it says` entries by field."""
    names = {field.name for field in dataclasses.fields(cls)}
    prose: list[str] = []
    helps: dict[str, str] = {}
    current: list[str] = []
    for line in (inspect.getdoc(cls) or "").splitlines():
        entry = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        if entry and set(entry[1].split(", ")) <= names:
            current = entry[1].split(", ")
            helps |= dict.fromkeys(current, entry[2])
        elif current and line.strip():
            helps |= {name: f"{helps[name]} {line.strip()}" for name in current}
        else:
            current = []
            prose.append(line)
    if specs.SequenceSpec in cls.__bases__:
        helps |= described(specs.SequenceSpec)[1]
    return "\n".join(prose).strip(), helps


def spec_type(annotation: Any) -> str:
    """A field's type as a plugin's author writes it."""
    if typing.get_origin(annotation) is Literal:
        return ", ".join(f"`{choice!r}`" for choice in typing.get_args(annotation))
    return f"`{re.sub(r'(?:[a-z_]+[.])+', '', inspect.formatannotation(annotation))}`"
