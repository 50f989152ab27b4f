"""`zoo compare`: runs side by side, over seeds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.output import add_verb, print_json, print_table
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.comparison import Comparison


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "compare",
        compare,
        "Compare runs over their seeds: score, noise, cost.",
        "zoo compare core/digits aaren/digits --html comparison.html",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN|SWEEP|RECIPE",
        help="run folders, sweep folders, or recipes: all their runs",
    )
    parser.add_argument("--metric", help="e.g. test/accuracy; by default the one that the task watches")
    parser.add_argument("--format", choices=["table", "markdown", "csv", "json"], default="table")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("--html", metavar="FILE", help="also write a page with curves")
    parser.add_argument("--title", default="", help="of the page")


def compare(options: argparse.Namespace) -> int:
    from zoo.catalogue import catalogue
    from zoo.comparison import collect, find_runs, page
    from zoo.comparison import compare as put_side_by_side

    compared = put_side_by_side(collect(find_runs(options.runs), metric=options.metric), catalogue())
    show(compared, "json" if options.json else options.format)
    if options.html:
        title = (
            options.title or f"{compared.collection.data.partition('(')[0]}: {len(compared.rows)} settings"
        )
        write_page(Path(options.html), page(compared, title=title))
    return 0


def show(compared: Comparison, form: str) -> None:
    """Print a comparison in one of its forms."""
    if form == "json":
        print_json(compared.to_dict())
    elif form == "table":
        heading, *rows = compared.cells()
        print_table(heading, rows)
        for note in compared.notes():
            print(f"note: {note}")
    else:
        print(compared.markdown() if form == "markdown" else compared.csv(), end="")


def write_page(path: Path, text: str) -> None:
    """Write the page and say where it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ZooError(f"the page {str(path)!r} cannot be written: {error.strerror}") from None
    print(f"page: {path}", file=sys.stderr)
