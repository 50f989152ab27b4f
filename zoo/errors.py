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
    """Known names that resemble `name`, best first, then those that begin so, whatever case and `-`/`_`."""
    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(_fold(candidate), candidate)
    wanted = _fold(name)
    close = get_close_matches(wanted, folded, n=most, cutoff=0.6)
    begin = [other for other in folded if len(wanted) > 2 and other.startswith(wanted)]
    return [folded[match] for match in dict.fromkeys([*close, *begin])][:most]


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


def suggest_id(name: str, ids: Iterable[str], *, most: int = 3) -> str:
    """As `suggest`, where what is known is called `plugin/name`, or `name` while only one plugin has it.

    Each thing is offered once, in a form that will be understood; to the name of a plugin, all that it has.
    """
    ids = sorted(set(ids))
    by_short: dict[str, list[str]] = {}
    for id in ids:
        by_short.setdefault(id.partition("/")[2], []).append(id)
    plugin, slash, short = name.partition("/")
    if slash:  # the right name, ascribed to another plugin, leaves no doubt
        close = by_short.get(short) or close_names(name, ids, most=most)
    elif inside := [id for id in ids if _fold(id.partition("/")[0]) == _fold(name)]:
        return f" Plugin {plugin!r} has: {', '.join(inside)}."
    else:
        groups = (by_short[match] for match in close_names(name, by_short, most=most))
        close = [each for group in groups for each in (group if len(group) > 1 else [_short(group[0])])]
    return f" Did you mean {either(close[:most])}?" if close else ""


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


def _short(id: str) -> str:
    return id.partition("/")[2] or id


def _fold(name: str) -> str:
    return name.lower().replace("-", "_")
