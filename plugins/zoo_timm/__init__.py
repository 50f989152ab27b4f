"""Every image model of timm, as models of the zoo."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_timm.config import TimmConfig
    from zoo_timm.model import TimmBackbone, build

# Lazy, so that the plugin's specs and configs load without torch.
_HOME = {"TimmBackbone": "model", "TimmConfig": "config", "build": "model"}

__all__ = ["TimmBackbone", "TimmConfig", "build"]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
