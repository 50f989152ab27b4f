"""`zoo export`, `zoo push`: trained models for use elsewhere."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.output import add_verb, print_result, print_table
from zoo.sharing.formats import FORMATS, check_format

RUN = "a run folder, 'latest', or a recipe: its latest run"


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "export",
        export,
        "Write the best model of a run for use elsewhere, verified against the run's own.",
        "zoo export latest --format onnx",
    )
    parser.add_argument("run_folder", metavar="RUN", help=RUN)
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="where the training data lies now: data.params.path=moved.csv",
    )
    parser.add_argument(
        "--format",
        default="safetensors",
        metavar="FORMAT",
        help=f"one of: {', '.join(FORMATS)} (safetensors: weights that zoo.load_model reads)",
    )
    parser.add_argument("--output", metavar="FOLDER", help="the folder to make (RUN/exports/FORMAT)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export there")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="a graph for batches of N alone; by default for any"
    )
    parser.add_argument(
        "--any-length",
        action="store_true",
        help="a graph for inputs of any length up to the longest; by default of that length",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")

    parser = add_verb(
        verbs,
        "push",
        push,
        "Upload the best model of a run to the Hugging Face hub, with a card.",
        "zoo push latest me/digits --dry-run",
    )
    parser.add_argument("run_folder", metavar="RUN", help=RUN)
    parser.add_argument("repo", metavar="OWNER/NAME", help="the model on the hub; made if it is not there")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="as for zoo export")
    parser.add_argument(
        "--dry-run", action="store_true", help="write what would be uploaded into a folder; needs no network"
    )
    parser.add_argument("--output", metavar="FOLDER", help="that folder (RUN/exports/hub)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier dry run there")
    parser.add_argument(
        "--update", action="store_true", help="add a commit to a model that is on the hub already"
    )
    parser.add_argument("--private", action="store_true", help="a new model is yours alone")
    parser.add_argument("--licence", metavar="NAME", help="of the weights, for the card, e.g. mit")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument("--json", action="store_true", help="print JSON")


def export(options: argparse.Namespace) -> int:
    from zoo.runs import find_run

    format = check_format(options.format)  # before torch is loaded
    run = find_run(options.run_folder)
    from zoo.sharing import export_run

    done = export_run(
        run,
        format,
        output=options.output,
        overwrite=options.overwrite,
        batch_size=options.batch_size,
        any_length=options.any_length,
        overrides=options.overrides,
    )
    tried = done.agreement.tried

    def text() -> None:
        folded = f", {', '.join(done.folded)} folded" if done.folded else ""
        print(
            f"{done.file}: as the run's own model on {len(tried)} shapes of random input "
            f"(largest difference {done.agreement.error:.1g}{folded})"
        )

    data = {
        "folder": str(done.folder),
        "file": str(done.file),
        "folded": list(done.folded),
        "verified": [list(pair) for pair in tried],
        "largest_error": done.agreement.error,
    }
    return print_result(data, text, as_json=options.json, notes=done.notes)


def push(options: argparse.Namespace) -> int:
    from zoo.runs import find_run

    run = find_run(options.run_folder)
    from zoo.sharing import push_run

    done = push_run(
        run,
        options.repo,
        dry_run=options.dry_run,
        output=options.output,
        overwrite=options.overwrite,
        update=options.update,
        private=options.private,
        licence=options.licence,
        message=options.message,
        overrides=options.overrides,
    )

    def text() -> None:
        print_table(["file", "bytes"], [[name, f"{size:,}"] for name, size in done.files.items()])
        if options.dry_run:
            print(f"Nothing was uploaded. What would be: {done.where}")
        else:
            print(f'{done.where}\nzoo.load_model("hf://{done.repo}") loads it.')

    data = {"repo": done.repo, "dry_run": options.dry_run, "files": done.files, "where": done.where}
    return print_result(data, text, as_json=options.json, notes=done.notes)
