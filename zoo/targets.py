"""From a path that a spec states ("package.module:attribute") to what lies there (torch-free)."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from zoo.config import field_types
from zoo.errors import ZooError, one_line

if TYPE_CHECKING:
    from zoo.specs import Spec


def resolve(path: str, spec: Spec) -> Any:
    """Import what a spec names.

    Raises:
        ZooError: it cannot be imported, or is not there; says what to install, or whose mistake it is.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            hint = f"module {error.name!r} does not exist; tell the author of plugin {spec.plugin!r}"
        elif spec.extras:
            hint = f"{error.name!r} is not installed; the extra {'/'.join(spec.extras)!r} brings it"
        else:
            hint = f"{error.name!r} is not installed; try: pip install {error.name}"
        raise ZooError(f"{spec.kind} {spec.id!r} cannot be loaded: {hint}") from error
    except Exception as error:  # a stranger's module may fail in any way; --traceback shows which
        raise ZooError(
            f"{spec.kind} {spec.id!r} cannot be loaded: module {module_name!r} raises {one_line(error)}"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ZooError(
            f"{spec.kind} {spec.id!r} cannot be loaded: module {module_name!r} has no {attribute!r}"
        ) from None


def resolve_config(path: str, spec: Spec) -> type[Any]:
    """Import the parameter dataclass of a spec.

    Raises:
        ZooError: as `resolve`, or it is no dataclass, or a type in it is not known.
    """
    found = resolve(path, spec)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ZooError(
            f"{spec.kind} {spec.id!r}: its config {path!r} is no dataclass: "
            "write @dataclass(frozen=True, kw_only=True) above it"
        )
    try:
        field_types(found)
    except Exception as error:  # whatever the evaluation of an annotation raises
        raise ZooError(
            f"{spec.kind} {spec.id!r}: the types in its config {path!r} cannot be read: {one_line(error)}. "
            "They are looked up when they are needed: import them at top level"
        ) from error
    return found
