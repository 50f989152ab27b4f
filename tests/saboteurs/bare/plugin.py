"""No README.md stands beside this file."""

import zoo.plugin as zp

__zoo_api__ = 1


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.MixerSpec(
            name="bare_mean",
            target="tests.saboteurs.mixers:Mean",
            summary="An honest mean without a card.",
            causal="optional",
            streaming=True,
            state="constant",
        ),
    )
