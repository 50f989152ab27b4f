"""Imports torch when it lists its components."""

import zoo.plugin as zp

__zoo_api__ = 1


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    import torch

    return (
        zp.MixerSpec(
            name="hooked_mean",
            target="tests.saboteurs.mixers:Mean",
            summary=f"Built against torch {torch.__version__}.",
            causal="optional",
            streaming=True,
            state="constant",
        ),
    )
