"""Files, what they include, and overrides, merged into one tree in which every entry knows its layer.

included files in their order, depth first < the file itself < overrides of the command line

Mappings merge, everything else replaces. Two entries are more than text: another component `name`
drops the inherited `params`, which were meant for the earlier one; and of two settings that exclude
each other (`max_epochs`, `max_steps`) the later layer's wins. Both leave a note.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, cast

from zoo.config import describe, join
from zoo.errors import suggest
from zoo.recipe.errors import Mistake, Origin, Source, printable
from zoo.recipe.giving_way import giving_way
from zoo.recipe.source import Node, plain, read, walk
from zoo.recipe.sweep_file import is_sweep

if TYPE_CHECKING:
    from zoo.catalogue import Catalogue

MAX_INCLUDES = 5
MAX_FILES = 100
PACKAGED = "pkg:"

_EXCLUSIVE = (("max_epochs", "max_steps"), ("at_least", "at_most"))


class Layers:
    """Reads and merges. `mistakes`, `notes` and `sources` (main file first) grow on the way."""

    def __init__(self, packaged: Mapping[str, Path], catalogue: Catalogue | None = None) -> None:
        self.packaged, self.catalogue = packaged, catalogue
        self.mistakes: list[Mistake] = []
        self.notes: list[str] = []
        self.sources: list[Source] = []
        #: Whether some text could not be read, so that what it would have said is missing.
        self.incomplete = False

    def file(self, path: Path, place: Origin | None = None, chain: tuple[Path, ...] = ()) -> list[Node]:
        """The layers of a file: what it includes, then itself. None at all if it cannot be read.

        place: where it was included. chain: the files on the way there.
        """
        shown = _shown(path)
        try:
            source = Source(shown, path.read_bytes().decode("utf-8-sig"), folder=str(path.parent))
        except OSError as error:
            return self.lost(f"cannot read {shown!r}: {error.strerror}", place or Origin(Source(shown)))
        except UnicodeDecodeError as error:
            message = f"{shown!r} is not UTF-8 text (byte {error.start})"
            return self.lost(message, place or Origin(Source(shown)))
        self.sources.append(source)
        node = read(source, self.mistakes)
        if node is None:
            self.incomplete = True
            return []
        return self.with_includes(node, path, (*chain, path.resolve()))

    def with_includes(self, node: Node, path: Path, chain: tuple[Path, ...] = ()) -> list[Node]:
        """The layers below `node`, then `node`. path: the file it is from, which relative names start at."""
        if not isinstance(node.value, dict):
            message = f"a recipe is a mapping (key: value), not {describe(plain(node))}"
            return self.lost(message, node.origin)
        if is_sweep(node):
            message = (
                f"this is a sweep, not a recipe: zoo sweep {_shown(path)} (with --list it is only checked)"
            )
            return self.lost(message, node.origin)
        own = {key: child for key, child in node.value.items() if key != "include"}
        items = enumerate(self.includes(node.value.get("include")))
        below = [layer for index, item in items for layer in self.include(item, index, path, chain)]
        return [*below, Node(own, node.origin)]

    def includes(self, node: Node | None) -> list[Node]:
        if node is None:
            return []
        if isinstance(node.value, list):
            return node.value
        hint = f": include: [{node.value}]" if isinstance(node.value, str) else ""
        self.mistake("include", f"expected a list of files, got {describe(plain(node))}{hint}", node.origin)
        return []

    def include(self, item: Node, index: int, path: Path, chain: tuple[Path, ...]) -> list[Node]:
        where = f"include.{index}"
        if not isinstance(item.value, str):
            message = f"expected the name of a file, got {describe(plain(item))}"
            return self.lost(message, item.origin, where)
        target = self.locate(item.value, path)
        if target is None:
            known = [PACKAGED + name for name in self.packaged]
            message = f"there is no packaged file {item.value!r}.{suggest(item.value, known)}"
        elif not os.path.isfile(target):
            beside = target.parent.iterdir() if os.path.isdir(target.parent) else ()
            names = [file.name for file in beside if file.suffix == ".yaml" and file.resolve() not in chain]
            message = f"there is no file {_shown(target)!r}.{suggest(target.name, names, list_up_to=0)}"
        elif target.resolve() in chain:
            message = f"the includes form a loop: {_way(*chain, target)}"
        elif len(chain) > MAX_INCLUDES:
            message = f"includes are nested deeper than {MAX_INCLUDES}: {_way(*chain, target)}"
        elif len(self.sources) >= MAX_FILES:
            message = f"the recipe consists of more than {MAX_FILES} files"
        else:
            return self.file(target, item.origin, chain)
        return self.lost(message, item.origin, where)

    def locate(self, name: str, path: Path) -> Path | None:
        if name.startswith(PACKAGED):
            return self.packaged.get(name.removeprefix(PACKAGED))
        return path.parent / name

    def overrides(self, texts: Sequence[str]) -> Node:
        """One layer from `key=value` arguments; where two name the same entry, the later wins."""
        root: dict[str, Node] = {}
        for number, text in enumerate(texts, start=1):
            # Not by its number: a sweep's file may say others before it.
            source = Source(f"command line override ({printable(text)})", rank=number)
            key, equals, value = text.partition("=")
            names = key.strip().split(".")
            if not equals or not all(names):
                message = "an override reads key=value, e.g. trainer.max_epochs=3"
                self.mistakes.append(Mistake(0, "", message, Origin(source)))
            elif names[0] == "include":
                self.mistakes.append(Mistake(0, "include", "cannot be overridden", Origin(source)))
            else:
                self.override(root, names, value, source)
        return Node(root, Origin(Source("command line")))

    def override(self, root: dict[str, Node], names: list[str], value: str, source: Source) -> None:
        origin = Origin(source)
        found: list[Mistake] = []
        if value.strip().startswith((">", "|")):  # of one line, a version (">=0.2") and never a block of text
            node: Node | None = Node(value.strip(), origin)
        else:
            node = read(Source(source.name, value), found) if value.strip() else Node(None, origin)
        for mistake in found:
            path = join(".".join(names), mistake.path)
            self.mistakes.append(Mistake(0, path, mistake.message, origin))
        if node is None:
            return
        entries = root
        for name in names[:-1]:
            below = entries.get(name)
            if below is None or not isinstance(below.value, dict):
                below = entries[name] = Node({}, origin)
            entries = below.value  # type: ignore[assignment]
        entries[names[-1]] = _moved(node, origin)

    def merged(self, layers: Sequence[Node]) -> Node:
        """One tree from layers, the lowest first."""
        return reduce(self.upon, layers)

    def upon(self, base: Node, top: Node) -> Node:
        """A layer upon those below it, without what was meant for something else."""
        if self.catalogue is not None and isinstance(base.value, dict) and isinstance(top.value, dict):
            for path, why in giving_way(plain(base), plain(top), self.catalogue).items():
                self.notes.append(f"{path} ({_origin(base, path)}) is dropped: {why}")
                base = _without(base, path.split("."))
        return self.merge(base, top)

    def merge(self, base: Node, top: Node, path: str = "") -> Node:
        """`top` upon `base`. Every entry keeps the origin of the layer whose value won."""
        if not isinstance(base.value, dict) or not isinstance(top.value, dict):
            self.check_list(base, top, path)
            return top
        merged = self.without_superseded(base.value, top.value, path)
        for key, child in top.value.items():
            merged[key] = self.merge(merged[key], child, join(path, key)) if key in merged else child
        # A mapping stands where a file writes it; an override has no line to show.
        return Node(merged, top.origin if top.origin.line else base.origin)

    def check_list(self, base: Node, top: Node, path: str) -> None:
        if not isinstance(base.value, list) or not isinstance(top.value, dict):
            return
        numbered = [child for key, child in top.value.items() if key.isdigit()]
        if numbered:
            message = "a list is replaced as a whole: give all of it, e.g. [a, b]"
            self.mistake(path, message, numbered[0].origin)

    def without_superseded(self, base: dict[str, Node], top: dict[str, Node], path: str) -> dict[str, Node]:
        """The inherited entries that `top` leaves in force."""
        kept = dict(base)
        if "name" in base and "name" in top and not _same_name(base["name"].value, top["name"].value):
            for key in ("params", "preset"):
                if key in kept:
                    del kept[key]
                    self.notes.append(
                        f"{join(path, key)} of {base['name'].value} ({base[key].origin}) is dropped: "
                        f"{join(path, 'name')} is now {top['name'].value}"
                    )
        for pair in _EXCLUSIVE:
            given = [key for key in pair if key in top and top[key].value is not None]
            for other in pair:
                if len(given) == 1 and other not in top and kept.pop(other, None) is not None:
                    self.notes.append(
                        f"{join(path, other)} ({base[other].origin}) gives way to {join(path, given[0])}"
                    )
        return kept

    def mistake(self, path: str, message: str, origin: Origin) -> None:
        self.mistakes.append(Mistake(0, path, message, origin))

    def lost(self, message: str, origin: Origin, path: str = "") -> list[Node]:
        """Note a text that cannot be had. Returns its layers: none."""
        self.incomplete = True
        self.mistake(path, message, origin)
        return []


def _without(node: Node, keys: Sequence[str]) -> Node:
    """The tree without the entry at this path."""
    entries = dict(cast(dict[str, Node], node.value))
    if len(keys) == 1:
        del entries[keys[0]]
    else:
        entries[keys[0]] = _without(entries[keys[0]], keys[1:])
    return Node(entries, node.origin)


def _origin(root: Node, path: str) -> Origin:
    return next(node.origin for place, node in walk(root) if place == path)


def _same_name(old: object, new: object) -> bool:
    """Whether two names can mean one component: equal, or one is the other's short name."""
    if not isinstance(old, str) or not isinstance(new, str):
        return old == new
    old, new = old.replace("-", "_"), new.replace("-", "_")
    one_is_short = ("/" in old) != ("/" in new)
    return old == new or (one_is_short and old.rpartition("/")[2] == new.rpartition("/")[2])


def _moved(node: Node, origin: Origin) -> Node:
    """The tree with one origin throughout: what an override brings stands nowhere but in it."""
    if isinstance(node.value, dict):
        return Node({key: _moved(child, origin) for key, child in node.value.items()}, origin)
    if isinstance(node.value, list):
        return Node([_moved(child, origin) for child in node.value], origin)
    return Node(node.value, origin)


def _way(*files: Path) -> str:
    return " -> ".join(_shown(file) for file in files)


def _shown(path: Path) -> str:
    """A path as short as it can be named from here."""
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
