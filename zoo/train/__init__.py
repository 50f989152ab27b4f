"""Training, evaluation and prediction: the only package that imports Lightning. Lazy."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.train.evaluation import evaluate, predict
    from zoo.train.fit import resume, train
    from zoo.train.module import Diverged
    from zoo.train.result import EvalResult, RunResult

_MODULE_OF = {
    "Diverged": "module",
    "EvalResult": "result",
    "RunResult": "result",
    "evaluate": "evaluation",
    "predict": "evaluation",
    "resume": "fit",
    "train": "fit",
}

__all__ = ["Diverged", "EvalResult", "RunResult", "evaluate", "predict", "resume", "train"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


class _Callable(types.ModuleType):
    """`zoo.train` is this package and a function of the Python API; importing one must not hide the other."""

    def __call__(self, *arguments: Any, **options: Any) -> RunResult:
        result: RunResult = importlib.import_module("zoo.api").train(*arguments, **options)
        return result


sys.modules[__name__].__class__ = _Callable
