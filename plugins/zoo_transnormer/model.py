"""The two models: the core's pre-norm stack with our layers. B batch, N tokens, D width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from zoo.layers import Transformer
from zoo_transnormer.config import LlmConfig, TransNormerConfig
from zoo_transnormer.parts import SRMSNorm


def build_llm(
    config: LlmConfig,
    *,
    width: int,
    max_tokens: int | None = None,
    causal: bool = True,
    catalogue: Any = None,
) -> Transformer:
    """TransNormerLLM: x += GLA(SRMSNorm(x)); x += SGLU(SRMSNorm(x)); SRMSNorm at the end.

    Raises:
        ConfigError: a width that does not fit. ValueError: `causal` is false.
    """
    config.check_width(width)
    stack = Transformer(
        config.stack(), width=width, max_tokens=max_tokens, causal=causal, catalogue=catalogue
    )
    if config.init_std is not None:
        for module in stack.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.init_std)
    return stack


class TransNormer(nn.Module):
    """The first TransNormer: a norm after the embedding, layers of diag attention, then of norm attention."""

    def __init__(
        self,
        config: TransNormerConfig,
        *,
        width: int,
        max_tokens: int | None = None,
        causal: bool = False,
        catalogue: Any = None,
    ) -> None:
        super().__init__()
        self.num_features = width
        self.norm = SRMSNorm()
        self.stack = Transformer(
            config.stack(), width=width, max_tokens=max_tokens, causal=causal, catalogue=catalogue
        )

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), mask: bool (B, N), True = keep -> (B, N, D)."""
        return self.stack(self.norm(x), mask=mask)

    def forward_intermediates(
        self, x: Tensor, *, mask: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> list[Tensor]:
        """What each layer passes on, as `zoo.layers.Transformer` gives it."""
        return self.stack.forward_intermediates(self.norm(x), mask=mask, indices=indices)

    def initial_state(self, batch_size: int) -> Any:
        """The state before the first token.

        Raises:
            ValueError: built with causal=False.
        """
        return self.stack.initial_state(batch_size)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x: the next tokens (B, C, D) -> (B, C, D) and the new state."""
        return self.stack.step(self.norm(x), state)
