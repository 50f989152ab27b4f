"""`zoo generate`: text from a trained language model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from zoo.cli.output import add_verb
from zoo.errors import ZooError


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "generate",
        generate,
        "Continue a text with the best checkpoint of a language model.",
        "zoo generate latest --prompt Fellow temperature=0.8 top_p=0.9",
    )
    parser.add_argument(
        "run_folder", metavar="RUN", help="a run folder, 'latest', or a recipe: its latest run"
    )
    parser.add_argument(
        "params",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="parameters of the decoder: temperature=0.8",
    )
    parser.add_argument("--prompt", help="what it begins with; by default a new line; -: read it from stdin")
    parser.add_argument("--symbols", type=int, default=200, metavar="N", help="how many to make (200)")
    parser.add_argument("--decoder", default="sample", help="'zoo list decoders' shows all")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")


def generate(options: argparse.Namespace) -> int:
    from zoo.runs import find_run

    run, params = find_run(options.run_folder), _params(options.params)
    from zoo.training import generate as continued
    from zoo.training.generation import BEGINNING

    prompt = BEGINNING if options.prompt is None else options.prompt
    if prompt == "-":
        prompt = sys.stdin.read()
    pieces = continued(
        run,
        prompt,
        symbols=options.symbols,
        decoder=options.decoder,
        params=params,
        seed=options.seed,
        say=lambda text: print(f"note: {text}", file=sys.stderr),
    )
    print(prompt, end="")
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0


def _params(given: list[str]) -> dict[str, Any]:
    """`top_p=0.9` as data."""
    from zoo.recipe.scalar import Ambiguous, scalar

    params: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ZooError(f"a parameter of the decoder reads key=value, e.g. temperature=0.8; got {text!r}")
        try:
            params[key] = scalar(value)
        except Ambiguous as error:
            raise ZooError(f"{key}: {error}") from None
    return params
