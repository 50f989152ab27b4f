"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

import zoo.plugin as zp
from zoo_kan.config import FeynmanConfig

__zoo_api__ = 1

_PAPER = zp.Paper(title="KAN: Kolmogorov-Arnold Networks", url="https://arxiv.org/abs/2404.19756", year=2024)


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.ModelSpec(
            name="kan",
            target="zoo_kan.model:Kan",
            config="zoo_kan.config:KanConfig",
            variants=({"products": (3,), "norm": "none", "base": "identity"},),
            summary="layers whose edges are learned functions of one variable, on vectors",
            paper=_PAPER,
            tags=("splines", "interpretable"),
            accepts="vector",
            causal="never",
            presets={"paper": {"norm": "none", "low": -1.0, "high": 1.0}},
        ),
        zp.ModelSpec(
            name="conv",
            target="zoo_kan.conv:KanConv",
            config="zoo_kan.config:KanConvConfig",
            variants=({"channels": (4, 8), "basis": "chebyshev", "base": "none"},),
            summary="convolutions whose weights are learned functions, on images",
            paper=_PAPER,
            status="variant",
            tags=("splines", "image"),
            accepts="image",
            causal="never",
        ),
        zp.FeedForwardSpec(
            name="kan",
            target="zoo_kan.model:KanFeedForward",
            config="zoo_kan.config:KanFeedForwardConfig",
            variants=(
                {"basis": "rbf", "base": "identity"},
                {"basis": "chebyshev", "base": "none"},
                {"basis": "fourier", "edge_scale": True},
                {"order": 1, "extrapolate": "linear"},
            ),
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
        zp.CommandSpec(
            name="plot",
            target="zoo_kan.commands:plot",
            config="zoo_kan.config:PlotConfig",
            summary="draw a trained network with its learned functions, to kan.png in the run's folder",
            paper=_PAPER,
        ),
        zp.CommandSpec(
            name="formula",
            target="zoo_kan.write:formula",
            config="zoo_kan.config:FormulaConfig",
            summary="write a trained network as a formula, with how well it fits",
            paper=_PAPER,
            extras=("kan",),
        ),
        zp.DatasetSpec(
            name="feynman",
            target="zoo_kan.feynman:load",
            config="zoo_kan.config:FeynmanConfig",
            summary="Values of a formula of physics at random places. Which formula was it?",
            paper=zp.Paper(
                title="AI Feynman: a physics-inspired method for symbolic regression",
                url="https://arxiv.org/abs/1905.11481",
                year=2019,
            ),
            status="variant",
            inputs=FeynmanConfig().kinds()[0],
            targets=FeynmanConfig().kinds()[1],
            examples="1000 / 1000 / 1000",
            licence="synthetic, no rights",
            source="generated",
            synthetic=True,
            baseline="mse 1.0 (the mean of train)",
            known_good="mse 0, the formula itself",
            tags=("synthetic", "symbolic-regression"),
        ),
    )
