"""Read members out of archives: zip (wheels), tar (npm packages), ar (Debian packages). Nothing is unpacked.

Members are named by who reads them and streamed to him, so what paths an archive holds does not matter.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from zoo.errors import ZooError

_AR = b"!<arch>\n"
_BROKEN = (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)


@contextmanager
def open_member(archive: Path, member: str) -> Iterator[BinaryIO]:
    """A member of an archive as a binary stream; one that ends in `.gz` comes unpacked.

    Raises:
        ZooError: there is no such member, or the archive is damaged or of no known kind (reading may
            raise it too, as long as the stream is open).
    """
    with readable(archive), open(archive, "rb") as file, _member(archive, file, member) as stream:
        yield cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if member.endswith(".gz") else stream


def read_texts(archive: Path, *, suffix: str) -> Iterator[tuple[str, str]]:
    """(path, text) of every UTF-8 member of a tar whose path ends in `suffix`, sorted by path.

    Raises:
        ZooError: the archive is damaged.
    """
    with readable(archive), tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if m.isfile() and m.name.endswith(suffix)]
        for member in sorted(members, key=lambda m: m.name):
            yield member.name, cast(BinaryIO, tar.extractfile(member)).read().decode()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file raises into a sentence."""
    try:
        yield
    except _BROKEN as error:
        raise ZooError(f"{path}: cannot be read, it is damaged or incomplete ({error})") from error


@contextmanager
def _member(archive: Path, file: BinaryIO, member: str) -> Iterator[BinaryIO]:
    start = file.read(len(_AR))
    file.seek(0)
    if start == _AR:
        with tarfile.open(fileobj=io.BytesIO(_data_of_deb(archive, file))) as tar:
            yield _tar_member(archive, tar, member, below="./")
    elif start.startswith(b"PK"):
        with zipfile.ZipFile(file) as wheel:
            if member not in wheel.namelist():
                raise _missing(archive, member)
            with wheel.open(member) as stream:
                yield cast(BinaryIO, stream)
    else:
        with tarfile.open(fileobj=file) as tar:
            yield _tar_member(archive, tar, member)


def _tar_member(archive: Path, tar: tarfile.TarFile, member: str, *, below: str = "") -> BinaryIO:
    try:
        stream = tar.extractfile(below + member)
    except KeyError:
        stream = None
    if stream is None:
        raise _missing(archive, member)
    return cast(BinaryIO, stream)


def _data_of_deb(archive: Path, file: BinaryIO) -> bytes:
    """The `data.tar.*` of a Debian package: ar headers are 60 bytes, contents are padded to even sizes."""
    file.read(len(_AR))
    while header := file.read(60):
        if len(header) < 60 or header[58:] != b"`\n":
            raise ZooError(f"{archive}: cannot be read, it is damaged or incomplete (a bad ar header)")
        name, size = header[:16].decode(errors="replace").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return file.read(size)
        file.seek(size + size % 2, io.SEEK_CUR)
    raise _missing(archive, "data.tar")


def _missing(archive: Path, member: str) -> ZooError:
    return ZooError(f"{archive}: there is no member {member!r} in it")
