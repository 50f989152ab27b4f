"""Combiner: full attention at a sparse cost, through summaries of spans."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_combiner.config import AxialConfig, FixedConfig, LogsparseConfig
    from zoo_combiner.functional import combiner_attention, combiner_mixture, implied_attention
    from zoo_combiner.layers import CombinerAxial, CombinerFixed, CombinerLogsparse
    from zoo_combiner.stream import FixedCombinerCache

# Lazy, so that the plugin's specs and configs load without torch.
_HOME = {
    "AxialConfig": "config",
    "CombinerAxial": "layers",
    "CombinerFixed": "layers",
    "CombinerLogsparse": "layers",
    "FixedCombinerCache": "stream",
    "FixedConfig": "config",
    "LogsparseConfig": "config",
    "combiner_attention": "functional",
    "combiner_mixture": "functional",
    "implied_attention": "functional",
}

__all__ = [
    "AxialConfig",
    "CombinerAxial",
    "CombinerFixed",
    "CombinerLogsparse",
    "FixedCombinerCache",
    "FixedConfig",
    "LogsparseConfig",
    "combiner_attention",
    "combiner_mixture",
    "implied_attention",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
