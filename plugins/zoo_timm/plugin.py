"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

import zoo.plugin as zp

__zoo_api__ = 1

_BATCH_NORM = "batch normalisation: in training an example is normalised with the others of its batch"


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.ModelFamilySpec(
            members="zoo_timm.names:names",
            target="zoo_timm.model:build",
            config="zoo_timm.config:TimmConfig",
            summary="an image model of timm",
            accepts="image",
            causal="never",
            cost="quadratic",  # the worst of them: attention over all patches
            tags=("image", "timm"),
            # Small ones of three kinds that also take the 8 x 8 images of the bundled digits.
            shown={
                "lcnet_035": {"rows_apart": _BATCH_NORM},
                "test_efficientnet": {"rows_apart": _BATCH_NORM},
                "test_mambaout": {},
            },
            since="0.1",
        ),
    )
