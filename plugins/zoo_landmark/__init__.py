"""Landmark attention: blocks of the past are fetched by the landmark that stands behind each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_landmark.cache import Blocks, LandmarkCache, Retrieved
    from zoo_landmark.config import LandmarkConfig, LmConfig
    from zoo_landmark.functional import (
        grouped_softmax,
        insert_landmarks,
        landmark_attention,
        landmark_log_weights,
        landmark_softmax,
        remove_landmarks,
        section_ids,
        shift_labels,
    )
    from zoo_landmark.layers import LandmarkAttention, LandmarkTokens
    from zoo_landmark.model import LandmarkLm
    from zoo_landmark.stream import LandmarkState

# Lazy, so that the plugin's specs and configs load without torch.
_HOME = {
    "Blocks": "cache",
    "LandmarkAttention": "layers",
    "LandmarkCache": "cache",
    "LandmarkConfig": "config",
    "LandmarkLm": "model",
    "LandmarkState": "stream",
    "LandmarkTokens": "layers",
    "LmConfig": "config",
    "Retrieved": "cache",
    "grouped_softmax": "functional",
    "insert_landmarks": "functional",
    "landmark_attention": "functional",
    "landmark_log_weights": "functional",
    "landmark_softmax": "functional",
    "remove_landmarks": "functional",
    "section_ids": "functional",
    "shift_labels": "functional",
}

__all__ = [
    "Blocks",
    "LandmarkAttention",
    "LandmarkCache",
    "LandmarkConfig",
    "LandmarkLm",
    "LandmarkState",
    "LandmarkTokens",
    "LmConfig",
    "Retrieved",
    "grouped_softmax",
    "insert_landmarks",
    "landmark_attention",
    "landmark_log_weights",
    "landmark_softmax",
    "remove_landmarks",
    "section_ids",
    "shift_labels",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
