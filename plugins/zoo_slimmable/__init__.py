"""Networks whose width is chosen at run time, and multi-task networks searched among their widths."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_slimmable.config import SlimmableConfig
    from zoo_slimmable.convert import make_slimmable
    from zoo_slimmable.convolution import SlimmableConv2d, SlimmableConvTranspose2d
    from zoo_slimmable.cost import Cost
    from zoo_slimmable.export import export_slim
    from zoo_slimmable.layers import SlimmableAttention, SlimmableEmbedding, SlimmableLinear, SlimmableMlp
    from zoo_slimmable.norms import (
        SlimmableBatchNorm2d,
        SlimmableGroupNorm,
        SlimmableLayerNorm,
        SwitchableBatchNorm2d,
        calibrate,
    )
    from zoo_slimmable.widths import Channels, current_width, set_width, width_scope

# Lazy, so that the plugin's specs and configs load without torch.
_HOME = {
    "Channels": "widths",
    "Cost": "cost",
    "SlimmableAttention": "layers",
    "SlimmableBatchNorm2d": "norms",
    "SlimmableConfig": "config",
    "SlimmableConv2d": "convolution",
    "SlimmableConvTranspose2d": "convolution",
    "SlimmableEmbedding": "layers",
    "SlimmableGroupNorm": "norms",
    "SlimmableLayerNorm": "norms",
    "SlimmableLinear": "layers",
    "SlimmableMlp": "layers",
    "SwitchableBatchNorm2d": "norms",
    "calibrate": "norms",
    "current_width": "widths",
    "export_slim": "export",
    "make_slimmable": "convert",
    "set_width": "widths",
    "width_scope": "widths",
}

__all__ = [
    "Channels",
    "Cost",
    "SlimmableAttention",
    "SlimmableBatchNorm2d",
    "SlimmableConfig",
    "SlimmableConv2d",
    "SlimmableConvTranspose2d",
    "SlimmableEmbedding",
    "SlimmableGroupNorm",
    "SlimmableLayerNorm",
    "SlimmableLinear",
    "SlimmableMlp",
    "SwitchableBatchNorm2d",
    "calibrate",
    "current_width",
    "export_slim",
    "make_slimmable",
    "set_width",
    "width_scope",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
