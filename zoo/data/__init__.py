"""Built-in datasets, and what a plugin needs to bring its own: splits, batches, text codecs, scales.

Lazy, so that `zoo.data.config` and `zoo.data.specs` stay torch-free.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.data.batch import Batch, Example, collate, mask_of
    from zoo.data.events import EncodeEvents, EventWindows
    from zoo.data.read import read_examples, read_inputs
    from zoo.data.scale import Standardise
    from zoo.data.split import Split, Splits, TensorSplit, TokenWindows
    from zoo.data.text import Bytes, Characters

_MODULE_OF = {
    "Batch": "batch",
    "Bytes": "text",
    "Characters": "text",
    "EncodeEvents": "events",
    "EventWindows": "events",
    "Example": "batch",
    "Split": "split",
    "Splits": "split",
    "Standardise": "scale",
    "TensorSplit": "split",
    "TokenWindows": "split",
    "collate": "batch",
    "mask_of": "batch",
    "read_examples": "read",
    "read_inputs": "read",
}

__all__ = [
    "Batch",
    "Bytes",
    "Characters",
    "EncodeEvents",
    "EventWindows",
    "Example",
    "Split",
    "Splits",
    "Standardise",
    "TensorSplit",
    "TokenWindows",
    "collate",
    "mask_of",
    "read_examples",
    "read_inputs",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
