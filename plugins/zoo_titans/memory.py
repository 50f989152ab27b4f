"""The memory of every Titans layer: what it is told of each token, and how it learns and reads.

B streams, N tokens, D width, H heads, d = D / H channels of each.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.init import init_linear
from zoo.layers.precision import full_precision, sum_dtype
from zoo.layers.streams import Shape, check_state
from zoo_titans import checks
from zoo_titans.chunk import Form
from zoo_titans.config import MacConfig, MemoryConfig
from zoo_titans.functional import read_weights, scan_in_phase
from zoo_titans.state import MemoryState
from zoo_titans.told import Told, convolve, in_heads, tell, unit


class StreamState(NamedTuple):
    """What a memory layer remembers of B streams.

    memory: the memories themselves.
    tail: what the convolutions saw last, (B, conv - 1, 3 D).
    gates: logits of the chunk under way, (B, 3 H), where gates go by the chunk; else `None`.
    origin: the sum of the first weights that each began with, float64 (B,).
    """

    memory: MemoryState
    tail: Tensor
    gates: Tensor | None
    origin: Tensor


class Memory(nn.Module):
    """Projections, gates, and a network per head that learns to give values for keys (section 3.1, eq. 8-15).

    q, k, v = SiLU(conv(W x)), q and k of norm 1; theta, eta, alpha = sigmoid(W x + b), theta times its most.
    The memory's first weights are learned; each stream and head then changes a copy of its own.
    """

    def __init__(self, config: MemoryConfig | MacConfig, *, width: int, heads: int) -> None:
        """
        Raises:
            ValueError: `heads` does not divide `width`.
        """
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}, with at least one head")
        self.heads = heads
        #: Called with what is told, and the memory before and after learning it.
        self.observer: Callable[[Told, MemoryState, MemoryState], None] | None = None
        self.chunk = config.chunk
        self.by_chunk = config.gates == "chunk"
        channels = width // heads
        limit = None if config.max_surprise is None else 2 * config.loss_scale * config.max_surprise
        self.form = Form(
            act=config.activation,
            residual=config.residual,
            loss_scale=config.loss_scale,
            limit=None if limit is None else limit * math.sqrt(channels),
        )
        # Keys all alike are the worst case: then 2 loss_scale theta chunk / (1 - eta) <= 1 is safe, and holds
        # at the start with theta_init 0.25 and eta_init 0.5.
        self.theta_max = config.theta_max or 1 / (config.chunk * config.loss_scale)
        self.recalls = config.init == "recall"
        self.starts = [_logit(p) for p in (config.theta_init, config.eta_init, config.alpha_init)]
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.conv = nn.Parameter(torch.empty(3 * width, 1, config.conv)) if config.conv > 1 else None
        self.gate = nn.Linear(width, 3 * heads)
        hidden = max(1, round(config.expansion * channels))
        sizes = [channels, *[hidden] * (config.depth - 1), channels]
        self.first = nn.ParameterList(
            nn.Parameter(torch.empty(heads, n, m)) for n, m in itertools.pairwise(sizes)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Our choice, the paper states none: maps keep the scale, gates hardly depend on the token."""
        init_linear(self.qkv)
        if self.conv is not None:
            nn.init.trunc_normal_(self.conv, std=self.conv.shape[-1] ** -0.5)
        init_linear(self.gate, std=0.02)
        with torch.no_grad():
            for part, start in zip(self.gate.bias.chunk(3), self.starts, strict=True):
                part.fill_(start)
            for weight in self.first:
                nn.init.trunc_normal_(weight, std=weight.shape[1] ** -0.5)
            if self.recalls:
                self._recall_from_the_start()

    def _recall_from_the_start(self) -> None:
        """Queries are keys of the token before, and the memory holds nothing but what it has read."""
        assert self.conv is not None
        q, k, _ = self.qkv.weight.chunk(3)
        q.copy_(k)
        self.conv.mul_(0.1)
        for part, tokens_back in zip(self.conv.chunk(3), (0, 1, 0), strict=True):
            part[..., -1 - tokens_back] = 1.0
        self.first[-1].zero_()

    def initial_state(self, batch_size: int) -> StreamState:
        """Streams that have seen nothing."""
        weight = self.qkv.weight
        tail = weight.new_zeros(batch_size, 0 if self.conv is None else self.conv.shape[-1] - 1, len(weight))
        gates = weight.new_zeros(batch_size, 3 * self.heads, dtype=sum_dtype(weight.dtype))
        memory = MemoryState.start(list(self.first), batch_size)
        origin = self._origin().expand(batch_size).clone()
        return StreamState(memory, tail, gates if self.by_chunk else None, origin)

    def check_state(self, state: StreamState, streams: int) -> None:
        """That it is of this layer and of so many streams; warns where they began with other first weights.

        Raises:
            ValueError: says what was given and what was expected.
        """
        weight, depth = self.qkv.weight, len(self.first)
        behind = 0 if self.conv is None else self.conv.shape[-1] - 1
        check_state(state, StreamState, {"tail": (streams, behind, len(weight))}, dtype=weight.dtype)
        shapes: dict[str, Shape] = {"memory.phase": (streams,)}
        for name in ("weights", "momentum", "anchor"):
            shapes |= {f"memory.{name}.{i}": (streams, *first.shape) for i, first in enumerate(self.first)}
        if self.by_chunk:
            shapes["gates"] = (streams, 3 * self.heads)
        check_state(state, StreamState, shapes, dtype=sum_dtype(weight.dtype))
        if len(state.memory.weights) != depth:
            raise ValueError(
                f"state.memory must be of {depth} layers here, got {len(state.memory.weights)}: "
                "the state is of another layer"
            )
        checks.phase_fits(state.memory.phase, self.chunk, "state.memory.phase")
        self._warn_if_moved(state)

    def _warn_if_moved(self, state: StreamState) -> None:
        if torch.compiler.is_compiling() or state.origin.is_meta:
            return  # values are not known here
        origin = self._origin().to(state.origin.device)
        if not torch.allclose(state.origin, origin, rtol=1e-9, atol=1e-12):
            warnings.warn(
                "the memory's first weights have changed since this state began (an optimiser step?): the "
                "stream goes on from the old ones. Begin anew with initial_state, or reset its rows",
                stacklevel=4,
            )

    def _origin(self) -> Tensor:
        return torch.stack([weight.detach().sum(dtype=torch.float64) for weight in self.first]).sum()

    def run(self, phase: int, state: StreamState, x: Tensor) -> tuple[Tensor, StreamState]:
        """Learn and read the next tokens, x: (B, C, D) -> (B, C, D), and the new state.

        phase: how many tokens of their chunk all streams have seen.
        """
        told, tail, gates = self.tell(x, state, phase=phase)
        read, memory = self.learn(told, state.memory, phase=phase)
        return read, StreamState(memory, tail, gates, state.origin)

    def learn(self, told: Told, memory: MemoryState, *, phase: int) -> tuple[Tensor, MemoryState]:
        """What each token reads once it has been learned, (B, N, D), and the memory after all."""
        q, k, v, theta, eta, alpha = told
        y, after = scan_in_phase(
            q, k, v, theta, eta, alpha, memory, phase=phase, chunk=self.chunk, form=self.form
        )
        if self.observer is not None:
            self.observer(told, memory, after)
        return y.transpose(1, 2).flatten(2), after

    def recall(self, q: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """q: (B, H, N, d) -> what these weights give for it, (B, N, D) (eq. 15)."""
        y = read_weights(q, weights, act=self.form.act, residual=self.form.residual)
        return y.transpose(1, 2).flatten(2)

    def tell(self, x: Tensor, state: StreamState, *, phase: int) -> tuple[Told, Tensor, Tensor | None]:
        """x: (B, N, D) -> what the memory is told, the convolutions' new tail, gates of the open chunk."""
        projected = self.qkv(x)
        q, k, v = tell(projected, state.tail, self.conv, self.heads)
        logits = self._logits(x)
        gates = None
        if state.gates is not None:
            logits, gates = _held(logits, state.gates, phase=phase, chunk=self.chunk)
        theta, eta, alpha = logits.sigmoid().transpose(1, 2).chunk(3, 1)  # (B, H, N)
        told = Told(q, k, v, theta * self.theta_max, eta, alpha)
        return told, self._tail(projected, state.tail), gates

    def ask(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """Queries alone, x: (B, N, D) -> q (B, H, N, d), and their convolution's tail, (B, conv - 1, D)."""
        projected = F.linear(x, self.qkv.weight[: x.shape[-1]])
        mixed = F.silu(convolve(projected, tail, self.conv))
        return unit(in_heads(mixed, self.heads)), self._tail(projected, tail)

    def _tail(self, projected: Tensor, tail: Tensor) -> Tensor:
        size = tail.shape[1]
        joined = torch.cat((tail, projected[:, max(0, projected.shape[1] - size) :].to(tail.dtype)), 1)
        return joined[:, joined.shape[1] - size :].clone()

    def _logits(self, x: Tensor) -> Tensor:
        """Of theta, eta and alpha for each head, in full precision: (B, N, 3 H)."""
        dtype = sum_dtype(x.dtype)
        with full_precision(x.device):
            return F.linear(x.to(dtype), self.gate.weight.to(dtype), self.gate.bias.to(dtype))

    def extra_repr(self) -> str:
        sizes = [self.first[0].shape[1], *(w.shape[2] for w in self.first)]
        return f"heads={self.heads}, channels={sizes}, chunk={self.chunk}, theta_max={self.theta_max:g}"


def require_tokens(x: Tensor, width: int) -> None:
    """x (B, N, width).

    Raises:
        ValueError: naming both shapes.
    """
    if x.dim() != 3 or x.shape[-1] != width:
        raise ValueError(f"expected x (B, N, {width}), got {tuple(x.shape)}")


def _held(logits: Tensor, under_way: Tensor, *, phase: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Each token has the logits of its chunk's first: (B, N, 3 H), and those of the last chunk, (B, 3 H)."""
    first = min(chunk - phase, logits.shape[1]) if phase else 0
    rest = logits[:, first:]
    held = rest[:, ::chunk].repeat_interleave(chunk, 1)[:, : rest.shape[1]]
    held = torch.cat((under_way.unsqueeze(1).expand(-1, first, -1), held), 1)
    return held, held[:, -1].clone()


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
