"""Parameters of the built-in decoders (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.config import Config, param


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Config):
    """Parameters of core/sample; a symbol must pass every test that is on."""

    temperature: float = param(
        1.0, "logits are divided by it: below 1 is bolder, above 1 more varied", above=0
    )
    top_k: int | None = param(None, "only the likeliest so many", at_least=1)
    top_p: float | None = param(
        None, "only the likeliest that together reach this probability", above=0, at_most=1
    )
    min_p: float | None = param(
        None, "only those at least so likely as this share of the likeliest", above=0, at_most=1
    )


@dataclass(frozen=True, kw_only=True)
class MirostatConfig(Config):
    """Parameters of core/mirostat."""

    target: float = param(4.0, "the surprise aimed at, tau, in bits per symbol", above=0)
    rate: float | None = param(
        None, "how fast the limit follows, eta; null: 1 for version 1, 0.1 for 2", above=0
    )
    version: Literal[1, 2] = param(2, "1: top-k from a fitted power law; 2: a limit on the surprise itself")
    ranks: int = param(100, "version 1: the likeliest so many give the power law", at_least=2)


@dataclass(frozen=True, kw_only=True)
class TopHConfig(Config):
    """Parameters of core/top_h."""

    alpha: float = param(0.4, "share of the distribution's entropy that is kept", above=0, at_most=1)
    most: int = param(100, "never more than the likeliest so many", at_least=1)
    temperature: float = param(1.0, "logits are divided by it", above=0)
    rule: Literal["paper", "official"] = param(
        "paper", "paper: entropies of renormalised prefixes; official: unnormalised sums, as its code has it"
    )
