"""TransNormer: linear attention that trains in parallel, in linear time, and runs with constant memory."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_transnormer.config import (
        DiagAttentionConfig,
        LightningConfig,
        LlmConfig,
        MiniMaxConfig,
        NormAttentionConfig,
        SgluConfig,
        TnlModuleConfig,
        TransNormerConfig,
    )
    from zoo_transnormer.functional import (
        decay_slopes,
        diag_attention,
        lightning_attention,
        lightning_attention_parallel,
        lightning_attention_recurrent,
        lightning_attention_step,
        linear_attention_bidirectional,
        lrpe,
        srms_norm,
    )
    from zoo_transnormer.layers import LightningAttention, LightningState, Sglu
    from zoo_transnormer.model import TransNormer, build_llm
    from zoo_transnormer.v1 import DiagAttention, DiagState, NormAttention

# Lazy, so that the plugin's specs and configs load without torch.
_HOME = {
    "DiagAttention": "v1",
    "DiagAttentionConfig": "config",
    "DiagState": "v1",
    "LightningAttention": "layers",
    "LightningConfig": "config",
    "LightningState": "layers",
    "LlmConfig": "config",
    "MiniMaxConfig": "config",
    "NormAttention": "v1",
    "NormAttentionConfig": "config",
    "Sglu": "layers",
    "SgluConfig": "config",
    "TnlModuleConfig": "config",
    "TransNormer": "model",
    "TransNormerConfig": "config",
    "build_llm": "model",
    "decay_slopes": "functional",
    "diag_attention": "functional",
    "lightning_attention": "functional",
    "lightning_attention_parallel": "functional",
    "lightning_attention_recurrent": "functional",
    "lightning_attention_step": "functional",
    "linear_attention_bidirectional": "functional",
    "lrpe": "functional",
    "srms_norm": "functional",
}

__all__ = [
    "DiagAttention",
    "DiagAttentionConfig",
    "DiagState",
    "LightningAttention",
    "LightningConfig",
    "LightningState",
    "LlmConfig",
    "MiniMaxConfig",
    "NormAttention",
    "NormAttentionConfig",
    "Sglu",
    "SgluConfig",
    "TnlModuleConfig",
    "TransNormer",
    "TransNormerConfig",
    "build_llm",
    "decay_slopes",
    "diag_attention",
    "lightning_attention",
    "lightning_attention_parallel",
    "lightning_attention_recurrent",
    "lightning_attention_step",
    "linear_attention_bidirectional",
    "lrpe",
    "srms_norm",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
