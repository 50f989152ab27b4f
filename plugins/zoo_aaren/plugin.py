"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

import zoo.plugin as zp

__zoo_api__ = 1

_PAPER = zp.Paper(title="Attention as an RNN", url="https://arxiv.org/abs/2405.13956", year=2024)


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.MixerSpec(
            name="aaren",
            target="zoo_aaren.layers:Aaren",
            config="zoo_aaren.config:AarenConfig",
            reference="zoo_aaren.reference:aaren",
            summary="softmax attention of one learned query over every prefix; streams in constant memory",
            paper=_PAPER,
            tags=("recurrent", "linear-time"),
            causal="always",
            streaming=True,
            state="constant",
            cost="linear",
            variants=({"bias": False, "block_size": 8},),
        ),
        zp.ModelSpec(
            name="encoder",
            base="core/transformer",
            params={"layers": ["aaren/aaren"]},
            presets={"paper": {"norm_first": False}},
            summary="pre-norm transformer with Aaren in place of self-attention; preset `paper`: post-norm",
            paper=_PAPER,
            tags=("recurrent", "linear-time"),
        ),
    )
