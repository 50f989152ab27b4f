"""`zoo data`: fetch datasets ahead, see which are there, find where they lie (torch-free)."""

from __future__ import annotations

import argparse
from typing import Any, cast

from zoo.catalogue import Catalogue, Part, catalogue
from zoo.cli.output import add_verb, print_json, print_table
from zoo.errors import ZooError
from zoo.sources import Files, cache_folder
from zoo.specs import DatasetSpec


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "data",
        data,
        "Fetch datasets ahead, list those that can be fetched, or print where their files lie.",
        "zoo data fetch fashion_mnist ucr problem=FordA",
    )
    parser.add_argument("action", choices=["fetch", "list", "path"])
    parser.add_argument(
        "names",
        nargs="*",
        default=[],
        metavar="NAME|KEY=VALUE",
        help="datasets; a parameter belongs to the dataset before it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def data(options: argparse.Namespace) -> int:
    found = catalogue()
    if options.action == "list":
        if options.names:
            raise ZooError("zoo data list takes no names; for one dataset: zoo show NAME")
        return _list(found, options)
    from zoo.data.fetch import files_of

    wanted = [(part, files_of(found, part)) for part in dataset_parts(found, options.names)]
    if options.action == "path":
        paths = {part.id: str(files.path) for part, files in wanted if files is not None}
        if options.json:
            print_json({"cache": str(cache_folder()), **paths})
        else:
            print("\n".join(paths.values()) or cache_folder())
        return 0
    if not wanted:
        raise ZooError("zoo data fetch needs the name of a dataset; 'zoo data list' shows those it can fetch")
    return _fetch(wanted, options)


def _fetch(wanted: list[tuple[Part, Files | None]], options: argparse.Namespace) -> int:
    """Fetch all, and only then complain of those that could not be had."""
    from zoo.data.fetch import fetch

    done, failures = [], []
    for part, files in wanted:
        if files is None:
            done.append({"dataset": part.id, "source": "comes with the package", "path": ""})
            continue
        try:
            fetched = fetch(files)
        except ZooError as error:
            failures.append(f"{part.id}: {error}")
            continue
        done.append({"dataset": part.id, "source": fetched.source, "path": str(fetched.folder)})
    if options.json:
        print_json(done)
    elif done:
        print_table(["dataset", "source", "path"], [list(row.values()) for row in done])
    if failures:
        raise ZooError("\n".join(failures))
    return 0


def _list(found: Catalogue, options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    for spec in cast(tuple[DatasetSpec, ...], found.specs("dataset")):
        if spec.files is not None:
            sources = [str(source) for source in spec.files.sources]
            rows.append({"dataset": spec.id, "fetched": spec.ready, "sources": sources})
    if options.json:
        print_json(rows)
        return 0
    print_table(
        ["dataset", "fetched", "sources, in this order"],
        ([row["dataset"], "yes" if row["fetched"] else "no", ", ".join(row["sources"])] for row in rows),
    )
    print(f"cache: {cache_folder()}")
    return 0


def dataset_parts(found: Catalogue, words: list[str]) -> list[Part]:
    """Datasets with their parameters: `a b key=value` are a, and b with one."""
    from zoo.recipe.scalar import Ambiguous, scalar

    named: list[tuple[str, dict[str, Any]]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            named.append((word, {}))
        elif not named:
            raise ZooError(f"{word!r} is a parameter, but no dataset stands before it")
        else:
            try:
                named[-1][1][key] = scalar(value)
            except Ambiguous as error:
                raise ZooError(f"{word!r}: {error}") from None
    return [found.part("dataset", name, params) for name, params in named]
