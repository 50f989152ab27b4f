"""Memory beside and before sliding-window attention (MAG, MAL; sections 4.2 and 4.3).

B streams, N tokens, D width, H heads, P persistent tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.layers.attention import KVCache
from zoo.layers.init import init_linear
from zoo.layers.positions import Rotary
from zoo.layers.streams import Shape, check_state, select_rows
from zoo_titans.attention import Gate, WindowAttention
from zoo_titans.config import WindowConfig
from zoo_titans.documents import by_document
from zoo_titans.functional import by_phase
from zoo_titans.layers import NeuralMemory, require_causal
from zoo_titans.memory import Memory, StreamState, require_tokens


class WindowState(NamedTuple):
    """What B streams remember.

    memory: as of `titans/memory`, the persistent tokens learned first. cache: keys and values of the window.
    first: keys and values of what all tokens see, (B, H, P, d) each; `None` without persistent tokens.
    """

    memory: StreamState
    cache: KVCache
    first: tuple[Tensor, Tensor] | None


class _WithWindow(nn.Module):
    """What both have in common: persistent tokens come first, then streams."""

    def __init__(
        self,
        config: WindowConfig,
        *,
        width: int,
        heads: int,
        causal: bool = True,
        max_tokens: int | None = None,
        rotary: Rotary | None = None,
    ) -> None:
        """`max_tokens` sets no limit: memory and window have one size for any number of tokens.

        Raises:
            ValueError: `causal` is false, or `heads` does not divide `width`.
        """
        super().__init__()
        require_causal(causal, f"titans/{self.name}")
        self.chunk = config.chunk
        self.attention = WindowAttention(
            width=width, heads=heads, persistent=config.persistent, rotary=rotary, window=config.window
        )
        self.out = init_linear(nn.Linear(width, width, bias=False))
        self.dropout = nn.Dropout(config.dropout_prob)

    name: str

    def learn_first(self, state: StreamState, persistent: Tensor) -> tuple[Tensor, StreamState]:
        """One memory learns the persistent tokens, (1, P, D): what attention sees of them, the state."""
        raise NotImplementedError

    @property
    def inner_memory(self) -> Memory:
        """The memory itself."""
        raise NotImplementedError

    def run(self, phase: int, state: WindowState, x: Tensor) -> tuple[Tensor, WindowState]:
        """The next tokens where all memories have seen `phase` tokens of their chunk."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, mask: Tensor | None = None, starts: Tensor | None = None) -> Tensor:
        """x: (B, N, D) -> (B, N, D).

        mask: bool (B, N), True = keep. starts: bool (B, N), True where a document begins, all anew.
        """
        require_tokens(x, self.out.in_features)
        persistent = self.attention.persistent
        phase = 0 if persistent is None else len(persistent) % self.chunk
        return by_document(
            lambda rows: self.run(phase, self.initial_state(rows.shape[0]), rows)[0], x, mask, starts
        )

    def initial_state(self, batch_size: int) -> WindowState:
        """Streams that have seen nothing but the persistent tokens."""
        memory, first = self.inner_memory.initial_state(1), None
        if self.attention.persistent is not None:
            seen, memory = self.learn_first(memory, self.attention.persistent.unsqueeze(0))
            k, v = self.attention.keys_values(seen)
            first = k.repeat(batch_size, 1, 1, 1), v.repeat(batch_size, 1, 1, 1)
        alike = torch.zeros(batch_size, dtype=torch.int64, device=self.out.weight.device)
        return WindowState(select_rows(memory, alike), self.attention.empty(batch_size), first)

    def step(self, x: Tensor, state: WindowState) -> tuple[Tensor, WindowState]:
        """The next tokens of a stream, x: (B, C, D) -> (B, C, D), and the new state.

        Raises:
            ValueError: x has another shape, or the state is of another number of streams.
        """
        width, heads = self.out.in_features, self.attention.heads
        require_tokens(x, width)
        one = (len(x), heads, None, width // heads)
        cache: dict[str, Shape] = {"cache.keys": one, "cache.values": one}
        check_state(state, WindowState, cache, dtype=self.out.weight.dtype)
        if self.attention.persistent is not None:  # of any type: under autocast they come in halves
            count = len(self.attention.persistent)
            check_state(state, WindowState, {"first.0": (len(x), heads, count, width // heads)})
        self.inner_memory.check_state(state.memory, len(x))
        return by_phase(self.run, state.memory.memory.phase, state, x)


class MemoryAsGate(_WithWindow):
    """x~ = [P | x]; y = window attention of x~; o = y (x) M(x~) (eq. 26 to 28): both, then a product."""

    name = "mag"

    def __init__(
        self,
        config: WindowConfig,
        *,
        width: int,
        heads: int,
        causal: bool = True,
        max_tokens: int | None = None,
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__(
            config, width=width, heads=heads, causal=causal, max_tokens=max_tokens, rotary=rotary
        )
        self.memory = Memory(config, width=width, heads=heads)
        self.gate = Gate(width)

    @property
    def inner_memory(self) -> Memory:
        return self.memory

    def learn_first(self, state: StreamState, persistent: Tensor) -> tuple[Tensor, StreamState]:
        return persistent, self.memory.run(0, state, persistent)[1]

    def run(self, phase: int, state: WindowState, x: Tensor) -> tuple[Tensor, WindowState]:
        y, cache = self.attention.attend(x, state.first, state.cache)
        read, memory = self.memory.run(phase, state.memory, x)
        return self.dropout(self.out(self.gate(y, read))), WindowState(memory, cache, state.first)


class MemoryAsLayer(_WithWindow):
    """x~ = [P | x]; y = M(x~); o = window attention of y (eq. 29 to 31): one after the other."""

    name = "mal"

    def __init__(
        self,
        config: WindowConfig,
        *,
        width: int,
        heads: int,
        causal: bool = True,
        max_tokens: int | None = None,
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__(
            config, width=width, heads=heads, causal=causal, max_tokens=max_tokens, rotary=rotary
        )
        self.memory = NeuralMemory(config, width=width, heads=heads)

    @property
    def inner_memory(self) -> Memory:
        return self.memory.memory

    def learn_first(self, state: StreamState, persistent: Tensor) -> tuple[Tensor, StreamState]:
        return self.memory.run(0, state, persistent)

    def run(self, phase: int, state: WindowState, x: Tensor) -> tuple[Tensor, WindowState]:
        read, memory = self.memory.run(phase, state.memory, x)
        y, cache = self.attention.attend(read, state.first, state.cache)
        return self.dropout(self.out(y)), WindowState(memory, cache, state.first)
