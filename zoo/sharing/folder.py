"""Folders of exports: written whole or not at all, replaced only when asked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

#: The description beside a model; its first key tells folders that may be replaced.
DESCRIPTION, MARK = "model.json", "archzoo_export"


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Put the description of a model beside it."""
    text = json.dumps({MARK: 1, **description}, indent=2, ensure_ascii=False)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is there already, unless it is an earlier export that is to be replaced.

    Raises:
        ZooError: it is, and what to do.
    """
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise ZooError(f"{str(target)!r} is there already: --overwrite replaces it, --output names another")
    try:
        ours = MARK in json.loads((target / DESCRIPTION).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise ZooError(
            f"{str(target)!r} is no export of the zoo, so it is not replaced: choose another --output"
        )


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A folder that takes the place of `target` once it is whole; where that fails, the old one stays.

    Raises:
        ZooError: the file system refuses.
    """
    mark = f".{target.name}.{os.getpid()}"
    made, old = target.with_name(f"{mark}.partial"), target.with_name(f"{mark}.old")
    try:
        made.mkdir(parents=True)
        yield made
        if target.exists():
            os.replace(target, old)
        os.replace(made, target)
    except OSError as error:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise ZooError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
    finally:
        for left in (made, old):
            shutil.rmtree(left, ignore_errors=True)
