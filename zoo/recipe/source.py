"""YAML text -> a tree of values that know where they stand.

Built from PyYAML's event stream, which shows what its loaders hide: the place of every entry, keys
given twice, tags, and whether a word was quoted. No object is ever constructed from a tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from zoo.config import describe, join
from zoo.errors import suggest
from zoo.recipe.errors import Mistake, Origin, Source
from zoo.recipe.scalar import Ambiguous, Scalar, scalar

#: A recipe beyond these is no recipe; they stop texts that expand without end.
MAX_CHARACTERS = 1_000_000
MAX_ENTRIES = 10_000
MAX_DEPTH = 50

#: A name, or the full name of a component.
_KEY = re.compile(r"\w[\w-]*(/\w[\w-]*)?")


@dataclass(frozen=True)
class Node:
    """One value and the place of its entry (that of its key, or of the list item)."""

    value: Scalar | dict[str, Node] | list[Node]
    origin: Origin


def plain(node: Node) -> Any:
    """The values alone: dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """(dotted path, node) for the node and everything below it; list items are numbered from 0."""
    yield path, node
    for key, child in children(node):
        yield from walk(child, join(path, key))


def children(node: Node) -> Iterator[tuple[str, Node]]:
    if isinstance(node.value, dict):
        yield from node.value.items()
    elif isinstance(node.value, list):
        yield from ((str(index), child) for index, child in enumerate(node.value))


def from_plain(value: Any, source: Source, mistakes: list[Mistake], path: str = "") -> Node:
    """A tree from Python data: mappings, lists or tuples, and scalars."""
    origin = Origin(source)
    if path.count(".") >= MAX_DEPTH:
        mistakes.append(Mistake(0, path, f"is nested deeper than {MAX_DEPTH} levels", origin))
        return Node(None, origin)
    if isinstance(value, Mapping):
        entries: dict[str, Node] = {}
        for key, item in value.items():
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                mistakes.append(Mistake(0, path, _bad_key(key), origin))
                continue
            entries[key] = from_plain(item, source, mistakes, join(path, key))
        return Node(entries, origin)
    if isinstance(value, (list, tuple)):
        items = [from_plain(item, source, mistakes, join(path, str(i))) for i, item in enumerate(value)]
        return Node(items, origin)
    if value is not None and not isinstance(value, (bool, int, float, str)):
        mistakes.append(Mistake(0, path, f"{describe(value)} is not plain data", origin))
        return Node(None, origin)
    return Node(value, origin)


def read(source: Source, mistakes: list[Mistake]) -> Node | None:
    """The tree of a YAML text; mistakes are appended. `None` if the text cannot be read at all."""
    origin = Origin(source)
    if len(source.text) > MAX_CHARACTERS:
        mistakes.append(Mistake(0, "", f"is longer than {MAX_CHARACTERS:,} characters", origin))
        return None
    try:
        return _Reader(source, mistakes).document()
    except _Stop as stop:
        mistakes.append(stop.mistake)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = replace(origin, line=mark.line + 1, column=mark.column + 1) if mark else origin
        mistakes.append(Mistake(0, "", f"not valid YAML: {_in_words(error, place)}", place))
    except yaml.reader.ReaderError as error:
        before = source.text[: error.position]
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        message = f"the character U+{int(error.character):04X} is not allowed in YAML"
        mistakes.append(Mistake(0, "", message, replace(origin, line=line, column=column)))
    return None


class _Stop(Exception):
    """A mistake after which the rest of the text means nothing."""

    def __init__(self, mistake: Mistake) -> None:
        self.mistake = mistake


