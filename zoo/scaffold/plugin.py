"""Check the name, fill in the templates, put the folder in place whole or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from string import Template

from zoo.catalogue import Catalogue
from zoo.errors import ZooError, suggest
from zoo.specs import NAME

TEMPLATES = Path(__file__).parent / "templates"

#: What each kind of plugin is made of: folders of `templates/`.
KINDS: dict[str, tuple[str, ...]] = {
    "mixer": ("common", "scan", "mixer"),
    "model": ("common", "scan", "model"),
    "dataset": ("common", "dataset"),
}

#: Longer names make lines and paths that nobody wants to read.
LONGEST_NAME = 40


def new_plugin(
    name: str, *, kind: str = "mixer", directory: str | Path = ".", catalogue: Catalogue | None = None
) -> Path:
    """Write the distribution `zoo-NAME` into a new folder of `directory`; returns the folder.

    Args:
        name: the plugin's id; `my-idea` is taken as `my_idea`.
        kind: "mixer", "model" or "dataset".
        catalogue: the plugins whose ids are taken.

    Raises:
        ZooError: a name that cannot be used or is taken, an unknown kind, a folder that exists or cannot be
            written. Nothing is ever overwritten, and a failed write leaves nothing behind.
    """
    import tempfile  # here, because it would slow every other verb down

    name = _checked_name(name, catalogue)
    files = render(name, kind)
    parent = Path(directory)
    if not parent.is_dir():
        raise ZooError(f"there is no folder {str(parent)!r} to write the plugin into")
    target = parent / f"zoo-{name.replace('_', '-')}"
    if os.path.lexists(target):
        raise ZooError(f"{str(target)!r} exists already; choose another name, or another --dir")
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{target.name}-") as unfinished:
            built = Path(unfinished) / target.name
            for path, text in files.items():
                (built / path).parent.mkdir(parents=True, exist_ok=True)
                (built / path).write_text(text, encoding="utf-8")
            os.rename(built, target)
    except OSError as error:
        raise ZooError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
    return target


def render(name: str, kind: str) -> dict[PurePosixPath, str]:
    """Every file of a new plugin, by its path in the distribution.

    Raises:
        ZooError: there is no such kind.
    """
    if kind not in KINDS:
        raise ZooError(f"there is no kind of plugin {kind!r}.{suggest(kind, KINDS)}")
    words = {
        "name": name,
        "Name": "".join(word.capitalize() for word in name.split("_")),
        "dashed": name.replace("_", "-"),
        "kind": kind,
    }
    files: dict[PurePosixPath, str] = {}
    for folder in KINDS[kind]:
        for template in sorted((TEMPLATES / folder).rglob("*.tmpl")):
            path = _target_path(template.relative_to(TEMPLATES / folder), name)
            files[path] = Template(template.read_text(encoding="utf-8")).substitute(words)
    return files


def _target_path(template: Path, name: str) -> PurePosixPath:
    """`package/layers.py.tmpl` -> `zoo_swirl/layers.py`; `gitignore.tmpl` -> `.gitignore`."""
    first, *rest = template.with_suffix("").parts
    first = {"package": f"zoo_{name}", "pytest": "tests", "gitignore": ".gitignore"}.get(first, first)
    return PurePosixPath(first, *rest)


def _checked_name(given: str, catalogue: Catalogue | None) -> str:
    name = given.replace("-", "_")
    if not NAME.match(name) or name.endswith("_") or "__" in name:
        proposal = re.sub(r"[^a-z0-9]+", "_", given.lower()).strip("_0123456789")
        hint = f" How about {proposal!r}?" if NAME.match(proposal) else ""
        raise ZooError(
            f"{given!r} cannot be the name of a plugin: lower case letters, digits and single '_' or '-' "
            f"between them, starting with a letter.{hint}"
        )
    if name.startswith("zoo_"):
        bare = given[len("zoo_") :]
        raise ZooError(f"name it {bare!r}, without 'zoo': the distribution is called zoo-{bare} by itself")
    if len(name) > LONGEST_NAME:
        raise ZooError(f"the name of a plugin has at most {LONGEST_NAME} letters, {given!r} has {len(name)}")
    if catalogue is None:
        from zoo.catalogue import catalogue as installed

        catalogue = installed()
    for plugin in catalogue.plugins:
        distribution = re.sub(r"[-_.]+", "_", plugin.distribution).lower()
        if name == plugin.id or f"zoo_{name}" == distribution:
            raise ZooError(
                f"a plugin {plugin.id!r} is installed already ({plugin.distribution} {plugin.version}); "
                f"two of one name cannot be. How about {f'my_{name}'!r}?"
            )
    return name
