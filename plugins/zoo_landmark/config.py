"""Parameters of landmark attention (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from zoo.layers.config import TransformerConfig
from zoo.plugin import Config, MixerSpec, ModelSpec, param


@dataclass(frozen=True, kw_only=True)
class FetchConfig(Config):
    """How long blocks are and what of the past is seen; as such the parameters of `landmark/llama`."""

    block: int = param(50, "tokens per block; a landmark stands behind each", at_least=1)
    window: int = param(4, "blocks before the own one that are always seen", at_least=0)
    top_k: int | None = param(
        4,
        "blocks before these that are fetched, except in training, which sees all; null: all, always",
        at_least=0,
    )
    select: Literal["token_head", "token"] = param(
        "token_head", "which blocks are fetched: chosen by each token in each head, or for all its heads"
    )
    max_blocks: int | None = param(
        None, "blocks that can be fetched, the latest ones; null: all there were", at_least=1
    )
    offload: bool = param(False, "keys and values of blocks that can be fetched lie in CPU memory")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.max_blocks is not None and self.max_blocks < (self.top_k or 0):
            yield (
                "max_blocks",
                f"must be at least top_k={self.top_k}, the blocks fetched; got {self.max_blocks}",
            )


@dataclass(frozen=True, kw_only=True)
class LandmarkConfig(FetchConfig):
    """Parameters of `landmark/landmark` and `landmark/tokens`."""

    bias: bool = param(True, "biases in the projections")
    dropout_prob: float = param(0.0, "dropout on the output of the layer", at_least=0, below=1)

    def claims(self, spec: MixerSpec, catalogue: Any) -> MixerSpec:
        """With a limit of blocks the state is bounded."""
        return replace(spec, state="window") if self.max_blocks is not None else spec


@dataclass(frozen=True, kw_only=True)
class LmConfig(Config):
    """Parameters of `landmark/lm`."""

    depth: int = param(4, "number of layers", at_least=1)
    heads: int = param(4, "attention heads; must divide the width", at_least=1)
    attention: LandmarkConfig = param(factory=LandmarkConfig, help="of every layer, as in landmark/tokens")
    positions: Literal["rope", "none"] = param("rope", "how tokens know where they stand")
    feed_forward: str = param("core/mlp", "feed-forward of every layer")
    feed_forward_params: dict[str, Any] = param(factory=dict, help="its parameters")
    norm: Literal["layer", "rms", "srms"] = param("layer", "normalisation of each branch")
    dropout_prob: float = param(0.0, "dropout of embeddings and of each branch's output", at_least=0, below=1)

    def check_width(self, width: int) -> None:
        """Refuse a width that the heads do not divide.

        Raises:
            ConfigError: naming both numbers.
        """
        self.stack().check_width(width)

    def claims(self, spec: ModelSpec, catalogue: Any) -> ModelSpec:
        """Those of the stack.

        Raises:
            ConfigError: an unknown feed-forward, or parameters that it does not take.
        """
        return self.stack().claims(spec, catalogue)

    def stack(self) -> TransformerConfig:
        """The same as layers of the core's stack."""
        return TransformerConfig(
            depth=self.depth,
            heads=self.heads,
            layers=("landmark/tokens",),
            mixer_params={"landmark/tokens": asdict(self.attention)},
            feed_forward=self.feed_forward,
            feed_forward_params=self.feed_forward_params,
            norm=self.norm,
            positions=self.positions,
            dropout_prob=self.dropout_prob,
        )
