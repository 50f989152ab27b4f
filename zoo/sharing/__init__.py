"""Trained models for use elsewhere: files of other formats, and the Hugging Face hub.

B batch, N tokens or time steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.sharing.export import Exported, export_run
    from zoo.sharing.hub import fetch_weights
    from zoo.sharing.push import Pushed, push_run

_HOMES = {
    "Exported": "zoo.sharing.export",
    "Pushed": "zoo.sharing.push",
    "export_run": "zoo.sharing.export",
    "fetch_weights": "zoo.sharing.hub",
    "push_run": "zoo.sharing.push",
}

__all__ = ["Exported", "Pushed", "export_run", "fetch_weights", "push_run"]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'zoo.sharing' has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
