"""The recipe's `plugins:` section: which versions it needs, checked by metadata alone."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from zoo.catalogue import OWN_DISTRIBUTION, Catalogue
from zoo.errors import suggest


def unmet(name: str, requirement: str, catalogue: Catalogue) -> str:
    """What is wrong with one requirement, or nothing.

    name: `zoo`, a plugin id, or any distribution. requirement: as pip writes it, e.g. ">=0.1,<1".
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        wanted = SpecifierSet(requirement)
    except InvalidSpecifier:
        return f"{requirement!r} is not a version requirement such as '>=0.1,<1'"
    plugin = next((p for p in catalogue.plugins if _fold(name) in (_fold(p.id), _fold(p.distribution))), None)
    if plugin is not None and plugin.status != "ok":
        return f"plugin {plugin.id!r} is installed but not in use: {plugin.reason}"
    if plugin is not None and plugin.own and plugin.id != "core" and _version(name) is not None:
        plugin = None  # one of the zoo's own, called as the library that it brings in: that one is meant
    distribution = OWN_DISTRIBUTION if name == "zoo" else plugin.distribution if plugin else name
    installed = plugin.version if plugin else _version(distribution)
    if installed is None:
        pip = name if _fold(name).startswith("zoo_") else f"zoo-{name}"
        meant = suggest(name, [p.id for p in catalogue.plugins], list_up_to=0)
        return f"plugin {name!r} is not installed.{meant or f' Try: pip install {pip}'}"
    if wanted.contains(installed, prereleases=True):
        return ""
    return (
        f"needs {distribution} {requirement}, but {installed} is installed; "
        f"try: pip install '{distribution}{requirement}'"
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _fold(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
