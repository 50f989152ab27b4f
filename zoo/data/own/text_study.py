"""A user's text looked at: which bytes of which file are for what, and its characters (torch-free).

Files are read in pieces, so that one may be larger than memory.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoo.data.own.config import sizes
from zoo.data.own.facts import SLOW_BYTES, mistake, named, say
from zoo.data.own.parts import NAMES, TEST, TRAIN, VAL, part_called
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.data.own.text_config import TextFilesConfig

#: A folder of at least so many files is split by whole files.
MANY = 10
#: Bytes that are read at once.
PIECE = 2**20


class Stretch(NamedTuple):
    """Bytes `start` to `end` of a file."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Division:
    """The stretches of each part, in order, and how they were found."""

    parts: Sequence[Sequence[Stretch]]
    files: Sequence[Path]
    how: str


def divide(root: Path, config: TextFilesConfig) -> Division:
    """Which text is for what.

    A folder whose files lie in folders `train`, `val`, `test` (or are called so) is split by them; one of
    many files by whole files, drawn by their sizes; else each file is cut, its end for validation and test.

    Raises:
        ZooError: there is no file of this pattern, or a file is empty.
    """
    files = (
        [root] if root.is_file() else sorted(file for file in root.rglob(config.pattern) if file.is_file())
    )
    if not files:
        raise mistake("pattern", f"no file in {root.name} is called {config.pattern!r}; e.g. pattern: '*.md'")
    files = [file for file in files if file.stat().st_size]
    if not files:
        raise ZooError(f"{root.name} is empty: there is no text in it")
    stated = [_part(file, root) for file in files]
    parts: list[list[Stretch]] = [[], [], []]
    if root.is_dir() and TRAIN in stated:
        if None in stated:
            strange = files[stated.index(None)].relative_to(root)
            raise ZooError(
                f"{root.name} has files for train, but {strange} is in no folder train, val or test"
            )
        for file, part in zip(files, stated, strict=True):
            parts[part or 0].append(_whole(file))
        how = "by folder"
        lacking = [part for part in (VAL, TEST) if not parts[part]]
        if lacking:
            _cut(parts, parts[TRAIN], val=config.val * (VAL in lacking), test=config.test * (TEST in lacking))
            how += f", {' and '.join(NAMES[part] for part in lacking)} from the end of each file of train"
    elif len(files) >= MANY:
        for file, part in zip(files, _drawn(files, config), strict=True):
            parts[part].append(_whole(file))
        how = f"whole files, drawn with seed {config.seed}"
    else:
        _cut(parts, [_whole(file) for file in files], val=config.val, test=config.test)
        how = "the end of each file" if len(files) > 1 else "its end"
        how += " is for validation and test"
    return Division(parts=parts, files=files, how=how)


@dataclass(frozen=True)
class Texts:
    """The text of stretches, from the start each time it is gone through."""

    stretches: Sequence[Stretch]
    encoding: str

    def __iter__(self) -> Iterator[str]:
        return texts(self.stretches, self.encoding)


def texts(stretches: Sequence[Stretch], encoding: str) -> Iterator[str]:
    """Their text in pieces, which end with a line where there are lines.

    Raises:
        ZooError: it is no text of this encoding; the file and byte are named.
    """
    for path, start, end in stretches:
        decode = codecs.getincrementaldecoder(encoding)()
        kept, at = "", start
        with open(path, "rb") as file:
            file.seek(start)
            while at < end:
                piece = file.read(min(PIECE, end - at))
                if not piece:
                    raise ZooError(f"{path.name} became shorter while it was read")
                try:
                    kept += decode.decode(piece, final=at + len(piece) >= end)
                except UnicodeDecodeError as error:
                    raise ZooError(
                        f"{path.name} is no {encoding} text (near byte {at + error.start}); "
                        "`encoding` names another, e.g. latin-1"
                    ) from None
                at += len(piece)
                ready, line_end, kept = kept.rpartition("\n")
                if not line_end and len(kept) >= PIECE and not kept.endswith("\r"):  # a line without end
                    ready, kept = kept, ""
                if ready or line_end:
                    yield (ready + line_end).replace("\r\n", "\n")
        if kept:
            yield kept.replace("\r\n", "\n")


