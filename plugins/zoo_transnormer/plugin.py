"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

from typing import Any

import zoo.plugin as zp

__zoo_api__ = 1

_V1 = zp.Paper(title="The Devil in Linear Transformer", url="https://arxiv.org/abs/2210.10340", year=2022)
_LLM = zp.Paper(title="TransNormerLLM", url="https://arxiv.org/abs/2307.14995", year=2023)
_TNL = zp.Paper(
    title="Various Lengths, Constant Speed: Efficient Language Modeling with Lightning Attention",
    url="https://arxiv.org/abs/2405.17381",
    year=2024,
)
_MINIMAX = zp.Paper(
    title="MiniMax-01: Scaling Foundation Models with Lightning Attention",
    url="https://arxiv.org/abs/2501.08313",
    year=2025,
)
_LINEAR: dict[str, Any] = {"tags": ("linear-attention", "recurrent", "linear-time"), "cost": "linear"}
_LIGHTNING: dict[str, Any] = {
    "target": "zoo_transnormer.layers:LightningAttention",
    "reference": "zoo_transnormer.reference:lightning",
    "causal": "always",
    "streaming": True,
    "state": "constant",
    "by_layer": True,
    **_LINEAR,
}


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (*MIXERS, *FEED_FORWARDS, *MODELS)


MIXERS = (
    zp.MixerSpec(
        name="lightning",
        config="zoo_transnormer.config:LightningConfig",
        summary="Gated linear attention with a decay per head and layer; streams in constant memory.",
        paper=_TNL,
        variants=(
            {"decay": "minimax", "lrpe": "all", "norm": "layer", "gate": "sigmoid"},
            {"decay": "paper", "lrpe": "none", "norm": "rms", "gate": "none", "chunk_size": 5},
            {"decay": "none", "norm": "none", "gate": "lowrank_sigmoid", "activation": "elu_plus_one"},
        ),
        **_LIGHTNING,
    ),
    zp.MixerSpec(
        name="tnl_module",
        config="zoo_transnormer.config:TnlModuleConfig",
        summary="Lightning attention with activated values, layer norm and a low-rank sigmoid gate.",
        paper=_TNL,
        **_LIGHTNING,
    ),
    zp.MixerSpec(
        name="minimax",
        config="zoo_transnormer.config:MiniMaxConfig",
        summary="Lightning attention as in MiniMax-Text-01: activated values, RMS norm, sigmoid gate.",
        paper=_MINIMAX,
        **_LIGHTNING,
    ),
    zp.MixerSpec(
        name="norm_attention",
        target="zoo_transnormer.v1:NormAttention",
        config="zoo_transnormer.config:NormAttentionConfig",
        reference="zoo_transnormer.reference:norm_attention",
        summary="Linear attention scaled by a norm instead of a denominator; both ways or causal.",
        paper=_V1,
        causal="optional",
        streaming=True,
        state="constant",
        variants=({"activation": "swish", "positions": "none"},),
        **_LINEAR,
    ),
    zp.MixerSpec(
        name="diag_attention",
        target="zoo_transnormer.v1:DiagAttention",
        config="zoo_transnormer.config:DiagAttentionConfig",
        reference="zoo_transnormer.reference:diag",
        summary="Attention within blocks of tokens that do not overlap; both ways or causal.",
        paper=_V1,
        tags=("local-attention", "linear-time"),
        causal="optional",
        streaming=True,
        state="window",
        cost="linear",
        exact_when={"block": 256, "positions": "none"},
        variants=({"block": 5, "weights": "relu", "positions": "none"},),
    ),
)

FEED_FORWARDS = (
    zp.FeedForwardSpec(
        name="sglu",
        target="zoo_transnormer.layers:Sglu",
        config="zoo_transnormer.config:SgluConfig",
        summary="The product of two linear maps, without activation, then a third.",
        paper=_LLM,
    ),
)

MODELS = (
    zp.ModelSpec(
        name="llm",
        target="zoo_transnormer.model:build_llm",
        config="zoo_transnormer.config:LlmConfig",
        summary="TransNormerLLM: lightning attention and SGLU; streams in constant memory.",
        paper=_LLM,
        causal="always",
        streaming=True,
        state="constant",
        presets={
            "tiny": {"width": 128, "depth": 4, "heads": 4},
            "small": {"width": 512, "depth": 8, "heads": 8},
            "385m": {"width": 1024, "depth": 24, "heads": 8},
            "1b": {"width": 2048, "depth": 16, "heads": 16},
            "7b": {"width": 4096, "depth": 30, "heads": 32},
        },
        **_LINEAR,
    ),
    zp.ModelSpec(
        name="v1",
        target="zoo_transnormer.model:TransNormer",
        config="zoo_transnormer.config:TransNormerConfig",
        summary="TransNormer: layers of attention in blocks, then of linear attention with a norm.",
        paper=_V1,
        causal="optional",
        streaming=True,
        state="window",
        **_LINEAR,
    ),
)
