"""`zoo match`: the width at which a recipe's model has the size of another."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from zoo.cli.output import add_verb, print_json
from zoo.errors import ZooError


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "match",
        match,
        "Find the width at which a model has so many parameters or operations.",
        "zoo match core/sotu_small model.name=aaren/encoder --params 600k",
    )
    parser.add_argument("recipe", help="plugin/recipe, or the path of a YAML file")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--params", metavar="SIZE", help="parameters, e.g. 1.0M")
    parser.add_argument("--flops", metavar="SIZE", help="operations for one example forwards, e.g. 50M")
    parser.add_argument("--like", metavar="RECIPE", help="as many parameters as this recipe's model has")
    parser.add_argument("--vary", choices=["width", "depth", "both"], default="width")
    parser.add_argument("--json", action="store_true", help="print JSON")


def match(options: argparse.Namespace) -> int:
    if sum(each is not None for each in (options.params, options.flops, options.like)) != 1:
        raise ZooError("say what to match: one of --params 1.0M, --flops 50M and --like RECIPE")
    from zoo.matching import Measure, parse_size, size_of
    from zoo.matching import match as search
    from zoo.recipe import load_recipe

    measure: Measure = "params" if options.flops is None else "flops"
    if options.like is not None:
        target = size_of(load_recipe(options.like), measure)
    else:
        target = parse_size(options.params or options.flops)
    found = search(options.recipe, options.overrides, target=target, measure=measure, vary=options.vary)
    if options.json:
        print_json(
            {
                "overrides": list(found.overrides),
                measure: found.size,
                "target": found.target,
                "error": found.error,
            }
        )
        return 0
    print(" ".join(found.overrides))  # alone on stdout: zoo train RECIPE $(zoo match ...)
    what = {"params": "parameters", "flops": "FLOPs per example"}[measure]
    print(f"{found.size:,} {what}, {found.error:.1%} off {found.target:,}", file=sys.stderr)
    return 0
