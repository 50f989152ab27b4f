"""Aaren: attention as a recurrent network, trained in parallel and run with constant memory."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_aaren.config import AarenConfig
    from zoo_aaren.functional import AarenState, aaren_combine, aaren_pool, aaren_scan, aaren_step
    from zoo_aaren.layers import Aaren

# Lazy, so that the plugin's specs and configs load without torch.
_HOME = {
    "Aaren": "layers",
    "AarenConfig": "config",
    "AarenState": "functional",
    "aaren_combine": "functional",
    "aaren_pool": "functional",
    "aaren_scan": "functional",
    "aaren_step": "functional",
}

__all__ = ["Aaren", "AarenConfig", "AarenState", "aaren_combine", "aaren_pool", "aaren_scan", "aaren_step"]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