def study(root: Path, config: TextFilesConfig) -> tuple[dict[str, Any], list[Path]]:
    """Facts on the text, and the files (and folders) that they depend on."""
    _check_encoding(config.encoding)
    found = divide(root, config)
    total = sum(file.stat().st_size for file in found.files)
    if total > SLOW_BYTES:
        say(f"looking at {root.name} ({total / 2**20:,.0f} MiB), once")
    seen: list[set[str]] = [set(), set(), set()]
    for part, stretches in enumerate(found.parts):
        for text in texts(stretches, config.encoding):
            seen[part].update(text)
    alphabet = "".join(sorted(seen[TRAIN]))
    bytes_ = [sum(s.end - s.start for s in stretches) for stretches in found.parts]
    files = f"{len(found.files)} files, " if root.is_dir() else ""
    notes = [f"{root.name}: {files}{total:,} bytes, {sizes(f'{n:,}' for n in bytes_)}: {found.how}"]
    facts: dict[str, Any] = {"notes": notes}
    if config.unit == "character":
        facts |= {"symbols": 1 + len(alphabet), "alphabet": alphabet}
        unknown = sorted((seen[VAL] | seen[TEST]) - seen[TRAIN])
        if unknown:
            notes.append(f"characters that train does not have share one symbol: {named(map(repr, unknown))}")
    else:
        from zoo.data.own.text_config import DEFAULT_VOCAB

        facts["symbols"] = 256 if config.unit == "byte" else config.vocab or DEFAULT_VOCAB
    folders = {file.parent for file in found.files} | {root} if root.is_dir() else set()
    return facts, [*found.files, *sorted(folders)]


def _part(file: Path, root: Path) -> int | None:
    """The part that a file's folder, or its own name, states."""
    if file == root:
        return None
    inside = file.relative_to(root)
    return part_called(inside.parts[0]) if len(inside.parts) > 1 else part_called(inside.stem)


def _whole(file: Path) -> Stretch:
    return Stretch(file, 0, file.stat().st_size)


def _drawn(files: Sequence[Path], config: TextFilesConfig) -> list[int]:
    """Whole files in random order: to test until its share of the bytes is there, to validation, to train."""
    weights = [file.stat().st_size for file in files]
    room = {TEST: config.test * sum(weights), VAL: config.val * sum(weights)}
    parts = [TRAIN] * len(files)
    for index in np.random.default_rng(config.seed).permutation(len(files)):
        for part in (TEST, VAL):
            if room[part] > 0 and (weights[index] <= room[part] or part not in parts):
                parts[index] = part
                room[part] -= weights[index]
                break
    return parts


def _cut(parts: list[list[Stretch]], stretches: Sequence[Stretch], *, val: float, test: float) -> None:
    """Put the start of each stretch into train, its end into validation and test, at ends of lines."""
    parts[TRAIN] = []
    for path, start, end in list(stretches):
        size = end - start
        first = _line_end(path, start + round((1 - val - test) * size), end) if val or test else end
        second = _line_end(path, max(first, start + round((1 - test) * size)), end) if test else end
        for part, (low, high) in enumerate(((start, first), (first, second), (second, end))):
            if high > low:
                parts[part].append(Stretch(path, low, high))


def _line_end(path: Path, at: int, end: int) -> int:
    """The end of the line around a byte; where lines are endless, the start of the next character."""
    with open(path, "rb") as file:
        file.seek(at)
        line = file.readline(min(PIECE, end - at))
        if line.endswith(b"\n") and at + len(line) < end:
            return at + len(line)
        return at + next((i for i, byte in enumerate(line[:4]) if byte & 0xC0 != 0x80), len(line[:4]))


def _check_encoding(encoding: str) -> None:
    try:
        plain = "\n".encode(encoding) == b"\n"
    except LookupError:
        raise mistake(
            "encoding", f"there is no text encoding {encoding!r}; usual ones are utf-8, latin-1"
        ) from None
    if not plain:
        raise mistake("encoding", f"{encoding} is not read; save the files as utf-8")
