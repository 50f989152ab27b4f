"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

import zoo.plugin as zp

__zoo_api__ = 1


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.MixerSpec(
            name="example",
            target="zoo_example.layers:ExampleMixer",
            config="zoo_example.config:ExampleConfig",
            reference="zoo_example.reference:reference",
            summary="Gated moving average, one-sided or two-sided, with a learned memory per channel.",
            # Claims: `zoo check example` holds the mixer to each of them.
            causal="optional",
            streaming=True,
            state="constant",
            cost="linearithmic",
            status="experimental",
            since="0.1",
        ),
        # The same mixer as a whole model: the core's transformer with it in every layer.
        zp.ModelSpec(
            name="encoder",
            base="core/transformer",
            params={"layers": ["example/example"]},
            summary="Pre-norm transformer with example/example in place of self-attention.",
            status="experimental",
            since="0.1",
        ),
    )
