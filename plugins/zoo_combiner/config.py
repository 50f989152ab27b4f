"""Parameters of the Combiner mixers (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zoo.plugin import Config, param

_BLOCK = "; null: the largest power of two up to the square root of max_tokens, 32 where that is not known"


@dataclass(frozen=True, kw_only=True)
class CombinerConfig(Config):
    """What all forms share."""

    bias: bool = param(False, "biases in the query, key, value and output projections")
    pooling: Literal["max", "mean", "deepset", "none"] = param(
        "max",
        "how a span's query and key are made from its tokens': their maximum, their mean, or the maximum of "
        "relu(W x) with learned W; none: no summaries, sparse attention of the same pattern, to compare with",
    )
    weights_dropout_prob: float = param(
        0.0, "dropout of the attention weights of tokens and spans", at_least=0, below=1
    )
    dropout_prob: float = param(0.0, "dropout on the output of the layer", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class FixedConfig(CombinerConfig):
    """Parameters of `combiner/fixed`."""

    block_size: int | None = param(None, "tokens per block" + _BLOCK, at_least=1)


@dataclass(frozen=True, kw_only=True)
class LogsparseConfig(CombinerConfig):
    """Parameters of `combiner/logsparse`."""


@dataclass(frozen=True, kw_only=True)
class AxialConfig(CombinerConfig):
    """Parameters of `combiner/axial`."""

    plan: Literal["rowmajor", "vertical", "horizontal", "mixture", "average"] = param(
        "rowmajor",
        "what is summarised: rows, as their token in the query's column sees them; the columns above; the "
        "rows left and right of the query's column; the last two in one softmax; or the mean of the last two",
    )
    block_size: int | None = param(None, "tokens per row" + _BLOCK, at_least=1)
    row_summary: Literal["none", "wsum", "proj", "wsum_proj"] = param(
        "proj",
        "key of a row (rowmajor only): of its token in the column; the row's keys as that token weights "
        "them; or learned from the row's mixed values, or mixed keys, and the token",
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.plan == "rowmajor" and self.pooling in ("mean", "deepset"):
            yield (
                "pooling",
                f"must be 'max' (the default) or 'none' for plan 'rowmajor', which pools nothing: its "
                f"rows are summarised as row_summary says; got {self.pooling!r}",
            )
