"""`${a.b}` and `${oc.env:ZOO_X,default}`, resolved by OmegaConf with every other resolver out of reach.

OmegaConf's resolvers can read any environment variable, parse text as code of their own grammar and
import modules, and a recipe can compute a resolver's name; so scanning the text does not help. Instead
the whole table of resolvers, which is global to the process, is replaced while a recipe resolves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from zoo.config import join
from zoo.errors import suggest
from zoo.recipe.errors import Mistake, Origin
from zoo.recipe.scalar import Ambiguous, scalar
from zoo.recipe.source import Node, children, walk

PREFIX = "ZOO_"
_FORMS = "a recipe knows ${section.key} and ${oc.env:ZOO_NAME,default}"
_LOCK = threading.Lock()


class _Refused(Exception):
    """The guard's answer; OmegaConf wraps it, so it is found again as the cause."""


def interpolate(
    root: Node, mistakes: list[Mistake], *, defaults: dict[str, Any], allow_env: Collection[str] = ()
) -> Node:
    """The tree with every interpolation replaced by its value; each keeps its own place.

    Args:
        defaults: what `${a.b}` finds where the recipe itself does not say.
        allow_env: environment variables that may be read besides `ZOO_*`.
    """
    waiting = {path: node for path, node in walk(root) if isinstance(node.value, str) and "${" in node.value}
    if not waiting:
        return root
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError, OmegaConfBaseException
    from omegaconf.grammar_parser import parse

    for path, node in list(waiting.items()):
        try:
            parse(str(node.value))
        except GrammarParseError:
            message = f"cannot be read as an interpolation: {_FORMS}; \\${{ is a literal ${{"
            mistakes.append(Mistake(0, path, message, node.origin))
            del waiting[path]
    data = _upon(defaults, _legible(root, "", waiting))
    config = OmegaConf.create(data)
    found: dict[str, Node] = {}
    for path, node in waiting.items():
        with _guarded(allow_env) as read:
            try:
                value = OmegaConf.select(
                    config, path, throw_on_resolution_failure=True, throw_on_missing=True
                )
                if OmegaConf.is_config(value):
                    value = OmegaConf.to_container(value, resolve=True)
            except (OmegaConfBaseException, RecursionError, TypeError, ValueError) as error:
                message = _in_words(error, str(node.value), data)
                mistakes.append(Mistake(0, path, message, node.origin))
                continue
        found[path] = _node(value, replace(node.origin, variables=tuple(read)))
    return _filled(root, "", found)


@contextmanager
def _guarded(allow_env: Collection[str]) -> Iterator[dict[str, None]]:
    """While this is open a guarded `oc.env` is the only resolver. Yields the variables read so far."""
    from omegaconf import OmegaConf
    from omegaconf.basecontainer import BaseContainer

    read: dict[str, None] = {}

    def environment(*words: Any) -> Any:
        if not 0 < len(words) < 3:
            raise _Refused(
                "${oc.env:ZOO_NAME,default} takes a name and a default (in quotes if it has commas)"
            )
        name, *default = words
        if not str(name).startswith(PREFIX) and name not in allow_env:
            raise _Refused(f"a recipe may read only environment variables called {PREFIX}*, not {name!r}")
        value = os.environ.get(name)
        if value is None:
            if not default:
                hint = f"${{oc.env:{name},value}} gives a default"
                raise _Refused(f"the environment variable {name} is not set; {hint}")
            return default[0]
        read[name] = None
        try:
            return scalar(value)
        except Ambiguous:
            return value

    with _LOCK:
        saved = BaseContainer._resolvers
        BaseContainer._resolvers = {}
        try:
            OmegaConf.register_resolver("oc.env", environment, annotation_validation="off")
            yield read
        finally:
            BaseContainer._resolvers = saved


def _legible(node: Node, path: str, waiting: dict[str, Node]) -> Any:
    """Plain data for OmegaConf; what it could not parse has been reported and is left out."""
    if isinstance(node.value, dict):
        return {key: _legible(child, join(path, key), waiting) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [_legible(child, join(path, key), waiting) for key, child in children(node)]
    broken = isinstance(node.value, str) and "${" in node.value and path not in waiting
    return None if broken else node.value


def _upon(base: Any, top: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(top, dict):
        return top
    return base | {key: _upon(base.get(key), value) for key, value in top.items()}


def _filled(node: Node, path: str, found: dict[str, Node]) -> Node:
    if path in found:
        return found[path]
    if isinstance(node.value, dict):
        return replace(node, value={k: _filled(v, join(path, k), found) for k, v in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[_filled(v, join(path, k), found) for k, v in children(node)])
    return node


def _node(value: Any, origin: Origin) -> Node:
    if isinstance(value, dict):
        return Node({str(key): _node(item, origin) for key, item in value.items()}, origin)
    if isinstance(value, list):
        return Node([_node(item, origin) for item in value], origin)
    return Node(value, origin)


def _names(data: Any, path: str = "") -> Iterator[str]:
    """The dotted names of all values."""
    if not isinstance(data, dict):
        yield path
        return
    for key, value in data.items():
        yield from _names(value, join(path, key))


def _in_words(error: BaseException, text: str, data: dict[str, Any]) -> str:
    from omegaconf import errors

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _Refused):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, errors.UnsupportedInterpolationType):
        return f"{text!r} asks for a resolver that a recipe cannot use: {_FORMS}"
    if isinstance(error, errors.InterpolationKeyError):
        name = str(error).partition("Interpolation key '")[2].partition("'")[0]
        hint = suggest(name, _names(data), list_up_to=0)
        return f"{text!r} refers to {name!r}, which this recipe does not have.{hint}"
    if isinstance(error, errors.InterpolationToMissingValueError):
        return f"{text!r} refers to a value that is still to be given ('???')"
    if isinstance(error, RecursionError) or "ecursive interpolation" in str(error):
        return f"{text!r} refers to itself"
    reason = str(error).splitlines()[0].rpartition("raised while resolving interpolation: ")[2]
    return f"{text!r} cannot be resolved: {reason.removeprefix('Error trying to access ')}"
