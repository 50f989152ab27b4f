"""`zoo check`: hold components to what they claim."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

from zoo.catalogue import catalogue
from zoo.cli.output import add_verb, print_json, print_table
from zoo.errors import ZooError


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "check",
        check,
        "Hold components to what they claim: causal, streaming, padding, cost, ...",
        "zoo check aaren/aaren --only no_future --only streams",
    )
    parser.add_argument("name", nargs="?", help="a component, a plugin, or a pattern such as 'aaren/*'")
    parser.add_argument("--only", action="append", metavar="CHECK", help="run only this check (repeatable)")
    parser.add_argument("--slow", action="store_true", help="run the slow checks (compilers) too")
    parser.add_argument("--list", action="store_true", help="list the checks (of NAME, or all)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def check(options: argparse.Namespace) -> int:
    """Exit code 1 where a check failed, or a known limit did not."""
    if options.list:
        return _list(options)
    if options.name is None:
        raise ZooError("zoo check needs a name, e.g. zoo check core/softmax; 'zoo check --list' lists checks")
    from zoo.testing.results import Result, chosen, find, run_check

    found = catalogue()
    results: list[Result] = []
    left_out = 0
    for spec in find(found, options.name):
        for item, params in chosen(spec, found, only=options.only, slow=options.slow):
            results.append(run_check(item, spec, found, params))
            if not results[-1].ok and not options.json:
                print(_told(results[-1], results[:-1]), file=sys.stderr, flush=True)
        if not options.slow and not options.only:
            left_out += sum(item.cost == "slow" for item, _ in chosen(spec, found))
    if options.only and not results:
        raise ZooError(f"{options.name!r} is not held to {', '.join(options.only)}")
    if options.json:
        print_json([result.to_dict() for result in results])
    else:
        _print(results)
        if left_out:
            print(f"{left_out} slow check{'s' * (left_out > 1)} not run (--slow)")
    return 0 if all(result.ok for result in results) else 1


def _print(results: list[Any]) -> None:
    """One row per component and variant, then what is not simply passed."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    seconds: Counter[tuple[str, str]] = Counter()
    for result in results:
        key = (result.kind, result.subject)
        rows.setdefault(key, Counter())[result.outcome] += 1
        seconds[key] += result.seconds
    outcomes = ("passed", "failed", "expected_failure", "unexpected_pass", "skipped")
    shown = [o for o in outcomes if o == "passed" or any(count[o] for count in rows.values())]
    print_table(
        ["kind", "component", *(o.replace("_", " ") for o in shown), "seconds"],
        [[*key, *(n[o] for o in shown), f"{seconds[key]:.1f}"] for key, n in rows.items()],
    )
    for result in results:
        if result.ok and result.outcome != "passed":
            print(f"{_label(result)}: {result.detail}")


def _list(options: argparse.Namespace) -> int:
    from zoo.testing.checks import CHECKS
    from zoo.testing.results import chosen, find

    wanted = list(CHECKS)
    if options.name is not None:
        found = catalogue()
        each = [chosen(spec, found, only=options.only) for spec in find(found, options.name)]
        names = {item.name for items in each for item, _ in items}
        wanted = [item for item in CHECKS if item.name in names]
    if options.json:
        print_json([{"name": c.name, "cost": c.cost, "kinds": c.kinds, "summary": c.summary} for c in wanted])
    else:
        print_table(
            ["check", "cost", "kinds", "what holds"],
            [[c.name, c.cost, ", ".join(c.kinds), c.summary] for c in wanted],
        )
    return 0


def _told(result: Any, earlier: list[Any]) -> str:
    """A failure; a reason that was told before, such as a module that cannot be imported, in two words."""
    same = next((r for r in earlier if (r.subject, r.detail) == (result.subject, result.detail)), None)
    return f"{_label(result)}: {f'as {same.check}' if same else result.detail}"


def _label(result: Any) -> str:
    return f"{result.outcome.replace('_', ' ')}: {result.kind} {result.subject}, {result.check}"
