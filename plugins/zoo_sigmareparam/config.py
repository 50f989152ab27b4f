"""Parameters of the plugin's components (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from zoo.plugin import Config, param

#: Kinds of layers by name; `zoo_sigmareparam.weights` knows the classes.
KINDS = (
    "Linear",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "MultiheadAttention",
    "Conv1D",
)
DEFAULT_KINDS = ("Linear", "Conv1d", "Conv2d", "Conv3d", "MultiheadAttention", "Conv1D")


@dataclass(frozen=True, kw_only=True)
class SigmaReparamConfig(Config):
    """Parameters of `sigmareparam/sigmareparam`, those of `apply_sigma_reparam`."""

    include: tuple[str, ...] = param(DEFAULT_KINDS, f"kinds of layers to convert, of {', '.join(KINDS)}")
    exclude: tuple[str, ...] = param((), "names of modules to leave alone, or patterns such as 'head*'")
    gamma_init: Literal["match"] | float = param(
        "match", "first norm of each map; match keeps the function, the paper starts at 1.0", above=0
    )
    reinit_std: float | None = param(None, "draw the weights anew, normal with this deviation", above=0)
    n_iter_init: int = param(30, "steps of the power iteration on conversion", at_least=1)
    norms: Literal["keep", "remove"] | tuple[str, ...] = param(
        "keep", "remove all normalisation layers, or those of these names or patterns"
    )
    split: dict[str, int] = param(
        factory=dict, help="layers (names or patterns) whose rows are so many maps, e.g. {'*.qkv': 3}"
    )

    def check(self) -> Iterator[tuple[str, str]]:
        for kind in self.include:
            if kind not in KINDS:
                yield "include", f"there is no kind of layer {kind!r} here; there is: {', '.join(KINDS)}"
        for name, parts in self.split.items():
            if parts < 1:
                yield "split", f"{name}: must be at least 1, got {parts}"
        if self.norms == "remove" and self.gamma_init == "match" and self.reinit_std is None:
            yield (
                "norms",
                "remove breaks trained weights, which gamma_init: match keeps: give reinit_std (the paper: "
                "0.02) or a number for gamma_init, or name the norms, e.g. ['*'], to remove them anyway",
            )

    def folded(self) -> SigmaReparamConfig | None:
        """Folding gives plain weights back, but not the norms that were removed."""
        if self.norms == "keep":
            return None
        norms = ("*",) if self.norms == "remove" else self.norms
        return replace(self, include=(), exclude=(), split={}, reinit_std=None, norms=norms)


@dataclass(frozen=True, kw_only=True)
class AttentionEntropyConfig(Config):
    """Parameters of `sigmareparam/attention_entropy`."""

    every_steps: int = param(50, "updates between two looks (and one after the first)", at_least=1)
    examples: int = param(8, "examples of the batch that are looked at", at_least=1)
    warn_below: float = param(
        0.05, "share of the highest entropy below which a layer has collapsed", at_least=0, at_most=1
    )
    bound: bool = param(False, "draw the least entropy that theorem 3.1 allows beside it")
