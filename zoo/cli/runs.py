"""`zoo train`, `zoo eval`, `zoo predict`: what needs torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.cli.output import add_verb, print_json
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.training import RunResult


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs, "train", train, "Train a recipe, or go on with a run.", "zoo train aaren/digits seed=1"
    )
    parser.add_argument("recipe", nargs="?", help="plugin/recipe, or the path of a YAML file")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. optim.lr=3e-4 seed=1"
    )
    parser.add_argument("--resume", metavar="RUN", help="go on with an interrupted run")
    parser.add_argument("--dry-run", action="store_true", help="one training and one evaluation step; no run")
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")

    parser = add_verb(verbs, "eval", evaluate, "Evaluate the best checkpoint of a run.", "zoo eval latest")
    parser.add_argument(
        "run_folder", metavar="RUN", help="a run folder, 'latest', or a recipe: its latest run"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="score the same weights on other data, or with other parameters: data.params.length=4096",
    )
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--json", action="store_true", help="print JSON")

    parser = add_verb(
        verbs, "predict", predict, "Predict from a file with the best checkpoint.", "zoo predict latest x.png"
    )
    parser.add_argument(
        "run_folder", metavar="RUN", help="a run folder, 'latest', or a recipe: its latest run"
    )
    parser.add_argument(
        "file",
        help="as the run's dataset asks: a picture or .npy; CSV rows; a series as CSV or .npy; "
        "times and marks as CSV; text",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="where the training data lies now: data.params.path=moved.csv",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def train(options: argparse.Namespace) -> int:
    if options.resume is not None and options.dry_run:
        raise ZooError("--dry-run tries a recipe, --resume goes on with a run: give one of them")
    fit: Callable[..., RunResult]
    if options.resume is not None:
        from zoo.runs import find_run

        run = find_run(options.resume)
        from zoo.training import resume

        given = [options.recipe, *options.overrides] if options.recipe else []
        for text in given:
            if "=" not in text:
                raise ZooError(f"--resume RUN takes the run's own recipe; leave out {text!r}")
        fit = partial(resume, run, given)
    elif options.recipe is None:
        raise ZooError("zoo train needs a recipe, e.g. 'zoo train aaren/digits'; 'zoo recipe list' shows all")
    else:
        from zoo.recipe import load_recipe

        # The whole recipe is checked, model and data paired, before torch is imported.
        loaded = load_recipe(options.recipe, options.overrides)
        from zoo.training import train as train_recipe

        fit = partial(train_recipe, loaded, dry_run=options.dry_run)
    from zoo.training import StopRequest
    from zoo.training.callbacks import undisturbed

    stop = StopRequest()
    with stop.listening():
        result = fit(quiet=options.quiet, stop=stop)
        with undisturbed():
            if options.json:
                print_json(result.to_dict())
            else:
                result.print()
    return result.exit_code


def evaluate(options: argparse.Namespace) -> int:
    from zoo.runs import find_run

    run = find_run(options.run_folder)
    from zoo.training import evaluate as score

    result = score(run, split=options.split, overrides=options.overrides)
    if options.json:
        print_json(result.to_dict())
    else:
        result.print()
    return 0


def predict(options: argparse.Namespace) -> int:
    from zoo.runs import find_run

    run = find_run(options.run_folder)
    from zoo.training import predict as answer

    predictions = answer(run, options.file, overrides=options.overrides)
    if options.json:
        print_json(predictions)
    else:
        for prediction in predictions:
            print(_line(prediction))
    return 0


def _line(prediction: Any) -> str:
    """`class 3  probability 0.982`: a prediction on one line."""
    if not isinstance(prediction, dict):
        return str(prediction)
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in prediction.items()
    )
