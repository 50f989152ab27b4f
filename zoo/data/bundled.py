"""The data files that come with the package. Their licences are in `bundled/DATA_LICENSES`."""

from __future__ import annotations

import csv
import io
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np

from zoo.errors import ZooError, suggest


def read_bytes(name: str) -> bytes:
    """The content of a bundled file.

    Raises:
        ZooError: there is none of this name.
    """
    path = _folder() / name
    if not path.is_file():
        known = [p.name for p in _folder().iterdir()] if _folder().is_dir() else []
        hint = suggest(name, known) or " The installation is incomplete: reinstall archzoo."
        raise ZooError(f"there is no bundled data file {name!r}.{hint}")
    return path.read_bytes()


def read_arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of a bundled npz (never a pickle)."""
    with np.load(io.BytesIO(read_bytes(name)), allow_pickle=False) as file:
        return dict(file)


def read_rows(name: str) -> list[dict[str, str]]:
    """The rows of a bundled CSV with a header."""
    return list(csv.DictReader(io.StringIO(read_bytes(name).decode())))


def _folder() -> Traversable:
    return resources.files("zoo.data") / "bundled"
