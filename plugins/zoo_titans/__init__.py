"""Titans: neural memory that learns at test time, alone and beside attention."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_titans.config import MacConfig, MemoryConfig, WindowConfig
    from zoo_titans.functional import (
        gate_products,
        neural_memory_read,
        neural_memory_scan,
        neural_memory_update,
    )
    from zoo_titans.layers import NeuralMemory
    from zoo_titans.reference import neural_memory_recurrent
    from zoo_titans.state import MemoryState

# Lazy, so that the plugin's specs and configs load without torch.
_HOME = {
    "MacConfig": "config",
    "MemoryConfig": "config",
    "MemoryState": "state",
    "NeuralMemory": "layers",
    "WindowConfig": "config",
    "gate_products": "functional",
    "neural_memory_read": "functional",
    "neural_memory_recurrent": "reference",
    "neural_memory_scan": "functional",
    "neural_memory_update": "functional",
}

__all__ = [
    "MacConfig",
    "MemoryConfig",
    "MemoryState",
    "NeuralMemory",
    "WindowConfig",
    "gate_products",
    "neural_memory_read",
    "neural_memory_recurrent",
    "neural_memory_scan",
    "neural_memory_update",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
