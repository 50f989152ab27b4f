"""Errors that a user can cause and mend, and the one helper that suggests names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ZooError(Exception):
    """A mistake in what the user asked for. The command line prints it without a traceback (exit code 2)."""


class ContractError(ZooError, ValueError):
    """A dataset and a model (with stem, head and task) that cannot work together, and what would.

    path: the part at fault: "model", "stem", "head", "task" or "dataset".
    """

    def __init__(self, reason: str, *, path: str = "model") -> None:
        self.path = path
        super().__init__(reason)


class UnknownName(ZooError, LookupError):
    """A name that no installed plugin provides."""


def close_names(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """Known names that resemble `name`, best first; case and `-`/`_` do not count."""
    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(_fold(candidate), candidate)
    return [folded[match] for match in get_close_matches(_fold(name), folded, n=most, cutoff=0.6)]


def suggest(name: str, known: Iterable[str], *, list_up_to: int = 12) -> str:
    """A sentence (with a leading space) that helps a user who wrote `name`, or nothing.

    Close names first; without any, the whole list where it is short enough to read.
    """
    known = sorted(set(known))
    close = close_names(name, known)
    if close:
        return f" Did you mean {either(close)}?"
    if 0 < len(known) <= list_up_to:
        return f" There is: {', '.join(known)}."
    return ""


def either(names: Iterable[str]) -> str:
    """`'a'`, `'a' or 'b'`, `'a', 'b' or 'c'`."""
    quoted = [repr(name) for name in names]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def one_line(error: BaseException) -> str:
    """`ValueError: what it says`, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _fold(name: str) -> str:
    return name.lower().replace("-", "_")
