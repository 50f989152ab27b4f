"""Parse the command line, run one verb, turn every user's mistake into a sentence.

Exit codes: 0 done, 1 something failed, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from zoo.cli import (
    baseline,
    bench,
    check,
    compare,
    components,
    data,
    generate,
    inspect,
    match,
    new,
    plugged,
    recipes,
    records,
    runs,
    share,
    sweeps,
    transform,
)
from zoo.errors import ZooError, suggest
from zoo.switches import Switches

DESCRIPTION = "A plugin-based zoo of model architectures: any registered model on any registered dataset."
EPILOG = """\
examples:
  zoo list models                        what is installed
  zoo plan aaren/digits                  what a recipe would build
  zoo train aaren/digits seed=1          train it
  zoo train --resume runs/aaren/digits/20260101T000000-abc123

Plugins bring commands of their own, 'zoo PLUGIN COMMAND RUN': see 'zoo list commands'.
Every verb takes --plugins A,B (only the core and these), --no-plugin X, and --traceback.
"""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaints are short and suggest what was meant."""

    def error(self, message: str) -> NoReturn:
        hint = ""
        if message.startswith("unrecognized arguments: -"):
            option = message.split()[2].partition("=")[0]
            hint = suggest(option, self._option_string_actions, list_up_to=0)
        raise ZooError(f"{message}.{hint} See: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--traceback" in given
    given = [argument for argument in given if argument != "--traceback"]
    try:
        given = Switches.take_arguments(given, os.environ)
        code = _run(given)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # --help, --version
        return int(stop.code or 0)
    except ZooError as error:
        if show_traceback:
            traceback.print_exc()
        else:
            print(f"zoo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (`| head`) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if show_traceback:
            traceback.print_exc()
        else:
            print(
                f"zoo: {type(error).__name__}: {error}\n"
                "zoo: this is not a mistake that zoo knows; --traceback shows where it happened",
                file=sys.stderr,
            )
        return 1


def command() -> int:
    """The command as a process: once it is over, another Ctrl-C must not tear the clean-up apart."""
    try:
        code = main()
    except KeyboardInterrupt:  # one more, while the first was being reported
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _run(given: list[str]) -> int:
    parser, verbs = _parser()
    if not given or given[0].startswith("-"):
        parser.parse_args(given)  # --help, --version, or a mistake
        parser.print_help()
        return 0
    verb, *rest = given
    if verb not in verbs:
        if plugged.commands_of(verb):
            return plugged.run_command(verb, rest, Parser)
        raise ZooError(
            f"there is no verb {verb!r}.{suggest(verb, verbs, list_up_to=0) or ' See: zoo --help'}"
        )
    # Intermixed: `zoo train RECIPE --quiet seed=1` means what it says.
    options = verbs[verb].parse_intermixed_args(rest)
    return int(options.run(options))


def _parser() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(
        prog="zoo",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version(parser))
    verbs = parser.add_subparsers(metavar="VERB", parser_class=Parser)
    for module in (
        components,
        data,
        baseline,
        inspect,
        recipes,
        match,
        runs,
        generate,
        transform,
        share,
        sweeps,
        compare,
        records,
        bench,
        check,
        new,
    ):
        module.add_verbs(verbs)
    return parser, verbs.choices


def _version(parser: Parser) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{parser.prog} {version('archzoo')}"
    except PackageNotFoundError:
        return f"{parser.prog} (not installed)"
