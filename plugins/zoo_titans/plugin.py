"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

from typing import Any

import zoo.plugin as zp

__zoo_api__ = 1

_PAPER = zp.Paper(
    title="Titans: Learning to Memorize at Test Time", url="https://arxiv.org/abs/2501.00663", year=2024
)
_TAGS = ("recurrent", "linear-time", "memory")
_HYBRID: dict[str, Any] = {
    "paper": _PAPER,
    "tags": _TAGS,
    "causal": "always",
    "streaming": True,
    "cost": "linear",
    "rotary": True,
}
_OTHER_MEMORY: dict[str, Any] = {"gates": "chunk", "activation": "gelu", "residual": True}


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (*MIXERS, *MODELS, *CALLBACKS)


MIXERS = (
    zp.MixerSpec(
        name="memory",
        target="zoo_titans.layers:NeuralMemory",
        config="zoo_titans.config:MemoryConfig",
        reference="zoo_titans.reference:memory_layer",
        summary="a network per head that learns keys and values while it reads; streams in constant memory",
        paper=_PAPER,
        tags=_TAGS,
        causal="always",
        streaming=True,
        state="constant",
        cost="linear",
        variants=(
            {"chunk": 5, **_OTHER_MEMORY},
            {"chunk": 1, "depth": 1, "conv": 1},
        ),
    ),
    zp.MixerSpec(
        name="mac",
        target="zoo_titans.mac:MemoryAsContext",
        config="zoo_titans.config:MacConfig",
        reference="zoo_titans.reference:mac",
        summary="memory as a context: attention in segments sees what the memory gives for them",
        state="constant",
        variants=({"segment": 11, "persistent": 0, **_OTHER_MEMORY},),
        **_HYBRID,
    ),
    zp.MixerSpec(
        name="mag",
        target="zoo_titans.window:MemoryAsGate",
        config="zoo_titans.config:WindowConfig",
        reference="zoo_titans.reference:mag",
        summary="memory as a gate: of attention in a sliding window, side by side",
        state="window",
        variants=({"chunk": 5, "window": 9, "init": "recall", "loss_scale": 0.5},),
        **_HYBRID,
    ),
    zp.MixerSpec(
        name="mal",
        target="zoo_titans.window:MemoryAsLayer",
        config="zoo_titans.config:WindowConfig",
        reference="zoo_titans.reference:mal",
        summary="memory as a layer: attention in a sliding window over what the memory reads",
        state="window",
        variants=({"chunk": 5, "window": 9, "persistent": 0, **_OTHER_MEMORY},),
        **_HYBRID,
    ),
)


def _model(name: str, mixer: str, summary: str, positions: str = "rope") -> zp.ModelSpec:
    return zp.ModelSpec(
        name=name,
        base="core/transformer",
        params={"layers": [mixer], "positions": positions},
        summary=summary,
        paper=_PAPER,
        tags=_TAGS,
    )


MODELS = (
    _model("lmm", "titans/memory", "long-term memory alone: a neural memory in every layer", "none"),
    _model("mac", "titans/mac", "Titans (MAC): memory as a context of attention in segments"),
    _model("mag", "titans/mag", "Titans (MAG): memory as a gate of attention in a sliding window"),
    _model("mal", "titans/mal", "Titans (MAL): memory, then attention in a sliding window"),
)

CALLBACKS = (
    zp.CallbackSpec(
        name="memories",
        target="zoo_titans.watch:Memories",
        config="zoo_titans.config:MemoriesConfig",
        summary="gates, errors, surprise and size of every memory over training, and a word if one unlearns",
        paper=_PAPER,
        tags=("memory",),
    ),
)
