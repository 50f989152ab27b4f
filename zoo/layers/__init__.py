"""Building blocks: the transformer stack, its mixers and feed-forwards, stems, heads and the whole model.

Importing this package, or `zoo.layers.config`, loads no torch; each name below loads its module when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.layers.attention import KVCache as KVCache
    from zoo.layers.attention import SoftmaxAttention as SoftmaxAttention
    from zoo.layers.attention import attend as attend
    from zoo.layers.attention import weights_by_values as weights_by_values
    from zoo.layers.config import MlpConfig as MlpConfig
    from zoo.layers.config import MlpNetConfig as MlpNetConfig
    from zoo.layers.config import SoftmaxConfig as SoftmaxConfig
    from zoo.layers.config import SwiGluConfig as SwiGluConfig
    from zoo.layers.config import TransformerConfig as TransformerConfig
    from zoo.layers.feed_forward import Mlp as Mlp
    from zoo.layers.feed_forward import SwiGlu as SwiGlu
    from zoo.layers.mlp_net import MlpNet as MlpNet
    from zoo.layers.model import Model as Model
    from zoo.layers.model import build_model as build_model
    from zoo.layers.modes import evaluating as evaluating
    from zoo.layers.native import Kernels as Kernels
    from zoo.layers.native import kernels as kernels
    from zoo.layers.norm import make_norm as make_norm
    from zoo.layers.padding import front_order as front_order
    from zoo.layers.padding import kept_in_front as kept_in_front
    from zoo.layers.padding import put_back as put_back
    from zoo.layers.pooling import Pool as Pool
    from zoo.layers.positions import LearnedPositions as LearnedPositions
    from zoo.layers.positions import Rotary as Rotary
    from zoo.layers.positions import position_ids as position_ids
    from zoo.layers.precision import full_precision as full_precision
    from zoo.layers.precision import sum_dtype as sum_dtype
    from zoo.layers.streams import by_age as by_age
    from zoo.layers.streams import check_state as check_state
    from zoo.layers.streams import detach_state as detach_state
    from zoo.layers.streams import load_state as load_state
    from zoo.layers.streams import of_any_age as of_any_age
    from zoo.layers.streams import put_padded as put_padded
    from zoo.layers.streams import put_rows as put_rows
    from zoo.layers.streams import save_state as save_state
    from zoo.layers.streams import select_rows as select_rows
    from zoo.layers.streams import step_rows as step_rows
    from zoo.layers.transform import apply_transform as apply_transform
    from zoo.layers.transform import fold_transforms as fold_transforms
    from zoo.layers.transformer import Transformer as Transformer
    from zoo.layers.weights import load_weights as load_weights
    from zoo.layers.weights import save_weights as save_weights

_MODULE_OF = {
    "KVCache": "attention",
    "SoftmaxAttention": "attention",
    "attend": "attention",
    "weights_by_values": "attention",
    "MlpConfig": "config",
    "MlpNetConfig": "config",
    "SoftmaxConfig": "config",
    "SwiGluConfig": "config",
    "TransformerConfig": "config",
    "Mlp": "feed_forward",
    "SwiGlu": "feed_forward",
    "MlpNet": "mlp_net",
    "Model": "model",
    "build_model": "model",
    "evaluating": "modes",
    "Kernels": "native",
    "kernels": "native",
    "make_norm": "norm",
    "front_order": "padding",
    "kept_in_front": "padding",
    "put_back": "padding",
    "Pool": "pooling",
    "LearnedPositions": "positions",
    "Rotary": "positions",
    "position_ids": "positions",
    "full_precision": "precision",
    "sum_dtype": "precision",
    "by_age": "streams",
    "check_state": "streams",
    "detach_state": "streams",
    "load_state": "streams",
    "of_any_age": "streams",
    "put_padded": "streams",
    "put_rows": "streams",
    "save_state": "streams",
    "select_rows": "streams",
    "step_rows": "streams",
    "Transformer": "transformer",
    "apply_transform": "transform",
    "fold_transforms": "transform",
    "load_weights": "weights",
    "save_weights": "weights",
}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
