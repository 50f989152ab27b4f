"""`zoo compare`: runs side by side, over seeds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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
        metavar="RUN|SWEEP|RECIPE|FILE",
        help="run folders, sweep folders, recipes (all their runs), or a file of --json to show again",
    )
    parser.add_argument("--metric", help="e.g. test/accuracy; by default the one that the task watches")
    parser.add_argument(
        "--by-data", action="store_true", help="runs on different data: a comparison for each, not a refusal"
    )
    parser.add_argument("--format", choices=["table", "markdown", "csv", "json"], default="table")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("--html", metavar="FILE", help="also write a page with curves")
    parser.add_argument("--title", default="", help="of the page")


def compare(options: argparse.Namespace) -> int:
    from zoo.comparison import page

    compared = _read(options) or _compare(options)
    show(compared, "json" if options.json else options.format)
    if options.html:
        names = ", ".join(each.data.partition("(")[0] for each in compared)
        title = options.title or f"{names}: {len(compared[0].groups)} settings"
        write_page(Path(options.html), page(compared, title=title))
    return 0


def _read(options: argparse.Namespace) -> list[Comparison]:
    """Comparisons from a file; none where runs are named."""
    from zoo.comparison import read_comparisons

    files = [name for name in options.runs if Path(name).suffix == ".json"]
    if not files:
        return []
    if len(options.runs) > 1:
        raise ZooError(f"a file of comparisons stands alone, got {len(options.runs)} names")
    if options.metric or options.by_data:
        raise ZooError(f"what {files[0]!r} compares is settled; --metric and --by-data are for runs")
    return read_comparisons(Path(files[0]))


def _compare(options: argparse.Namespace) -> list[Comparison]:
    from zoo.catalogue import catalogue
    from zoo.comparison import collect, collect_each, find_runs
    from zoo.comparison import compare as put_side_by_side

    runs = find_runs(options.runs)
    if options.by_data:
        collections = collect_each(runs, metric=options.metric)
    else:
        collections = [collect(runs, metric=options.metric)]
    return [put_side_by_side(each, catalogue()) for each in collections]


def show(compared: Sequence[Comparison], form: str) -> None:
    """Print comparisons in one of their forms."""
    if form == "json":
        data = [each.to_dict() for each in compared]
        print_json(data if len(data) > 1 else data[0])
        return
    for index, each in enumerate(compared):
        if index:
            print()
        if form != "table":
            print(each.markdown() if form == "markdown" else each.csv(), end="")
            continue
        if len(compared) > 1:
            print(each.data)
        heading, *rows = each.cells()
        print_table(heading, rows)
        for note in each.notes:
            print(f"note: {note}")


def write_page(path: Path, text: str) -> None:
    """Write the page and say where it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ZooError(f"the page {str(path)!r} cannot be written: {error.strerror}") from None
    print(f"page: {path}", file=sys.stderr)
