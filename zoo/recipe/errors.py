"""Where a value comes from, and what a mistake in a recipe looks like on paper.

tiny.yaml:4:3: trainer.max_epoch: there is no key 'max_epoch' here. Did you mean 'max_epochs'?
  4 |   max_epoch: 3
    |   ^^^^^^^^^^^^
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from zoo.errors import ZooError

#: What YAML counts as the end of a line; `str.splitlines` knows more and would lose count.
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_WIDEST_LINE = 100


@dataclass(frozen=True)
class Source:
    """A text that recipes are read from: a file, or one override of the command line.

    name: as the user knows it. rank: files 0, then the overrides in their order. folder: of the file;
    empty for an override, which counts from the working folder.
    """

    name: str
    text: str = ""
    rank: int = 0
    folder: str = ""

    def line(self, number: int) -> str:
        """Line `number` (from 1), with anything unprintable replaced."""
        return printable(_LINE_END.split(self.text)[number - 1])


@dataclass(frozen=True)
class Origin:
    """Where an entry stands: lines and columns count from 1, line 0 means the source as a whole.

    end: the column after the entry's last character on that line.
    variables: the environment variables its value was read from.
    """

    source: Source
    line: int = 0
    column: int = 0
    end: int = 0
    variables: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f"{self.source.name}:{self.line}:{self.column}" if self.line else self.source.name
        return f"{place}, from {', '.join(self.variables)}" if self.variables else place

    def excerpt(self) -> str:
        """The source line with the entry underlined, or nothing."""
        if not self.line:
            return ""
        text, start = self.source.line(self.line), self.column - 1
        width = max(1, min(self.end, len(text) + 1) - self.column)
        if len(text) > _WIDEST_LINE:
            cut = max(0, min(start - _WIDEST_LINE // 3, len(text) - _WIDEST_LINE))
            text, start = text[cut : cut + _WIDEST_LINE], start - cut
            width = max(1, min(width, _WIDEST_LINE - start))
        number = f"{self.line:>3}"
        return f"{number} | {text.rstrip()}\n{' ' * len(number)} | {' ' * start}{'^' * width}"


@dataclass(frozen=True)
class Mistake:
    """One thing to mend. level: 0 syntax, 1 schema, 2 names, 3 parameters, 4 contract."""

    level: int
    path: str
    message: str
    origin: Origin

    def headline(self) -> str:
        """`file:line:column: path: message`."""
        return ": ".join(filter(None, [str(self.origin), self.path, self.message]))

    def __str__(self) -> str:
        return "\n".join(filter(None, [self.headline(), self.origin.excerpt()]))


class RecipeError(ZooError, ValueError):
    """Every mistake of one recipe, by file and line."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = in_order(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def printable(text: str) -> str:
    """The text on one line and without terminal controls."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "?" for c in text)


def in_order(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """By source and line; of an entry, only what the lowest level says: the rest follows from it."""
    kept: dict[tuple[Origin, str], Mistake] = {}
    for mistake in sorted(mistakes, key=lambda m: m.level):
        first = kept.setdefault((mistake.origin, mistake.path), mistake)
        if first.level == mistake.level and first.message != mistake.message:
            kept[mistake.origin, f"{mistake.path}\n{mistake.message}"] = mistake
    return tuple(sorted(kept.values(), key=_place))


def _place(mistake: Mistake) -> tuple[int, str, int, int, str]:
    origin = mistake.origin
    return origin.source.rank, origin.source.name, origin.line, origin.column, mistake.path