class _Reader:
    """One pass over the events of one text."""

    def __init__(self, source: Source, mistakes: list[Mistake]) -> None:
        self.source, self.mistakes = source, mistakes
        self.events: Iterator[Any] = yaml.parse(source.text, Loader=yaml.SafeLoader)
        self.anchors: dict[str, tuple[Node, int]] = {}  # the node, and how many entries it holds
        self.entries = 0

    def document(self) -> Node | None:
        next(self.events)  # stream start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            self.mistakes.append(Mistake(0, "", "is empty", Origin(self.source)))
            return None
        root = self.node(next(self.events), "", None, 0)
        next(self.events)  # document end
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.stop("", "holds more than one document; a recipe is one", self.place(after))
        return root

    def node(self, event: Any, path: str, origin: Origin | None, depth: int) -> Node:
        """The node that starts with `event`; `origin` is the place of its key."""
        origin = origin or self.place(event)
        before, self.entries = self.entries, self.entries + 1
        if self.entries > MAX_ENTRIES:
            self.stop(path, f"the recipe holds more than {MAX_ENTRIES:,} entries", origin)
        if depth > MAX_DEPTH:
            self.stop(path, f"is nested deeper than {MAX_DEPTH} levels", origin)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path, origin)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.mistake(path, f"the tag {tag} is not allowed: a recipe holds plain data", origin)
        node = Node(self.content(event, path, origin, depth), origin)
        if event.anchor is not None:
            self.anchors[event.anchor] = node, self.entries - before
        return node

    def content(self, event: Any, path: str, origin: Origin, depth: int) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(item, join(path, str(len(items))), None, depth + 1))
            return items
        if event.style is not None or event.tag is not None:
            return event.value
        try:
            return scalar(event.value)
        except Ambiguous as error:
            self.mistake(path, str(error), origin)
            return event.value

    def mapping(self, path: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            place = self.place(key)
            if not isinstance(key, yaml.ScalarEvent):
                self.stop(path, "a key must be a plain word", place)
            value = next(self.events)
            if isinstance(value, yaml.ScalarEvent):
                place = replace(place, end=max(place.end, self.end(value, place.line)))
            name: str = key.value
            if not _KEY.fullmatch(name):
                self.mistake(path, _bad_key(name), place)
                name = f"?{len(entries)}"
            elif name in entries:
                first = entries[name].origin
                message = f"the key {name!r} is given twice, first in line {first.line}"
                self.mistake(join(path, name), message, place)
            node = self.node(value, join(path, name), place, depth + 1)
            if not name.startswith("?"):
                entries[name] = node
        return entries

    def alias(self, event: Any, path: str, origin: Origin) -> Node:
        if event.anchor not in self.anchors:
            hint = suggest(event.anchor, self.anchors)
            self.stop(path, f"the alias *{event.anchor} stands for nothing above it.{hint}", origin)
        node, size = self.anchors[event.anchor]
        self.entries += size
        if self.entries > MAX_ENTRIES:
            self.stop(path, f"the recipe's aliases expand to more than {MAX_ENTRIES:,} entries", origin)
        return replace(node, origin=origin)

    def place(self, event: Any) -> Origin:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        return Origin(self.source, line, column, max(column + 1, self.end(event, line)))

    def end(self, event: Any, line: int) -> int:
        """The column after an event that ends in this line, else 0."""
        return event.end_mark.column + 1 if event.end_mark.line + 1 == line else 0

    def mistake(self, path: str, message: str, origin: Origin) -> None:
        self.mistakes.append(Mistake(0, path, message, origin))

    def stop(self, path: str, message: str, origin: Origin) -> Any:
        raise _Stop(Mistake(0, path, message, origin))


def _bad_key(key: Any) -> str:
    if key == "<<":
        return "merge keys (<<) are not supported: use include, or ${a.b} for a single value"
    if isinstance(key, str) and "." in key:
        return f"the key {key!r} has a dot: write nested mappings (dots are for the command line)"
    return f"the key {key!r} must consist of letters, digits, '_' and '-'"


def _in_words(error: yaml.MarkedYAMLError, place: Origin) -> str:
    text = str(error.problem or error.context)
    if error.context and error.context_mark and error.context_mark.line + 1 != place.line:
        text += f" {error.context} that starts in line {error.context_mark.line + 1}"
    if place.line and "${" in place.source.line(place.line):
        return f'{text} (inside [...] and {{...}} an interpolation needs quotes: "${{a.b}}")'
    if "'\\t'" in text:
        return f"{text} (write spaces, not tabs)"
    return text
