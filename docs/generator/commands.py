"""The command line, from its own parser; the conformance checks, and what proves them."""

from __future__ import annotations

import argparse
from typing import cast

from docs.generator.markdown import table
from tests.saboteurs import plugin as saboteurs
from zoo.cli.components import plural
from zoo.cli.main import _parser
from zoo.testing import CHECKS


def cli_page() -> str:
    parser = _parser()[0]
    blocks = [
        "# Command line",
        parser.description or "",
        "Exit codes: 0 done, 1 something failed, 2 a mistake in what was asked, 130 interrupted. Every verb "
        "takes `--plugins A,B` (only the core and these), `--no-plugin X` and `--traceback`.",
    ]
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, verb in cast("dict[str, argparse.ArgumentParser]", subparsers.choices).items():
        example = (verb.epilog or "").removeprefix("example:").strip()
        blocks += [f"## zoo {name}", verb.description or "", f"```sh\n{example}\n```"]
        rows = [argument_row(a) for a in verb._actions if not isinstance(a, argparse._HelpAction)]
        blocks.append(table(["argument", "what it is"], rows))
    return "\n\n".join(blocks) + "\n"


def argument_row(action: argparse.Action) -> list[str]:
    """How an argument is written, and its help."""
    choices = "|".join(map(str, action.choices or ()))
    value = str(action.metavar or choices)
    if action.option_strings:
        value = value or ("" if action.nargs == 0 else action.dest.upper())
        shown = ", ".join(f"`{f'{option} {value}'.strip()}`" for option in action.option_strings)
    else:
        number = {"?": " (optional)", "*": " (any number)"}.get(str(action.nargs), "")
        shown = f"`{value or action.dest}`{number}"
    default = action.default if isinstance(action.default, str) and action.default else None
    said = [action.help or "", f"(default: `{default}`)" if default else ""]
    return [shown, " ".join(filter(None, said))]


def conformance_page() -> str:
    rows = [
        [f'<a id="{c.name}"></a>`{c.name}`', c.summary, ", ".join(map(plural, c.kinds)), c.cost]
        for c in CHECKS
    ]
    return (
        "# Conformance checks\n\n`zoo check NAME` holds a component to what its spec claims; which checks "
        "apply follows from the claims. Slow checks (compilers) run with `--slow`. A check that a component "
        "cannot pass is stated in its spec's `known_limits` with the reason, and is then expected to fail: "
        "the day it passes, the kit says so.\n\n"
        "Defaults are not all that a component is: its spec's `variants` name other parameters that go "
        "another way through the code, and with each of them it is held to "
        + ", ".join(f"[`{c.name}`](#{c.name})" for c in CHECKS if c.of_variants)
        + ", where these apply.\n\n"
        "A stack whose parameters say a `depth` of more than 2 is built with all its layers and "
        "checked with 2.\n\n"
        + table(["check", "what holds", "kinds", "cost"], rows)
        + "\n## Saboteurs\n\nThe kit is proven by components that lie: each breaks one promise. The tests "
        "hold every row to be true: the check in the first column catches it, those in the last do too, and "
        "no other.\n\n" + saboteurs.table()
    )
