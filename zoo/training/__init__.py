"""Training, evaluation and prediction: the only package that imports Lightning. Lazy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.training.callbacks import StopRequest
    from zoo.training.evaluation import evaluate, predict
    from zoo.training.fit import resume, train
    from zoo.training.generation import generate
    from zoo.training.module import Diverged
    from zoo.training.result import EvalResult, RunResult
    from zoo.training.transformed import TransformedRun, transform_run

_MODULE_OF = {
    "Diverged": "module",
    "EvalResult": "result",
    "RunResult": "result",
    "StopRequest": "callbacks",
    "evaluate": "evaluation",
    "generate": "generation",
    "predict": "evaluation",
    "resume": "fit",
    "train": "fit",
    "TransformedRun": "transformed",
    "transform_run": "transformed",
}

__all__ = [
    "Diverged",
    "EvalResult",
    "RunResult",
    "StopRequest",
    "TransformedRun",
    "evaluate",
    "generate",
    "predict",
    "resume",
    "train",
    "transform_run",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
