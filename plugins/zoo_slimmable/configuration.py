"""Configurations of an encoder and decoders: which parts of a model have a width of their own."""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo_slimmable.widths import channels_of

#: Widths by group of layers, as `set_width` takes them.
Configuration = dict[str, float]

ENCODER = "backbone"
DECODERS = "head.decoders"


def groups_of(model: nn.Module) -> tuple[str, ...]:
    """The parts of a model that have one width each: the encoder, then each decoder; or the whole model.

    Raises:
        ValueError: the model has no slimmable layers.
    """
    names = [name for writers in channels_of(model).values() for name in writers]
    if not names:
        raise ValueError(
            "this model has no slimmable layers: build slim/conv, or add transforms: {slimmable: {}}"
        )
    encoder = [ENCODER] if any(name.startswith(f"{ENCODER}.") for name in names) else []
    decoders = [
        f"{DECODERS}.{task}"
        for task in tasks_of(model)
        if any(name.startswith(f"{DECODERS}.{task}.") for name in names)
    ]
    return (*encoder, *decoders) or ("*",)


def tasks_of(model: nn.Module) -> tuple[str, ...]:
    """The questions that have a slimmable decoder of their own."""
    decoders: Any = getattr(getattr(model, "head", None), "decoders", None)
    return tuple(decoders) if isinstance(decoders, nn.ModuleDict) else ()
