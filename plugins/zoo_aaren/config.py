"""Parameters of the Aaren mixer (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.plugin import Config, param


@dataclass(frozen=True, kw_only=True)
class AarenConfig(Config):
    bias: bool = param(True, "biases in the query, key, value and output projections")
    scale: float | None = param(None, "factor of the scores; null means 1 / sqrt(channels per head)", above=0)
    query_init_std: float = param(
        1.0,
        "standard deviation of the learned query token at the start; 0 starts as a running mean",
        at_least=0,
    )
    dropout_prob: float = param(0.0, "dropout on the output of the layer", at_least=0, below=1)
    block_size: int | None = param(
        None, "tokens per chunk of the parallel form; null picks what is fast on CPU", at_least=1
    )
