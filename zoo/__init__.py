"""A plugin-based zoo of model architectures. Importing it loads neither torch nor omegaconf.

import zoo
zoo.list_models("*", accepts="tokens")
model = zoo.create_model("aaren/encoder", dataset="digits", depth=2)
run = zoo.train("aaren/digits", ["trainer.max_epochs=2"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.api import (
        create_dataset,
        create_model,
        list_datasets,
        list_models,
        list_recipes,
        load_model,
        load_recipe,
        train,
    )
    from zoo.errors import ZooError
    from zoo.layers.transform import apply_transform, fold_transforms

_LAZY = {
    "apply_transform": "zoo.layers.transform",
    "create_dataset": "zoo.api",
    "create_model": "zoo.api",
    "fold_transforms": "zoo.layers.transform",
    "list_datasets": "zoo.api",
    "list_models": "zoo.api",
    "list_recipes": "zoo.api",
    "load_model": "zoo.api",
    "load_recipe": "zoo.api",
    "train": "zoo.api",
    "ZooError": "zoo.errors",
}

__all__ = [
    "ZooError",
    "__version__",
    "apply_transform",
    "create_dataset",
    "create_model",
    "fold_transforms",
    "list_datasets",
    "list_models",
    "list_recipes",
    "load_model",
    "load_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("archzoo")
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
