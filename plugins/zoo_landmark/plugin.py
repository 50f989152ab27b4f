"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

from typing import Any

import zoo.plugin as zp

__zoo_api__ = 1

_COMMON: dict[str, Any] = {
    "paper": zp.Paper(
        title="Landmark Attention: Random-Access Infinite Context Length for Transformers",
        url="https://arxiv.org/abs/2305.16300",
        year=2023,
    ),
    "tags": ("memory", "retrieval", "long-context"),
    "causal": "always",
    "streaming": True,
    "state": "linear",
    "cost": "quadratic",
}
_MIXER: dict[str, Any] = {
    "config": "zoo_landmark.config:LandmarkConfig",
    "rotary": True,
    "exact_when": {"block": 256},
    **_COMMON,
}


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.MixerSpec(
            name="landmark",
            target="zoo_landmark.layers:LandmarkAttention",
            reference="zoo_landmark.reference:landmark",
            summary="Attention that fetches earlier blocks by landmarks which it makes itself.",
            variants=({"block": 5, "window": 1, "top_k": 2, "select": "token"},),
            **_MIXER,
        ),
        zp.MixerSpec(
            name="tokens",
            target="zoo_landmark.layers:LandmarkTokens",
            reference="zoo_landmark.reference:tokens",
            summary="The same where landmarks are tokens of the input: what landmark/lm is made of.",
            variants=({"block": 5, "window": 1, "top_k": 2, "max_blocks": 6, "bias": False},),
            **_MIXER,
        ),
        zp.ModelSpec(
            name="lm",
            target="zoo_landmark.model:LandmarkLm",
            config="zoo_landmark.config:LmConfig",
            summary="Transformer with a landmark token behind every block; fetches blocks from any distance.",
            **_COMMON,
        ),
        zp.TransformSpec(
            name="llama",
            target="zoo_landmark.llama:apply",
            config="zoo_landmark.config:FetchConfig",
            example="zoo_landmark.llama:example",
            summary="landmark attention for a LLaMA of the library transformers",
            paper=_COMMON["paper"],
            tags=_COMMON["tags"],
            extras=("hf",),
        ),
    )
