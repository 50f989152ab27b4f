"""A process that trains points one after the other: torch is imported once, and a crash costs one point.

It reads one JSON object a line, a `Job`, and answers each with one line, an `Outcome`. What a job prints
goes to its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from zoo.errors import ZooError, one_line
from zoo.runs import runs_of

Ending = Literal["finished", "failed", "interrupted", "taken"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Train a recipe with overrides. id: its fingerprint. log, lock: files of this point."""

    recipe: str
    overrides: Sequence[str]
    id: str
    log: str
    lock: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended; `taken`: another process is training this point.

    run: the run folder. error: in a line, where it failed.
    """

    ending: Ending
    run: str | None = None
    error: str = ""


def carry_out(job: Job) -> Outcome:
    """Train a point, or go on with the run of it that was interrupted; what fails is an outcome too."""
    from filelock import FileLock, Timeout

    lock = FileLock(job.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return Outcome(ending="taken")
    except OSError as error:
        return Outcome(ending="failed", error=f"{job.lock!r} cannot be written: {error.strerror}")
    try:
        return _train(job)
    except ZooError as error:
        return Outcome(ending="failed", error=str(error))
    except KeyboardInterrupt:
        return Outcome(ending="interrupted")
    except Exception as error:
        traceback.print_exc()
        return Outcome(ending="failed", error=one_line(error))
    finally:
        lock.release()


def _train(job: Job) -> Outcome:
    from zoo.recipe import load_recipe

    loaded = load_recipe(job.recipe, job.overrides)
    runs = runs_of(loaded.recipe.output.dir, {job.id})
    for run in runs:  # another machine may have brought it meanwhile
        if run.status == "finished":
            return Outcome(ending="finished", run=str(run.path))
    from zoo.training import resume, train

    begun = [run for run in runs if run.status in ("running", "interrupted")]
    result = resume(begun[-1], quiet=True) if begun else train(loaded, quiet=True)
    path = str(result.run.path) if result.run else None
    return Outcome(ending="interrupted" if result.status == "interrupted" else "finished", run=path)


def main() -> None:
    """Answer jobs until there are no more."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a sweep in the background passes on "ignore"
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    try:
        for line in sys.stdin:
            job = Job(**json.loads(line))
            with printing_to(Path(job.log)):
                outcome = carry_out(job)
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def printing_to(log: Path) -> Iterator[None]:
    """Both outputs of this process go to a file meanwhile, those of libraries in C too."""
    with log.open("a", encoding="utf-8") as file:
        before = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), before, strict=True):
                os.dup2(copy, number)
                os.close(copy)
