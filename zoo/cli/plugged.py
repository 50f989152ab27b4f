"""`zoo PLUGIN COMMAND RUN`: commands that plugins bring, see `zoo.commands`.

Verbs of the zoo come first, so that no plugin can stand in their way; plugins are looked at only where there
is no such verb.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from zoo.catalogue import blaming, catalogue
from zoo.cli.output import add_verb, print_json
from zoo.config import ConfigError, build
from zoo.errors import ZooError, one_line, suggest
from zoo.specs import CommandSpec


def commands_of(plugin: str) -> dict[str, CommandSpec]:
    """The commands of a plugin by name; none where there is no such plugin."""
    found = (spec for spec in catalogue().specs("command") if isinstance(spec, CommandSpec))
    return {spec.name: spec for spec in found if spec.plugin == plugin}


def run_command(plugin: str, given: Sequence[str], parser: Any) -> int:
    """Carry out one of a plugin's commands.

    Args:
        given: what stands behind the plugin's name.
        parser: makes an argument parser, with `prog`.

    Raises:
        ZooError: a mistake in what was given, or whatever goes wrong in the command.
    """
    known = commands_of(plugin)
    outer = parser(prog=f"zoo {plugin}", description=f"Commands of the plugin {plugin}.", allow_abbrev=False)
    verbs = outer.add_subparsers(metavar="COMMAND", parser_class=parser)
    for spec in known.values():
        _add(verbs, spec)
    if not given or given[0].startswith("-"):
        outer.parse_args(list(given))
        outer.print_help()
        return 0
    name, *rest = given
    if name not in known:
        raise ZooError(f"plugin {plugin!r} has no command {name!r}.{suggest(name, known, list_up_to=20)}")
    options = verbs.choices[name].parse_intermixed_args(rest)
    return _carry_out(known[name], options)


def _add(verbs: Any, spec: CommandSpec) -> None:
    example = f"zoo {spec.plugin} {spec.name} latest"
    parser = add_verb(verbs, spec.name, lambda options: 0, f"{spec.summary}.", example)
    parser.add_argument(
        "run_folder", metavar="RUN", help="a run folder, 'latest', or a recipe: its latest run"
    )
    config = spec.config_class()
    for field in dataclasses.fields(config) if config is not None else ():
        text = str(field.metadata.get("help", "")).replace("%", "%%")
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", dest=f"given_{field.name}", metavar="VALUE", help=text
        )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _carry_out(spec: CommandSpec, options: argparse.Namespace) -> int:
    from zoo.runs import find_run

    run = find_run(options.run_folder)
    config = _config(spec, options)
    command = spec.load()
    from zoo.commands import Answer
    from zoo.training.saved import Saved

    with blaming(f"command {spec.id!r} failed"):
        answer = command(Saved(run), config)
    if not isinstance(answer, Answer):
        raise ZooError(f"command {spec.id!r} gave {type(answer).__name__}, expected a zoo.commands.Answer")
    if options.json:
        print_json(dict(answer.data))
    else:
        print(answer.text)
    return 0


def _config(spec: CommandSpec, options: argparse.Namespace) -> Any:
    """The command's parameters: each value reads as in a recipe."""
    import yaml

    config = spec.config_class()
    if config is None:
        return None
    values: dict[str, Any] = {}
    for name, text in vars(options).items():
        if not name.startswith("given_") or text is None:
            continue
        try:
            values[name.removeprefix("given_")] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ZooError(f"--{_option(name)}: {text!r} cannot be read: {one_line(error)}") from None
    try:
        return build(config, values)
    except ConfigError as error:
        problems = "; ".join(f"--{_option(p.path)}: {p.message}" for p in error.problems)
        raise ZooError(f"zoo {spec.plugin} {spec.name}: {problems}") from None


def _option(name: str) -> str:
    return name.removeprefix("given_").replace("_", "-")
