"""What is found out about a user's files, once: JSON in the cache until a file changes (torch-free)."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.config import ConfigError, Problem
from zoo.errors import close_names, either, suggest
from zoo.sources import cache_folder

#: Raised when the same files would give other facts.
FORMAT = 1
#: Files beyond this are named by size and time in a run's record, not by their content.
HASHED_BYTES = 64 * 2**20
#: Files of a folder that a run's record names one by one.
LISTED_FILES = 16
#: A scan of more bytes, or of more files, than this announces itself.
SLOW_BYTES, SLOW_FILES = 20 * 2**20, 2000

Facts = dict[str, Any]


def cached_facts(
    what: str, identity: Mapping[str, Any], compute: Callable[[], tuple[Facts, Iterable[Path]]]
) -> Facts:
    """The facts that `compute` finds; from the cache while the files that it names are as they were.

    Args:
        what: a word that names the file in the cache.
        identity: all that the facts depend on besides the files' content, as plain data.
        compute: gives the facts and the files (or folders: their lists of entries) that they come from.
    """
    text = json.dumps({"format": FORMAT, **identity}, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    path = cache_folder() / "own" / f"{what}-{key}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["stamps"] == {name: _stamp(Path(name)) for name in kept["stamps"]}:
            facts: Facts = kept["facts"]
            return facts
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, of another time, or damaged: looked at again
    facts, files = compute()
    stamps = {str(file): _stamp(file) for file in files}
    _keep(path, {"stamps": stamps, "facts": facts})
    facts = json.loads(json.dumps(facts))  # as they come from the cache
    return facts


def existing(path: str, *, field: str = "path", folder: bool | None = None) -> Path:
    """The absolute path of what must be there.

    folder: it must be a folder (True), a file (False), or either (None).

    Raises:
        ConfigError: it is not there (names beside it are suggested), or it is of the other sort.
    """
    found = Path(os.path.abspath(Path(path).expanduser()))
    if not found.exists():
        raise mistake(field, f"there is nothing at {path!r}{_beside(found)}")
    if folder is True and not found.is_dir():
        raise mistake(field, f"must be a folder, but {path!r} is a file")
    if folder is False and found.is_dir():
        raise mistake(field, f"must be a file, but {path!r} is a folder")
    return found


def mistake(field: str, message: str) -> ConfigError:
    """One mistake in the parameters of a dataset, found by looking at the data."""
    return ConfigError([Problem(field, message)])


def say(text: str) -> None:
    """Tell the user, on stderr, what takes its time."""
    print(f"zoo: {text}", file=sys.stderr)


def record(files: Iterable[Path], *, root: Path | None = None) -> dict[str, Any]:
    """What a run's record says of files: names (below `root`), sizes, and what tells their content.

    A few are named each, with their sha256 (large ones with the time of their last change); of many, the
    number, the bytes and one digest of all names, sizes and times.
    """
    paths = sorted(files)
    base = root or (paths[0].parent if paths else Path())
    if len(paths) <= LISTED_FILES:
        return {"source": "own", "files": {_name(path, base): _identity(path) for path in paths}}
    digest, total = hashlib.sha256(), 0
    for path in paths:
        found = path.stat()
        total += found.st_size
        digest.update(f"{_name(path, base)}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return {"source": "own", "count": len(paths), "bytes": total, "names_sizes_times": digest.hexdigest()}


def named(names: Iterable[str], *, most: int = 8) -> str:
    """`a, b, c, ... (12 in all)`."""
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_mtime_ns] if path.is_dir() else [found.st_mtime_ns, found.st_size]


def _keep(path: Path, data: Facts) -> None:
    from zoo.data.fetch import atomic

    try:
        with atomic(path) as unfinished:
            unfinished.write_text(json.dumps(data), encoding="utf-8")
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else


def _identity(path: Path) -> dict[str, Any]:
    found = path.stat()
    if found.st_size > HASHED_BYTES:
        return {"bytes": found.st_size, "changed_ns": found.st_mtime_ns}
    with open(path, "rb") as file:
        return {"bytes": found.st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _name(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name


def _beside(path: Path) -> str:
    """What stands where a missing file was looked for."""
    if not path.parent.is_dir():
        return f": there is no folder {path.parent.name!r} either"
    names = sorted(each.name for each in path.parent.iterdir())
    close = close_names(path.name, names)
    return f". Did you mean {either(close)}?" if close else f".{suggest(path.name, names)}".removesuffix(".")
