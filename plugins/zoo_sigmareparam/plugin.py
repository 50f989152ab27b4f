"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

import zoo.plugin as zp

__zoo_api__ = 1

_PAPER = zp.Paper(
    title="Stabilizing Transformer Training by Preventing Attention Entropy Collapse",
    url="https://arxiv.org/abs/2303.06296",
    year=2023,
)


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.TransformSpec(
            name="sigmareparam",
            target="zoo_sigmareparam.convert:apply",
            fold="zoo_sigmareparam.convert:fold_sigma_reparam_",
            config="zoo_sigmareparam.config:SigmaReparamConfig",
            summary="a learned spectral norm for every linear map: stable training, also without norms",
            paper=_PAPER,
            tags=("stability", "attention-entropy"),
        ),
        zp.CallbackSpec(
            name="attention_entropy",
            target="zoo_sigmareparam.watch:AttentionEntropy",
            config="zoo_sigmareparam.config:AttentionEntropyConfig",
            summary="entropy of every attention head over training: a heat map, and a warning on collapse",
            paper=_PAPER,
            tags=("attention-entropy",),
        ),
    )
