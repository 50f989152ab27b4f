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
        zp.ModelSpec(
            name="conv",
            target="zoo_slimmable.model:Encoder",
            config="zoo_slimmable.config:ConvConfig",
            summary="a residual convolutional encoder whose width is chosen at run time",
            paper=_SLIMMABLE,
            accepts="image",
            causal="never",
            tags=("slimmable", "image"),
            status="variant",
        ),
        *(
            zp.HeadSpec(
                name=name,
                target="zoo_slimmable.model:Decoders",
                config=f"zoo_slimmable.config:{config}",
                summary=summary,
                paper=_ECMT,
                accepts="image",
                answers=answers,
                cost=20,  # chosen only where it is named
                tags=("slimmable",),
                status="variant",
            )
            for name, answers, config, summary in (
                (
                    "decoders",
                    "multi",
                    "DecodersConfig",
                    "a decoder for each question, with a width of its own",
                ),
                ("classifier", "classes", "DecodersConfig", "a slimmable decoder for one class"),
                ("regressor", "values", "DecodersConfig", "a slimmable decoder for values"),
                (
                    "map_decoders",
                    "maps",
                    "MapDecodersConfig",
                    "a decoder for each question about each pixel, with a width of its own",
                ),
            )
        ),
        zp.CallbackSpec(
            name="sandwich",
            target="zoo_slimmable.sandwich:Sandwich",
            config="zoo_slimmable.config:SandwichConfig",
            summary="trains many widths at once: sandwich rule, features that do not depend on the width",
            paper=_ECMT,
            tags=("slimmable", "distillation"),
            status="variant",
        ),
        zp.CommandSpec(
            name="search",
            target="zoo_slimmable.commands:find",
            config="zoo_slimmable.config:SearchConfig",
            summary="find widths of encoder and decoders for a budget of FLOPs and preferences among tasks",
            paper=_ECMT,
        ),
        zp.CommandSpec(
            name="export",
            target="zoo_slimmable.commands:export",
            config="zoo_slimmable.config:ExportConfig",
            summary="cut a small network out of a run's model, and write it as a program that needs no zoo",
            paper=_SLIMMABLE,
        ),
        zp.CommandSpec(
            name="curves",
            target="zoo_slimmable.commands:curves",
            config="zoo_slimmable.config:CurvesConfig",
            summary="draw quality against FLOPs for each task, and measure how well preferences are followed",
            paper=_ECMT,
        ),
    )
