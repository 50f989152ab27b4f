"""What the plugin brings to the zoo (torch-free)."""

from __future__ import annotations

import zoo.plugin as zp

__zoo_api__ = 1

_PAPER = zp.Paper(
    title="Combiner: Full Attention Transformer with Sparse Computation Cost",
    url="https://arxiv.org/abs/2107.05768",
    year=2021,
)
_TAGS = ("sparse", "full-attention")


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        zp.MixerSpec(
            name="fixed",
            target="zoo_combiner.layers:CombinerFixed",
            config="zoo_combiner.config:FixedConfig",
            reference="zoo_combiner.reference:layer",
            summary="full attention: the own block token by token, other blocks through one summary each",
            paper=_PAPER,
            tags=_TAGS,
            causal="optional",
            streaming=True,
            state="linear",
            cost="subquadratic",
            exact_when={"block_size": 128},
            variants=({"pooling": "deepset", "block_size": 5}, {"pooling": "none"}),
        ),
        zp.MixerSpec(
            name="logsparse",
            target="zoo_combiner.layers:CombinerLogsparse",
            config="zoo_combiner.config:LogsparseConfig",
            reference="zoo_combiner.reference:layer",
            summary="full attention: spans that double in length, one summary each",
            paper=_PAPER,
            tags=_TAGS,
            causal="optional",
            streaming=True,
            state="linear",
            cost="linearithmic",
            variants=({"pooling": "mean"}, {"pooling": "none"}),
        ),
        zp.MixerSpec(
            name="axial",
            target="zoo_combiner.layers:CombinerAxial",
            config="zoo_combiner.config:AxialConfig",
            reference="zoo_combiner.reference:layer",
            summary="full attention: the own row token by token, others through summaries of rows or columns",
            paper=_PAPER,
            tags=_TAGS,
            causal="optional",
            streaming=True,
            state="linear",
            cost="subquadratic",
            variants=(
                {"row_summary": "wsum_proj", "block_size": 5},
                {"plan": "vertical"},
                {"plan": "horizontal", "pooling": "mean"},
                {"plan": "mixture", "pooling": "deepset"},
                {"plan": "average"},
            ),
        ),
        zp.ModelSpec(
            name="encoder",
            base="core/transformer",
            params={"layers": ["combiner/axial"]},
            summary="pre-norm transformer with Combiner-Axial, row-major, in place of self-attention",
            paper=_PAPER,
            tags=_TAGS,
        ),
    )
