"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

import zoo.plugin as zp

__zoo_api__ = 1

_PAPER = zp.Paper(title="KAN: Kolmogorov-Arnold Networks", url="https://arxiv.org/abs/2404.19756", year=2024)


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.ModelSpec(
            name="kan",
            target="zoo_kan.model:Kan",
            config="zoo_kan.config:KanConfig",
            summary="layers whose edges are learned functions of one variable, on vectors",
            paper=_PAPER,
            tags=("splines", "interpretable"),
            accepts="vector",
            causal="never",
            presets={"paper": {"norm": "none", "low": -1.0, "high": 1.0}},
        ),
        zp.FeedForwardSpec(
            name="kan",
            target="zoo_kan.model:KanFeedForward",
            config="zoo_kan.config:KanFeedForwardConfig",
            summary="two KAN layers in place of a transformer's feed-forward",
            paper=_PAPER,
            status="variant",
            tags=("splines",),
        ),
        zp.StemSpec(
            name="raw",
            target="zoo_kan.model:Raw",
            config="zoo_kan.config:RawConfig",
            summary="the features as they are, zeros behind them up to the width; no weights",
            accepts="vector",
            returns="vector",
            cost=30,
        ),
        zp.HeadSpec(
            name="regressor",
            target="zoo_kan.model:KanHead",
            config="zoo_kan.config:KanHeadConfig",
            summary="a KAN layer to the values",
            paper=_PAPER,
            accepts="vector",
            answers="values",
            cost=30,
        ),
        zp.HeadSpec(
            name="classifier",
            target="zoo_kan.model:KanHead",
            config="zoo_kan.config:KanHeadConfig",
            summary="a KAN layer to the classes",
            paper=_PAPER,
            accepts="vector",
            answers="classes",
            cost=30,
        ),
        zp.CallbackSpec(
            name="grids",
            target="zoo_kan.watch:Grids",
            config="zoo_kan.config:GridsConfig",
            summary="moves the grids of KAN layers to their inputs, and makes them finer, while a run trains",
            paper=_PAPER,
            tags=("splines",),
            changes_model=True,
        ),
    )
