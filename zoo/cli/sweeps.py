"""`zoo sweep`: train many points of recipes (torch-free but for its workers)."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.output import add_verb, print_json, print_table
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.matching import Measure
    from zoo.sweep import Point, SamplerName, Settings, Sweep, Trial

INTERRUPTED = 130
#: Options that a sweep's file can give as well; the first four say what is trained.
OPTIONS = ("match", "sampler", "trials", "sampler_seed", "jobs", "on", "html")
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
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="RECIPE|SWEEP|KEY=V1,V2",
        help="recipes (plugin/recipe, or paths of YAML files), or the file of a sweep, which says all that "
        "follows; and values to combine: optim.lr=1e-3,3e-3; seed=0..4; one value holds for all points",
    )
    parser.add_argument(
        "--points", metavar="FILE", help="a YAML list of fragments of the recipe, one per point"
    )
    parser.add_argument(
        "--match",
        choices=["params", "flops"],
        help="give every model the width at which it is as large as that of the first point",
    )
    parser.add_argument(
        "--sampler",
        choices=["random", "tpe"],
        help="draw points instead of training all: evenly, or where earlier ones did well (archzoo[optuna])",
    )
    parser.add_argument("--trials", type=int, metavar="N", help="how many points a sampler draws")
    parser.add_argument("--sampler-seed", type=int, metavar="N", help="of what it draws (0)")
    parser.add_argument("--html", metavar="FILE", help="when all is trained, write the page of 'zoo compare'")
    parser.add_argument("--jobs", type=int, metavar="N", help="points trained at the same time (1)")
    parser.add_argument(
        "--on",
        choices=["here", "ray"],
        help="in processes of this machine (here), or on a Ray cluster (archzoo[ray])",
    )
    parser.add_argument("--retry", action="store_true", help="train failed points again")
    parser.add_argument("--list", action="store_true", help="show the points and what became of them")
    parser.add_argument("--json", action="store_true", help="print the points as JSON at the end")


def sweep(options: argparse.Namespace) -> int:
    from zoo.sweep import check_points, combine, make_sweep

    settings = _settings(options)
    if settings.sampler:
        return _search(settings, settings.sampler, options)
    if settings.trials is not None:
        raise ZooError("a number of trials is for a sampler: --sampler random or tpe")
    combinations = combine(settings.axes, settings.rows)
    points = check_points(settings.recipes, combinations, places=settings.places)
    if settings.match:
        points = _matched(settings.recipes, combinations, settings.match)
    swept = make_sweep(points)
    if not options.list:
        swept.write(_asked(options))
        if code := _train(swept, settings, retry=options.retry):
            return code
    return _end(swept, settings, options)


def _settings(options: argparse.Namespace) -> Settings:
    """What is asked for: a sweep's file, if one is named, and upon it what the command line says."""
    from zoo.sweep import Settings, find_sweep, parse_axes, read_points, read_sweep

    if options.jobs is not None and options.jobs < 1:
        raise ZooError(f"--jobs must be at least 1, got {options.jobs}")
    named = [each for each in options.arguments if "=" not in each]
    files = {name: path for name in named if (path := find_sweep(name)) is not None}
    if len(files) > 1:
        raise ZooError(f"these are {len(files)} sweeps, {' and '.join(files)}: train one after the other")
    settings = read_sweep(*files.values()) if files else Settings()
    said = {name: getattr(options, name) for name in OPTIONS}
    if options.points:
        rows, places = read_points(Path(options.points))
        said |= {"rows": rows, "places": {**settings.places, **places}}
    recipes = [name for name in named if name not in files]
    axes = parse_axes([each for each in options.arguments if "=" in each])
    settings = settings.overridden(recipes=recipes, axes=axes, **said)
    if not settings.recipes:
        raise ZooError("name a recipe to sweep over: zoo sweep RECIPE KEY=V1,V2; 'zoo recipe list' shows all")
    return settings


def _search(settings: Settings, sampler: SamplerName, options: argparse.Namespace) -> int:
    """Draw trials and train them, some at a time; what failed does not end the search."""
    from zoo.sweep import make_search, reached

    for given, what in (("points", settings.rows), ("match", settings.match)):
        if what:
            raise ZooError(f"{given} says itself what is trained; leave it or the sampler out")
    search = make_search(
        settings.recipes,
        settings.axes,
        sampler=sampler,
        trials=settings.trials,
        seed=settings.sampler_seed,
        places=settings.places,
    )
    swept, trials, worst = search.sweep(), [], 0
    for drawn in search.rounds(swept):
        trials += drawn
        for trial in drawn:
            if trial.problem:
                _say(f"trial {trial.number} ({trial}) cannot be: {trial.problem}")
        swept = replace(swept, points=_joined(swept.points, drawn))
        if options.list:
            if set(swept.states().values()) <= {"finished", "failed"}:
                continue  # what is drawn next is known
            break
        swept.write(_asked(options))
        ahead = replace(swept, points=_joined((), drawn))
        code = _train(ahead, settings, retry=options.retry) if ahead.points else 0
        if code == INTERRUPTED:
            return code
        worst = max(worst, code)
    if not swept.points:
        raise ZooError(f"none of the {len(trials)} trials is a recipe that can be trained")
    known = [(value, trial) for trial in trials if (value := reached(trial, swept.runs())) is not None]
    if known:
        plan = swept.points[0].loaded.plan
        value, best = (max if plan.mode == "max" else min)(known, key=lambda each: each[0])
        _say(f"best {plan.monitor}: {value:.4g}, trial {best.number} of {len(trials)}: {best}")
    if known or options.list:
        worst = max(worst, _end(swept, settings, options))
    return worst


