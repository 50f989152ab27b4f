"""Parameters of the Titans layers (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zoo.plugin import Config, param


@dataclass(frozen=True, kw_only=True)
class _Memory(Config):
    """What every memory has."""

    depth: int = param(2, "layers of the memory's network; 1 is a linear memory", at_least=1, at_most=4)
    expansion: float = param(2.0, "hidden width of that network / channels of a head", above=0)
    activation: Literal["silu", "gelu"] = param("silu", "activation between its layers")
    residual: bool = param(False, "the memory adds its input to what its network gives")
    loss_scale: float = param(
        1.0, "factor of the squared error: 1 as in eq. (12), 0.5 as in the paper's appendix C", above=0
    )
    conv: int = param(
        4, "width in tokens of the short convolutions on queries, keys and values; 1: none", at_least=1
    )
    gates: Literal["token", "chunk"] = param(
        "token", "step, momentum and forgetting follow each token, or the first token of each chunk"
    )
    theta_max: float | None = param(
        None, "largest step; null: 1 / (chunk * loss_scale), by the stability rule of the card", above=0
    )
    theta_init: float = param(0.25, "the step at the start / theta_max", above=0, below=1)
    eta_init: float = param(0.5, "share of the momentum that a token keeps, at the start", above=0, below=1)
    alpha_init: float = param(
        0.001, "share of the memory that a token forgets, at the start", above=0, below=1
    )
    max_surprise: float | None = param(
        4.0,
        "soft bound on a token's gradient, as the root mean square of the error at unit keys; null: none",
        above=0,
    )
    init: Literal["random", "recall"] = param(
        "random",
        "recall: a token begins by asking for what followed it: queries start as keys of the token before",
    )
    dropout_prob: float = param(0.0, "dropout on the output of the layer", at_least=0, below=1)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.init == "recall" and self.conv < 2:
            yield (
                "init",
                f"recall needs convolutions that see the token before: conv of 2 or more, got {self.conv}",
            )


@dataclass(frozen=True, kw_only=True)
class MemoryConfig(_Memory):
    """Parameters of `titans/memory`."""

    chunk: int = param(
        16, "tokens whose gradients are taken at the same weights; 1: the exact recurrence", at_least=1
    )


@dataclass(frozen=True, kw_only=True)
class MacConfig(_Memory):
    """Parameters of `titans/mac`. A segment is also the chunk of the memory: it learns once per segment."""

    segment: int = param(16, "tokens per segment: attention sees no further back", at_least=1)
    persistent: int = param(4, "learned tokens that every token attends to", at_least=0)

    @property
    def chunk(self) -> int:
        """Tokens whose gradients are taken at the same weights."""
        return self.segment


@dataclass(frozen=True, kw_only=True)
class WindowConfig(MemoryConfig):
    """Parameters of `titans/mag` and `titans/mal`."""

    window: int = param(64, "a token attends to itself and this many minus one before it", at_least=1)
    persistent: int = param(4, "learned tokens before the sequence, attended to by all", at_least=0)


@dataclass(frozen=True, kw_only=True)
class MemoriesConfig(Config):
    """Parameters of `titans/memories`."""

    every_steps: int = param(50, "updates between two looks (and one after the first)", at_least=1)
    examples: int = param(8, "examples of the batch that are read", at_least=1)
