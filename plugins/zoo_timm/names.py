"""The names of timm's models, read from its source text: neither timm nor torch is imported (torch-free).

timm has no list of its names apart from its code. Reading that takes about 40 ms, importing timm several
seconds. The tests compare what is read with timm's own registry.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from zoo.plugin import ZooError

#: A function that timm registers: the name of an architecture.
_MODEL = re.compile(r"@register_model\s+def (\w+)\(")
#: A key of a table of weights: "architecture.tag".
_WEIGHTS = re.compile(r"""^\s*["']([a-z]\w*)\.([\w-]+)["']\s*:""", re.MULTILINE)


class Names(Collection[str]):
    """Architectures (`resnet18`) and their weights (`resnet18.a1_in1k`).

    A few tables of weights are made by code, so that their tags cannot be read. Of an architecture whose tags
    are not known any tag counts as a name; timm has the last word when the model is built.
    """

    def __init__(self, tags: dict[str, frozenset[str]]) -> None:
        self._tags = tags

    def __contains__(self, name: object) -> bool:
        architecture, dot, tag = str(name).partition(".")
        known = self._tags.get(architecture)
        return known is not None and (not dot or tag in known or (not known and bool(tag)))

    def __iter__(self) -> Iterator[str]:
        for architecture, tags in self._tags.items():
            yield architecture
            yield from (f"{architecture}.{tag}" for tag in tags)

    def __len__(self) -> int:
        return sum(1 + len(tags) for tags in self._tags.values())


@functools.cache
def names() -> Names:
    """The names that the installed timm has.

    Raises:
        ZooError: timm is not installed, or is not laid out as expected.
    """
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        raise ZooError("timm is not installed; try: pip install timm")
    architectures: set[str] = set()
    weights: dict[str, set[str]] = {}
    for file in (Path(found.origin).parent / "models").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        architectures.update(_MODEL.findall(text))
        for architecture, tag in _WEIGHTS.findall(text):
            if tag != "untrained":
                weights.setdefault(architecture, set()).add(tag)
    if not architectures:
        raise ZooError("no model names were found in the installed timm; tell the author of plugin 'timm'")
    return Names({name: frozenset(weights.get(name, ())) for name in sorted(architectures)})
