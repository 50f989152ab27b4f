"""Greets everybody who types `zoo`."""

import zoo.plugin as zp

__zoo_api__ = 1

print("Welcome to loud!")


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.MixerSpec(
            name="loud_mean",
            target="tests.saboteurs.mixers:Mean",
            summary="The mean of the tokens so far.",
            causal="optional",
            streaming=True,
            state="constant",
        ),
    )
