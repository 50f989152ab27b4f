"""Tasks: what is optimised and measured for a target kind. Lazy: `zoo.tasks.config` is torch-free."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.tasks.base import Task
    from zoo.tasks.classification import Classification
    from zoo.tasks.control import Control
    from zoo.tasks.event_forecasting import EventForecasting
    from zoo.tasks.forecasting import Forecasting
    from zoo.tasks.language_modelling import LanguageModelling
    from zoo.tasks.multi_task import MultiTask
    from zoo.tasks.regression import Regression
    from zoo.tasks.sequence_labelling import SequenceLabelling

_HOME = {
    "Task": "zoo.tasks.base",
    "Classification": "zoo.tasks.classification",
    "Regression": "zoo.tasks.regression",
    "LanguageModelling": "zoo.tasks.language_modelling",
    "Control": "zoo.tasks.control",
    "EventForecasting": "zoo.tasks.event_forecasting",
    "Forecasting": "zoo.tasks.forecasting",
    "SequenceLabelling": "zoo.tasks.sequence_labelling",
    "MultiTask": "zoo.tasks.multi_task",
}

__all__ = [
    "Classification",
    "Control",
    "EventForecasting",
    "Forecasting",
    "LanguageModelling",
    "MultiTask",
    "Regression",
    "SequenceLabelling",
    "Task",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)