def _asked(options: argparse.Namespace) -> list[str]:
    """The arguments and options that say what is trained."""
    given = {name: getattr(options, name) for name in ("points", *OPTIONS[:4])}
    flags = [
        (f"--{name.replace('_', '-')}", str(value)) for name, value in given.items() if value is not None
    ]
    return [*options.arguments, *(word for pair in flags for word in pair)]


def _joined(points: Sequence[Point], trials: Sequence[Trial]) -> tuple[Point, ...]:
    """Points with those of the trials, each once: two drawings may come to the same."""
    every = [*points, *(point for trial in trials for point in trial.points)]
    return tuple({point.id: point for point in every}.values())


def _end(swept: Sweep, settings: Settings, options: argparse.Namespace) -> int:
    if options.list or options.json:
        _show(swept, as_json=options.json)
    else:
        _compare(swept, settings)
    return 0


def _matched(
    recipes: Sequence[str], combinations: Sequence[tuple[str, ...]], measure: Measure
) -> list[Point]:
    """The points, at the widths at which all of a recipe are as large as its first one."""
    from zoo.matching import of_one_size
    from zoo.sweep import check_points

    _say(f"matching the {measure} of all models of a recipe with those of its first point")
    points: list[Point] = []
    for recipe in recipes:
        points += check_points(recipe, of_one_size(recipe, combinations, measure))
    return points


def _train(swept: Sweep, settings: Settings, *, retry: bool) -> int:
    from zoo.sweep import ending_in_order

    states = Counter(swept.states().values())
    many = len(swept.points)
    _say(f"{many} point{'s' * (many > 1)}, {_counted(states)}; {swept.folder}")
    began, done = time.monotonic(), states["finished"]
    try:
        outcomes = swept.train(workers=settings.jobs, retry=retry, on=settings.on)
        with ending_in_order(), closing(outcomes):
            for point, outcome in outcomes:
                done += outcome.ending == "finished"
                what = {"finished": outcome.run, "taken": "another process is training it"}
                told = what.get(outcome.ending, outcome.error) or outcome.ending
                _say(f"[{done}/{len(swept.points)}] {_called(point, swept)}: {told}")
    except KeyboardInterrupt:
        left = len(swept.points) - Counter(swept.states().values())["finished"]
        _say(f"Interrupted with {left} of {len(swept.points)} points to go. The same command goes on.")
        return INTERRUPTED
    _say(f"took {time.monotonic() - began:.0f} s")
    still = [point for point in swept.points if swept.failure(point).is_file()]
    for point in still:
        reason = swept.failure(point).read_text(encoding="utf-8")
        _say(f"failed: {point}: {reason}\n  its log: {swept.log(point)}")
    if still:
        _say(f"{len(still)} of {len(swept.points)} points failed; --retry trains them again")
    return 1 if still else 0


def _compare(swept: Sweep, settings: Settings) -> None:
    from zoo.catalogue import catalogue
    from zoo.cli.compare import show, write_page
    from zoo.comparison import collect_each, compare, page

    runs = swept.runs()
    counting = [runs[point.id] for point in swept.points if point.id in runs]
    compared = [compare(each, catalogue()) for each in collect_each(counting)]
    show(compared, "table")
    if settings.html:
        titles = dict.fromkeys(point.loaded.recipe.title for point in swept.points)
        title = settings.title or "; ".join(filter(None, titles)) or "Comparison"
        write_page(Path(settings.html), page(compared, title=title))


def _show(swept: Sweep, *, as_json: bool) -> None:
    states, runs = swept.states(), swept.runs()
    if as_json:
        print_json(
            [
                {
                    "id": point.id,
                    "recipe": point.recipe,
                    "overrides": list(point.overrides),
                    "state": states[point.id],
                    "run": str(runs[point.id].path) if point.id in runs else None,
                    "metrics": runs[point.id].info.get("metrics") if point.id in runs else None,
                }
                for point in swept.points
            ]
        )
        return
    rows = [[point.id, _called(point, swept), MEANING[states[point.id]]] for point in swept.points]
    print_table(["point", "overrides", "state"], rows)


def _called(point: Point, swept: Sweep) -> str:
    several = len({each.recipe for each in swept.points}) > 1
    return str(point) if several else " ".join(point.overrides) or point.recipe


def _counted(states: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
