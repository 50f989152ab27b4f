"""`zoo bench`: what models and mixers cost beside softmax attention as sequences grow."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.output import add_verb, print_json, print_table
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.bench import Bench


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "bench",
        bench,
        "Measure time, memory and state against softmax attention as sequences grow.",
        "zoo bench aaren/aaren transnormer/llm --lengths 256,1k,4k",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="MODEL",
        help="models or mixers of tokens; without one, every mixer",
    )
    parser.add_argument("--kind", choices=["model", "mixer"], help="which is meant where a name is both")
    parser.add_argument("--lengths", default="256,1k,4k", metavar="N,N", help="tokens; 1k is 1,024")
    for name, default, help in (
        ("width", 128, "channels of a token"),
        ("depth", 2, "layers, where the model has that parameter"),
        ("heads", 4, "heads, where the model has that parameter"),
        ("batch", 1, "sequences at a time"),
        ("repeats", 5, "turns, of which the least counts"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{help} ({default})")
    parser.add_argument("--both-ways", action="store_true", help="not causal: every token sees all others")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or cuda:N")
    parser.add_argument(
        "--limit",
        type=float,
        default=60,
        metavar="SECONDS",
        help="what takes longer for a step is not tried at greater lengths (60)",
    )
    parser.add_argument("--out", metavar="DIR", help="for tables and pictures (runs/bench/<time>)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def bench(options: argparse.Namespace) -> int:
    for name in ("width", "depth", "heads", "batch", "repeats", "limit"):
        if getattr(options, name) <= 0:
            raise ZooError(f"--{name} must be above 0, got {getattr(options, name)}")
    lengths = tuple(_length(text) for text in options.lengths.split(","))
    from zoo.bench import Settings, baseline, find_subjects
    from zoo.bench import bench as measure
    from zoo.catalogue import catalogue

    found = catalogue()
    sizes = {"depth": options.depth, "heads": options.heads}
    first = baseline(found, **sizes)
    others = find_subjects(found, options.names, kind=options.kind, **sizes)
    _check_device(options.device)
    settings = Settings(
        lengths=lengths,
        width=options.width,
        batch=options.batch,
        causal=not options.both_ways,
        device=options.device,
        repeats=options.repeats,
        limit=options.limit,
        **sizes,
    )
    subjects = [first, *(each for each in others if each.name != first.name)]
    done = measure(subjects, settings, found, say=_say)
    if not done.cells:
        raise ZooError("nothing could be measured. " + " ".join(done.notes))
    folder = Path(options.out or f"runs/bench/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    _write(done, folder)
    if options.json:
        print_json(done.to_dict())
    else:
        _show(done)
    _say(f"tables and pictures: {folder}")
    if done.interrupted:
        _say("Interrupted: what had been measured by then is kept.")
    return 130 if done.interrupted else 0


def _show(done: Bench) -> None:
    heading, *rows = done.table()
    print_table(heading, rows)
    if growth := done.growth():
        print("\nCost grows with the length N like:")
        print_table(growth[0], growth[1:])
    print()
    print(done.conditions())
    for note in done.notes:
        print(f"note: {note}")


def _write(done: Bench, folder: Path) -> None:
    from zoo.bench.charts import write

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench.json").write_text(json.dumps(done.to_dict(), indent=2) + "\n", encoding="utf-8")
        (folder / "bench.md").write_text(done.markdown(), encoding="utf-8")
        write(done, folder)
    except OSError as error:
        raise ZooError(f"the folder {str(folder)!r} cannot be written: {error.strerror}") from None


def _length(text: str) -> int:
    """`256`, `1k`."""
    found = re.fullmatch(r"(\d+)\s*([kK]?)", text.strip())
    tokens = int(found[1]) * (1024 if found[2] else 1) if found else 0
    if tokens < 1:
        raise ZooError(f"{text!r} is no length; --lengths takes numbers of tokens such as 256,1k,4k")
    return tokens


def _check_device(name: str) -> None:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ZooError(f"--device must be cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ZooError(f"there is no device {name!r} here: torch sees {torch.cuda.device_count()} GPUs")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
