"""Parameters of the TransNormer family (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zoo.layers.config import TransformerConfig
from zoo.plugin import Config, ConfigError, ModelSpec, Problem, param

Activation = Literal["swish", "elu", "elu_plus_one", "none"]
Gate = Literal["linear", "sigmoid", "lowrank_sigmoid", "none"]
Norm = Literal["srms", "rms", "layer", "none"]
Schedule = Literal["alibi", "minimax", "paper", "none"]


@dataclass(frozen=True, kw_only=True)
class LightningConfig(Config):
    """Parameters of `transnormer/lightning`; the defaults are TransNormerLLM's."""

    decay: Schedule = param(
        "alibi", "how fast each head of each layer forgets; weights fit one schedule only"
    )
    lrpe: Literal["first", "all", "none"] = param(
        "first", "layers with learned relative positions (LRPE); there queries and keys are twice as wide"
    )
    activation: Activation = param("swish", "activation of queries and keys")
    value_activation: Activation = param("none", "activation of values")
    norm: Norm = param(
        "srms", "norm of the heads' joint output: root mean square without weights, with, layer"
    )
    gate: Gate = param("linear", "what multiplies the normed output")
    gate_rank: int | None = param(
        None, "rank of the gate 'lowrank_sigmoid'; null: the channels of a head", at_least=1
    )
    chunk_size: int = param(64, "tokens per chunk: how it is computed, never what", at_least=1)
    dropout_prob: float = param(0.0, "dropout on the output of the layer", at_least=0, below=1)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.gate_rank is not None and self.gate != "lowrank_sigmoid":
            yield "gate_rank", f"is for the gate 'lowrank_sigmoid', but gate is {self.gate!r}"


@dataclass(frozen=True, kw_only=True)
class TnlModuleConfig(LightningConfig):
    """Parameters of `transnormer/tnl_module`, the layer published beside the Lightning Attention kernels."""

    value_activation: Activation = param("swish", "activation of values")
    norm: Norm = param("layer", "norm of the heads' joint output")
    gate: Gate = param("lowrank_sigmoid", "what multiplies the normed output")


@dataclass(frozen=True, kw_only=True)
class MiniMaxConfig(LightningConfig):
    """Parameters of `transnormer/minimax`, the linear layer of MiniMax-Text-01."""

    decay: Schedule = param("minimax", "how fast each head of each layer forgets")
    lrpe: Literal["first", "all", "none"] = param("none", "layers with learned relative positions (LRPE)")
    value_activation: Activation = param("swish", "activation of values")
    norm: Norm = param("rms", "norm of the heads' joint output")
    gate: Gate = param("sigmoid", "what multiplies the normed output")


@dataclass(frozen=True, kw_only=True)
class NormAttentionConfig(Config):
    """Parameters of `transnormer/norm_attention`."""

    activation: Activation = param(
        "elu_plus_one", "activation of queries and keys: 'elu' in T1, 'elu_plus_one' in T2"
    )
    positions: Literal["lrpe", "none"] = param(
        "lrpe", "relative positions of queries and keys: a reflection, then rotations by learned angles"
    )
    dropout_prob: float = param(0.0, "dropout on the output of the layer", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class DiagAttentionConfig(Config):
    """Parameters of `transnormer/diag_attention`."""

    block: int = param(64, "tokens per block; none sees beyond its own", at_least=1)
    weights: Literal["softmax", "relu"] = param(
        "softmax", "'relu' in T1, followed by a norm; 'softmax' in T2, without"
    )
    positions: Literal["lrpe", "none"] = param(
        "lrpe", "relative positions of queries and keys: a reflection, then rotations by learned angles"
    )
    dropout_prob: float = param(0.0, "dropout on the output of the layer", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class SgluConfig(Config):
    """Parameters of `transnormer/sglu`."""

    ratio: float = param(2.75, "hidden width / width", above=0)


@dataclass(frozen=True, kw_only=True)
class LlmConfig(Config):
    """Parameters of `transnormer/llm`."""

    depth: int = param(4, "number of layers", at_least=1)
    heads: int = param(4, "attention heads; must divide the width", at_least=1)
    width: int | None = param(
        None, "the only width that these sizes are meant for (presets state it); null: any", at_least=1
    )
    attention: LightningConfig = param(
        factory=LightningConfig, help="of every layer, as in transnormer/lightning"
    )
    feed_forward: str = param("transnormer/sglu", "feed-forward of every layer")
    feed_forward_params: dict[str, Any] = param(factory=dict, help="its parameters")
    init_std: float | None = param(
        0.02, "standard deviation of all linear maps at the start; null: the zoo's, 1 / sqrt(fan in)", above=0
    )
    dropout_prob: float = param(0.0, "dropout of embeddings and of each branch's output", at_least=0, below=1)
    drop_path_prob: float = param(
        0.0, "stochastic depth, rising linearly to the last layer", at_least=0, below=1
    )

    def check_width(self, width: int) -> None:
        """Refuse a width that the heads do not divide, or another than a preset's.

        Raises:
            ConfigError: naming both numbers.
        """
        if self.width not in (None, width):
            message = (
                f"these sizes are those of a model of width {self.width}, got {width}; set width {self.width}"
            )
            raise ConfigError([Problem("width", message)])
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
            layers=("transnormer/lightning",),
            mixer_params={"transnormer/lightning": asdict(self.attention)},
            feed_forward=self.feed_forward,
            feed_forward_params=self.feed_forward_params,
            norm="srms",
            positions="none",
            dropout_prob=self.dropout_prob,
            drop_path_prob=self.drop_path_prob,
        )


@dataclass(frozen=True, kw_only=True)
class TransNormerConfig(Config):
    """Parameters of `transnormer/v1`."""

    depth: int = param(4, "number of layers", at_least=1)
    heads: int = param(4, "attention heads; must divide the width", at_least=1)
    diag_layers: int | None = param(
        None, "how many layers, from the first, attend within blocks; null: half of them", at_least=0
    )
    diag: DiagAttentionConfig = param(factory=DiagAttentionConfig, help="as in transnormer/diag_attention")
    norm: NormAttentionConfig = param(factory=NormAttentionConfig, help="as in transnormer/norm_attention")
    feed_forward_ratio: float = param(8 / 3, "hidden width of the gated feed-forward / width", above=0)
    dropout_prob: float = param(0.0, "dropout of embeddings and of each branch's output", at_least=0, below=1)
    drop_path_prob: float = param(
        0.0, "stochastic depth, rising linearly to the last layer", at_least=0, below=1
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.diag_layers is not None and self.diag_layers > self.depth:
            yield "diag_layers", f"must be at most depth ({self.depth}), got {self.diag_layers}"

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
        first = self.depth // 2 if self.diag_layers is None else self.diag_layers
        diag, norm = "transnormer/diag_attention", "transnormer/norm_attention"
        params = {diag: asdict(self.diag), norm: asdict(self.norm)}
        layers = (*(diag,) * first, *(norm,) * (self.depth - first))
        return TransformerConfig(
            depth=self.depth,
            heads=self.heads,
            layers=layers,
            mixer_params={name: params[name] for name in layers},
            feed_forward="core/swiglu",
            feed_forward_params={"ratio": self.feed_forward_ratio},
            norm="srms",
            positions="none",
            dropout_prob=self.dropout_prob,
            drop_path_prob=self.drop_path_prob,
        )
