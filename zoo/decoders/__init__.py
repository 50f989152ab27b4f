"""How the next symbol is chosen from what a language model gives. Lazy, so that `config` stays torch-free."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.decoders.base import Decoder, pick

_MODULE_OF = {"Decoder": "base", "pick": "base"}

__all__ = ["Decoder", "pick"]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
