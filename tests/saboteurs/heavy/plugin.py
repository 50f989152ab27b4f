"""Imports torch where only specs belong."""

import torch

import zoo.plugin as zp

__zoo_api__ = 1


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.MixerSpec(
            name="heavy_mean",
            target="tests.saboteurs.mixers:Mean",
            summary=f"Built against torch {torch.__version__}.",
            causal="optional",
            streaming=True,
            state="constant",
        ),
    )
