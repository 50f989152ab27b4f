"""Memory as a context (MAC, section 4.1). B streams, N tokens, D width, H heads, C tokens of a segment."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.init import init_linear
from zoo.layers.positions import Rotary, position_ids
from zoo.layers.streams import check_state
from zoo_titans.attention import Gate, Part, Projections, attend_jointly, before
from zoo_titans.config import MacConfig
from zoo_titans.documents import by_document
from zoo_titans.functional import by_phase
from zoo_titans.layers import require_causal
from zoo_titans.memory import Memory, StreamState, require_tokens
from zoo_titans.told import EPS


class MacState(NamedTuple):
    """What B streams remember. How far each is in its segment is the phase of its memory.

    memory: as of `titans/memory`. asked: what the convolution of the queries saw last, (B, conv - 1, D).
    recalled, seen: keys and values of the open segment, (2, B, H, C, d) with B first: of what was retrieved,
        and of the tokens themselves.
    """

    memory: StreamState
    asked: Tensor
    recalled: tuple[Tensor, Tensor]
    seen: tuple[Tensor, Tensor]


class MemoryAsContext(nn.Module):
    """Segment after segment: retrieve, attend, write, gate (eq. 21 to 25).

    h = M_{t-1}(q) with the weights from before the segment, q from its tokens S          eq. (21)
    y = Attn([persistent | h | S])                                                       eq. (22, 23)
    M_t = M_{t-1} updated by y                                                           eq. (24)
    o = y (x) M_t(y)                                                                     eq. (25)

    Causal within the segment: a token sees what was retrieved for itself and for tokens before it, and M_t is
    read by each token as it is once that token has been written.
    """

    def __init__(
        self,
        config: MacConfig,
        *,
        width: int,
        heads: int,
        causal: bool = True,
        max_tokens: int | None = None,
        rotary: Rotary | None = None,
    ) -> None:
        """`max_tokens` sets no limit: the state has one size for any number of tokens.

        Raises:
            ValueError: `causal` is false, or `heads` does not divide `width`.
        """
        super().__init__()
        require_causal(causal, "titans/mac")
        self.segment = config.segment
        self.memory = Memory(config, width=width, heads=heads)
        self.recall_norm = nn.RMSNorm(width, eps=EPS)
        self.attention = Projections(width=width, heads=heads, persistent=config.persistent, rotary=rotary)
        self.mixed = init_linear(nn.Linear(width, width, bias=False))
        self.gate = Gate(width)
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

    def initial_state(self, batch_size: int) -> MacState:
        """Streams that have seen nothing."""
        memory = self.memory.initial_state(batch_size)
        width = self.out.in_features
        heads = self.attention.heads
        none = [self.out.weight.new_zeros(batch_size, heads, self.segment, width // heads) for _ in range(4)]
        asked = self.out.weight.new_zeros(batch_size, memory.tail.shape[1], width)
        return MacState(memory, asked, (none[0], none[1]), (none[2], none[3]))

    def step(self, x: Tensor, state: MacState) -> tuple[Tensor, MacState]:
        """The next tokens of a stream, x: (B, C, D) -> (B, C, D), and the new state.

        Raises:
            ValueError: x has another shape, or the state is of another number of streams.
        """
        width, heads = self.out.in_features, self.attention.heads
        require_tokens(x, width)
        segment = (len(x), heads, self.segment, width // heads)
        check_state(state, MacState, {"recalled.0": segment, "seen.0": segment}, dtype=self.out.weight.dtype)
        self.memory.check_state(state.memory, len(x))
        return by_phase(self.run, state.memory.memory.phase, state, x)

    def run(self, phase: int, state: MacState, x: Tensor) -> tuple[Tensor, MacState]:
        """`step` where all streams have seen `phase` tokens of their segment."""
        outputs, start = [], 0
        while start < x.shape[1]:
            stop = min(start + self.segment - phase, x.shape[1])
            y, state = self._in_segment(phase, state, x[:, start:stop])
            outputs.append(y)
            phase = (phase + stop - start) % self.segment
            start = stop
        return torch.cat(outputs, 1), state

    def _in_segment(self, phase: int, state: MacState, x: Tensor) -> tuple[Tensor, MacState]:
        """Tokens of one segment of which `phase` have been seen."""
        memory, asked = state.memory, state.asked
        if phase == 0:  # convolutions start anew: only the memory crosses segments
            memory, asked = memory._replace(tail=torch.zeros_like(memory.tail)), torch.zeros_like(asked)
        q, asked = self.memory.ask(x, asked)
        h = self.memory.recall(q, memory.memory.anchor)  # eq. (21)
        h = self.recall_norm(h.to(self.recall_norm.weight.dtype)).to(x.dtype)
        y, recalled, seen = self._attend(phase, x, h, state)
        told, tail, gates = self.memory.tell(y, memory, phase=phase)
        read, learned = self.memory.learn(told, memory.memory, phase=phase)  # eq. (24)
        out = self.dropout(self.out(self.gate(y, read)))  # eq. (25)
        after = StreamState(learned, tail, gates, memory.origin)
        return out, MacState(after, asked, recalled, seen)

    def _attend(
        self, phase: int, x: Tensor, h: Tensor, state: MacState
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Eq. (22) and (23): x, h (B, N, D) -> (B, N, D), and keys and values of the segment so far."""
        attention, n = self.attention, x.shape[1]
        positions = position_ids(None, n, device=x.device) + phase
        plain, k, v = attention(x)
        q, k = attention.turn(plain, positions), attention.turn(k, positions)
        h_k, h_v = attention.keys_values(h)
        h_k = attention.turn(h_k, positions)  # what a token retrieved stands where the token stands
        recalled = _after(state.recalled, (h_k, h_v), phase)
        seen = _after(state.seen, (k, v), phase)
        allowed = before(n, phase + n, device=x.device)
        parts: list[Part] = [(q, *recalled, allowed), (q, *seen, allowed)]
        if attention.persistent is not None:
            first_k, first_v = attention.keys_values(attention.persistent.unsqueeze(0))
            parts.insert(0, (plain, first_k, first_v, None))
        y = self.mixed(attend_jointly(parts).transpose(1, 2).flatten(2))
        return y, self._kept(recalled), self._kept(seen)

    def _kept(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """In a place for every token of a segment, so that streams of any age have states of one shape."""
        more = self.segment - pair[0].shape[2]
        return F.pad(pair[0], (0, 0, 0, more)), F.pad(pair[1], (0, 0, 0, more))


def _after(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], phase: int) -> tuple[Tensor, Tensor]:
    """Keys and values of the segment so far: the first `phase` of the old ones, then the new."""
    if phase == 0:
        return new
    k, v = (torch.cat((a[:, :, :phase].to(b.dtype), b), 2) for a, b in zip(old, new, strict=True))
    return k, v
