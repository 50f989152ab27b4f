"""`titans/memory`: a neural memory as a token mixer. B streams, N tokens, D width, H heads."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.layers.init import init_linear
from zoo_titans.config import MemoryConfig
from zoo_titans.documents import by_document
from zoo_titans.functional import by_phase
from zoo_titans.memory import Memory, StreamState, require_tokens
from zoo_titans.norm import gated_norm
from zoo_titans.told import EPS


def require_causal(causal: bool, name: str) -> None:
    """
    Raises:
        ValueError: the layer is to see both ways.
    """
    if not causal:
        raise ValueError(
            f"{name} is causal only: its memory learns token after token. Build it with causal=True, "
            "or take another mixer"
        )


class NeuralMemory(nn.Module):
    """y = W_o (norm(M(q)) * SiLU(W_g x)): the memory of section 3.1 as a layer of its own (LMM, section 4.4).

    Reading is normalised over the channels of each head, gated and projected (section 4.4).
    """

    def __init__(
        self,
        config: MemoryConfig,
        *,
        width: int,
        heads: int,
        causal: bool = True,
        max_tokens: int | None = None,
    ) -> None:
        """`max_tokens` sets no limit: the memory has one size for any number of tokens.

        Raises:
            ValueError: `causal` is false, or `heads` does not divide `width`.
        """
        super().__init__()
        require_causal(causal, "titans/memory")
        self.memory = Memory(config, width=width, heads=heads)
        self.norm = nn.RMSNorm(width // heads, eps=EPS)
        self.gate = init_linear(nn.Linear(width, width, bias=False))
        self.out = init_linear(nn.Linear(width, width, bias=False))
        self.dropout = nn.Dropout(config.dropout_prob)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, starts: Tensor | None = None) -> Tensor:
        """x: (B, N, D) -> (B, N, D).

        mask: bool (B, N), True = keep. starts: bool (B, N), True where a document begins, all anew.
        """
        require_tokens(x, self.out.in_features)
        return by_document(
            lambda rows: self.run(0, self.initial_state(rows.shape[0]), rows)[0], x, mask, starts
        )

    def initial_state(self, batch_size: int) -> StreamState:
        """Streams that have seen nothing; weights in float32 (float64 for a float64 layer)."""
        return self.memory.initial_state(batch_size)

    def step(self, x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """The next tokens of a stream, x: (B, C, D) -> (B, C, D), and the new state.

        Raises:
            ValueError: x has another shape, or the state is of another number of streams.
        """
        require_tokens(x, self.out.in_features)
        self.memory.check_state(state, len(x))
        return by_phase(self.run, state.memory.phase, state, x)

    def run(self, phase: int, state: StreamState, x: Tensor) -> tuple[Tensor, StreamState]:
        """`step` where all streams have seen `phase` tokens of their chunk."""
        read, state = self.memory.run(phase, state, x)
        return self.finish(x, read), state

    def finish(self, x: Tensor, read: Tensor) -> Tensor:
        """Norm, gate, output: x, read (B, N, D) -> (B, N, D)."""
        return self.dropout(self.out(gated_norm(read, self.norm.weight, self.gate(x))))
