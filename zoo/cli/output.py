"""Printing: tables that fit the terminal, and JSON. (Rich would cost `zoo list` a third of its time.)"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

#: A last column narrower than this is not worth wrapping.
NARROWEST = 24


def add_verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int], help: str, example: str
) -> argparse.ArgumentParser:
    """A sub-command whose help ends with an example."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=help,
        description=help,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table. On a terminal the last column wraps to fit; in a pipe every row is one line."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = shutil.get_terminal_size().columns - indent if sys.stdout.isatty() else 0
    if room >= NARROWEST:
        widths[-1] = min(widths[-1], room)
    for row in (columns, ["-" * width for width in widths], *cells):
        *first, last = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines = textwrap.wrap(last, room) if room >= NARROWEST else [last]
        print("  ".join([*first, *lines[:1]]).rstrip())
        for line in lines[1:]:
            print(" " * indent + line.rstrip())


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    json.dump(data, sys.stdout, indent=2, default=str)
    print()


def print_result(data: Any, text: Callable[[], None], *, as_json: bool, notes: Iterable[str] = ()) -> int:
    """How a verb ends that has done its work: notes for its user, then JSON, or else the text."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print_json(data)
    else:
        text()
    return 0
