"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

import zoo.plugin as zp

__zoo_api__ = 1

_SLIMMABLE = zp.Paper(
    title="Universally Slimmable Networks and Improved Training Techniques",
    url="https://arxiv.org/abs/1903.05134",
    year=2019,
)
_ECMT = zp.Paper(
    title="Efficient Controllable Multi-Task Architectures",
    url="https://arxiv.org/abs/2308.11744",
    year=2023,
)


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.TransformSpec(
            name="slimmable",
            target="zoo_slimmable.convert:apply",
            config="zoo_slimmable.config:SlimmableConfig",
            summary="widths at run time for a model that exists: channels, hidden widths, attention heads",
            paper=_SLIMMABLE,
            tags=("slimmable", "efficiency"),
            status="variant",
        ),
    )
