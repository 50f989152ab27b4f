"""Run folders: made once, never overwritten, found again by path, by recipe or as 'latest' (torch-free).

runs/<recipe>/<UTC time>-<6 hex>/
    run.json          status, versions, seed, command, plan, scores
    recipe.yaml       as given                 resolved.yaml   as it ran, with origins
    metrics.csv       one row per logged step  curves.png      drawn from it
    checkpoints/      best.ckpt, last.ckpt     model.safetensors
    card.md           a short report
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from zoo.errors import ZooError, suggest

RECORD = "run.json"
#: Ends the name of a file that is being written; one is left where a process was killed meanwhile.
PARTIAL = ".partial"
#: transformed: made from another run by `zoo transform`.
Status = Literal["running", "finished", "interrupted", "failed", "transformed"]


class Run:
    """A run folder and its record. `info` is what run.json says; `update` changes both."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.info = info
        self.recipe = path / "recipe.yaml"
        self.resolved = path / "resolved.yaml"
        self.metrics = path / "metrics.csv"
        self.curves = path / "curves.png"
        self.card = path / "card.md"
        self.weights = path / "model.safetensors"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    @property
    def status(self) -> Status:
        return self.info["status"]

    def update(self, **changes: Any) -> None:
        """Change the record and write it, whole or not at all."""
        self.info |= changes
        self.write(self.path / RECORD, json.dumps(self.info, indent=2) + "\n")

    def write(self, path: Path, text: str) -> None:
        """Write one of the run's text files."""
        with writing(self.path), replacing(path) as file:
            file.write(text.encode())


def create_run(root: str | Path, recipe: str, files: Mapping[str, str] | None = None) -> Run:
    """A new run folder below `root` for the recipe called `recipe` ('plugin/name').

    files: name -> text of what lies in it from the beginning. The record comes last: a folder that has one
        has these too, whenever the process is killed.

    Raises:
        ZooError: the folder cannot be made; the message names it and the reason.
    """
    above = recipe_folder(root, recipe)
    while True:
        now = datetime.now(UTC)
        path = above / f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        try:
            with writing(path):
                path.mkdir(parents=True)
                (path / "checkpoints").mkdir()
        except FileExistsError:  # the same second and the same 24 random bits
            continue
        run = Run(path, {"recipe": recipe})
        for file, text in (files or {}).items():
            run.write(path / file, text)
        run.update(created=now.isoformat(), status="running")
        return run


def recipe_folder(root: str | Path, recipe: str) -> Path:
    """The folder below `root` for what belongs to a recipe ('plugin/name')."""
    parts = [re.sub(r"[^\w.-]+", "_", part).strip(".") or "recipe" for part in recipe.split("/") if part]
    return Path(root).joinpath(*parts)


def open_run(path: str | Path) -> Run:
    """The run in a folder.

    Raises:
        ZooError: there is no such folder, it is no run folder, or its record is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise ZooError(f"there is no run folder {str(path)!r}")
    record = path / RECORD
    if not record.is_file():
        inside = sorted(str(each.parent) for each in path.glob(f"**/{RECORD}"))
        hint = f". It holds runs, such as {inside[-1]!r}" if inside else ""
        raise ZooError(f"{str(path)!r} is not a run folder: it has no {RECORD}{hint}")
    try:
        info = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ZooError(f"the record of the run cannot be read: {str(record)!r}: {error}") from None
    missing = {"status", "recipe"} - set(info) if isinstance(info, dict) else {"status"}
    if missing:
        raise ZooError(f"{str(record)!r} is not the record of a run: it has no {', '.join(sorted(missing))}")
    return Run(path, info)


def find_run(name: str | Path, *, root: str | Path = "runs") -> Run:
    """A run by its path, as 'latest' (below `root`), or by its recipe's name (the latest of that recipe).

    Raises:
        ZooError: nothing is called that; the message says what there is.
    """
    if (Path(name) / RECORD).is_file():
        return open_run(name)
    known = list(list_runs(root))
    matching = known if name == "latest" else [run for run in known if run.info["recipe"] == str(name)]
    if matching:  # before a folder that is called so: a recipe `photos` may well learn from one
        return matching[-1]
    if Path(name).is_dir():
        return open_run(name)
    if Path(name).is_file():
        raise ZooError(
            f"{str(name)!r} is a file, not a run: name the run's folder, or {_by_recipe(name, known)}"
        )
    if not known:
        raise ZooError(f"there is no run {str(name)!r}, and no run at all below {str(root)!r}")
    recipes = {run.info["recipe"] for run in known}
    raise ZooError(
        f"there is no run {str(name)!r}: it is no folder, and no recipe of that name ran below {str(root)!r}."
        f"{suggest(str(name), {'latest', *recipes})}"
    )


def _by_recipe(file: str | Path, known: Collection[Run]) -> str:
    name = Path(file).stem
    ran = any(run.info["recipe"] == name for run in known)
    return f"its recipe: {name!r}" if ran else "the name of a recipe that ran"


def list_runs(root: str | Path) -> Iterator[Run]:
    """Every readable run below `root`, oldest first."""
    runs = []
    for record in Path(root).glob(f"**/{RECORD}"):
        try:
            runs.append(open_run(record.parent))
        except ZooError:
            continue
    yield from sorted(runs, key=lambda run: str(run.info.get("created", "")))


def runs_of(root: str | Path, fingerprints: Collection[str]) -> list[Run]:
    """The runs below `root` of these experiments (`zoo.recipe.fingerprint`), oldest first."""
    return [run for run in list_runs(root) if run.info.get("fingerprint") in fingerprints]


def weights_path(run: str | Path) -> Path:
    """The weights of a run (by path, recipe or 'latest'), or the file itself where `run` is one.

    Raises:
        ZooError: no such run, or it has no weights yet.
    """
    if Path(run).is_file():
        return Path(run)
    found = find_run(run)
    if not found.weights.is_file():
        raise ZooError(
            f"run {str(found.path)!r} has no weights yet: they are saved when it finishes, "
            f"and it is {found.status}"
        )
    return found.weights


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Nobody else writes this run folder meanwhile; the lock goes when the process does, however it ends.

    Raises:
        ZooError: another process has it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(run.path / ".lock")
    with writing(run.path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = open_run(run.path).info
            raise ZooError(
                f"run {str(run.path)!r} is still running, in process {holder.get('pid', '?')} on "
                f"{holder.get('host', '?')}: two processes cannot write one run folder. Wait for it, end it, "
                "or start a run of your own"
            ) from None
    try:
        run.update(pid=os.getpid(), host=platform.node())
        yield
    finally:
        lock.release()


def check_resumable(run: Run) -> None:
    """Refuse to go on with a run that is finished, or was not trained but made from another.

    Raises:
        ZooError: it is.
    """
    if run.status == "finished":
        raise ZooError(
            f"run {str(run.path)!r} is finished; nothing is left to resume. "
            "A larger trainer.max_epochs or trainer.max_steps would continue it."
        )
    if run.status == "transformed":
        raise ZooError(
            f"run {str(run.path)!r} was made by 'zoo transform' and has no training to go on with: train a "
            "recipe that has the transform below transforms:"
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a `ZooError` that names the folder and the reason."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason += ". What was there before is intact: make room, then go on with 'zoo train --resume'"
        raise ZooError(f"the run folder {str(path)!r} cannot be written: {reason}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is whole: a reader sees the old one or the new one.

    Where writing fails (a full disk, Ctrl-C) the old one stays, and nothing beside it.
    """
    beside = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
