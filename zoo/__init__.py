"""A plugin-based zoo of model architectures. Importing it loads neither torch nor omegaconf.

import zoo
zoo.list_models("*", accepts="tokens")
model = zoo.create_model("aaren/encoder", dataset="digits", depth=2)
run = zoo.train("aaren/digits", ["trainer.max_epochs=2"])
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.api import (
        create_dataset,
        create_model,
        evaluate,
        find_run,
        list_datasets,
        list_models,
        list_recipes,
        load_model,
        load_recipe,
        predict,
        resume,
        train,
    )
    from zoo.errors import ZooError
    from zoo.layers.transform import apply_transform, fold_transforms

    __version__: str

_LAZY = {
    "apply_transform": "zoo.layers.transform",
    "create_dataset": "zoo.api",
    "create_model": "zoo.api",
    "evaluate": "zoo.api",
    "find_run": "zoo.api",
    "fold_transforms": "zoo.layers.transform",
    "list_datasets": "zoo.api",
    "list_models": "zoo.api",
    "list_recipes": "zoo.api",
    "load_model": "zoo.api",
    "load_recipe": "zoo.api",
    "predict": "zoo.api",
    "resume": "zoo.api",
    "train": "zoo.api",
    "ZooError": "zoo.errors",
}

__all__ = [
    "ZooError",
    "__version__",
    "apply_transform",
    "create_dataset",
    "create_model",
    "evaluate",
    "find_run",
    "fold_transforms",
    "list_datasets",
    "list_models",
    "list_recipes",
    "load_model",
    "load_recipe",
    "predict",
    "resume",
    "train",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("archzoo")
        if name not in _LAZY:
            # Python adds the name that was meant, where it can look for it.
            raise AttributeError(
                f"module 'zoo' has no attribute {name!r}", name=name, obj=sys.modules[__name__]
            )
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
