"""The formats of an export (torch-free)."""

from __future__ import annotations

from typing import Literal, get_args

from zoo.errors import ZooError, suggest

#: "safetensors" holds weights that `zoo.load_model` reads; the others are graphs.
Format = Literal["safetensors", "torch-export", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)


def check_format(name: str) -> Format:
    """The format of this name.

    Raises:
        ZooError: there is none; with what may have been meant.
    """
    if name not in FORMATS:
        raise ZooError(f"there is no format {name!r}.{suggest(name, FORMATS)}")
    return name
