"""`zoo sweep`: train many points of one recipe (torch-free but for its workers)."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.output import add_verb, print_json, print_table
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.sweep import Sweep

#: What each state means to whoever reads the table.
MEANING = {
    "finished": "finished",
    "failed": "failed; --retry trains it again",
    "interrupted": "begun; goes on",
    "new": "to be trained",
}


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "sweep",
        sweep,
        "Train every combination of values; what is finished is not trained again.",
        "zoo sweep aaren/digits optim.lr=1e-3,3e-3 seed=0..2 --jobs 2",
    )
    parser.add_argument("recipe", help="plugin/recipe, or the path of a YAML file")
    parser.add_argument(
        "values",
        nargs="*",
        default=[],
        metavar="KEY=V1,V2",
        help="values to combine: optim.lr=1e-3,3e-3; seed=0..4; one value holds for all points",
    )
    parser.add_argument(
        "--points", metavar="FILE", help="a YAML list of fragments of the recipe, one per point"
    )
    parser.add_argument(
        "--match",
        choices=["params", "flops"],
        help="give every model the width at which it is as large as that of the first point",
    )
    parser.add_argument("--html", metavar="FILE", help="when all is trained, write the page of 'zoo compare'")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="points trained at the same time")
    parser.add_argument("--retry", action="store_true", help="train failed points again")
    parser.add_argument("--list", action="store_true", help="show the points and what became of them")
    parser.add_argument("--json", action="store_true", help="print the points as JSON at the end")


def sweep(options: argparse.Namespace) -> int:
    from zoo.sweep import check_points, combine, make_sweep, parse_axes, read_rows

    if options.jobs < 1:
        raise ZooError(f"--jobs must be at least 1, got {options.jobs}")
    rows = read_rows(Path(options.points)) if options.points else []
    combinations = combine(parse_axes(options.values), rows)
    points = check_points(options.recipe, combinations)
    if options.match:
        from zoo.matching import of_one_size

        _say(f"matching the {options.match} of {len(points)} points with those of the first")
        points = check_points(options.recipe, of_one_size(options.recipe, combinations, options.match))
    swept = make_sweep(points)
    if not options.list:
        listed = ["--points", options.points] if options.points else []
        swept.write([options.recipe, *options.values, *listed])
        if code := _train(swept, options):
            return code
    if options.list or options.json:
        _show(swept, as_json=options.json)
    else:
        _compare(swept, options.html)
    return 0


def _train(swept: Sweep, options: argparse.Namespace) -> int:
    states = Counter(swept.states().values())
    _say(f"{len(swept.points)} points, {_counted(states)}; {swept.folder}")
    began, done, failed = time.monotonic(), states["finished"], []
    try:
        for point, outcome in swept.train(workers=options.jobs, retry=options.retry):
            done += outcome.ending == "finished"
            what = {"finished": outcome.run, "taken": "another process is training it"}
            told = what.get(outcome.ending, outcome.error) or outcome.ending
            _say(f"[{done}/{len(swept.points)}] {' '.join(point.overrides)}: {told}")
            if outcome.ending == "failed":
                failed.append(point)
    except KeyboardInterrupt:
        left = len(swept.points) - Counter(swept.states().values())["finished"]
        _say(f"Interrupted with {left} of {len(swept.points)} points to go. The same command goes on.")
        return 130
    _say(f"took {time.monotonic() - began:.0f} s")
    still = [point for point in swept.points if swept.failure(point).is_file()]
    for point in still:
        reason = swept.failure(point).read_text(encoding="utf-8")
        _say(f"failed: {point}: {reason}\n  its log: {swept.log(point)}")
    if still:
        _say(f"{len(still)} of {len(swept.points)} points failed; --retry trains them again")
    return 1 if still else 0


def _compare(swept: Sweep, html: str | None) -> None:
    from zoo.catalogue import catalogue
    from zoo.cli.compare import show, write_page
    from zoo.comparison import collect, compare, page

    compared = compare(collect(swept.runs().values()), catalogue())
    show(compared, "table")
    if html:
        write_page(Path(html), page(compared, title=swept.points[0].loaded.recipe.title or "Comparison"))


def _show(swept: Sweep, *, as_json: bool) -> None:
    states, runs = swept.states(), swept.runs()
    if as_json:
        print_json(
            [
                {
                    "id": point.id,
                    "overrides": list(point.overrides),
                    "state": states[point.id],
                    "run": str(runs[point.id].path) if point.id in runs else None,
                    "metrics": runs[point.id].info.get("metrics") if point.id in runs else None,
                }
                for point in swept.points
            ]
        )
        return
    rows = [[point.id, " ".join(point.overrides), MEANING[states[point.id]]] for point in swept.points]
    print_table(["point", "overrides", "state"], rows)


def _counted(states: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
