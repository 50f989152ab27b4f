"""The lightning layer, TNL's gated linear attention: a causal mixer with a state of constant size.

B batch, N tokens, D width, H heads, d channels per head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from zoo.layers.init import init_linear
from zoo.layers.padding import front_order, kept_in_front, put_back
from zoo.layers.precision import sum_dtype
from zoo.layers.streams import check_state
from zoo_transnormer.checks import token_mask
from zoo_transnormer.config import LightningConfig, SgluConfig
from zoo_transnormer.decay import slope_values
from zoo_transnormer.functional import lightning_attention, lightning_attention_step
from zoo_transnormer.parts import ACTIVATIONS, GATES, Lrpe, make_norm


class LightningState(NamedTuple):
    """All that later tokens need of those so far; its size does not grow with them.

    memory: sum of k v^T, decayed, (B, H, d, d), or (B, H, 2d, d) in a layer with LRPE; float32.
    tokens: how many were seen, int64 (B,).
    """

    memory: Tensor
    tokens: Tensor

    def select(self, rows: Tensor) -> LightningState:
        """The states of these rows, int (B',): reordered as in beam search, or repeated."""
        return LightningState(self.memory[rows], self.tokens[rows])

    def detach(self) -> LightningState:
        """Cut off from the past: truncated backpropagation through time."""
        return LightningState(self.memory.detach(), self.tokens)


class LightningAttention(nn.Module):
    """y = W_o (gate(x) * norm(o)) with o the lightning attention of act(W_q x), act(W_k x) and W_v x (TNL).

    The norm runs over all heads jointly. How fast a head forgets depends on the layer's place in the stack.
    """

    slopes: Tensor

    def __init__(
        self,
        config: LightningConfig,
        *,
        width: int,
        heads: int,
        causal: bool,
        max_tokens: int | None = None,
        layer: int = 0,
        depth: int = 1,
    ) -> None:
        """`layer` of `depth`, from 0. `max_tokens` sets no limit: the state has one size for any number.

        Raises:
            ValueError: `causal` is false, or `heads` does not divide `width`.
        """
        super().__init__()
        if not causal:
            raise ValueError(
                "lightning attention is causal only: its decay runs from the past to the present. "
                "Build it with causal=True, or take transnormer/norm_attention, which sees both ways"
            )
        channels = head_width(width, heads)
        self.heads = heads
        self.chunk_size = config.chunk_size
        self.activation = ACTIVATIONS[config.activation]
        self.value_activation = ACTIVATIONS[config.value_activation]
        self.qkv = init_linear(nn.Linear(width, 3 * width, bias=False))
        self.gate = GATES[config.gate](width=width, rank=config.gate_rank or channels)
        self.norm = make_norm(config.norm, width=width)
        self.out = init_linear(nn.Linear(width, width, bias=False))
        self.dropout = nn.Dropout(config.dropout_prob)
        with_lrpe = config.lrpe == "all" or (config.lrpe == "first" and layer == 0)
        self.lrpe = Lrpe(heads=heads, channels=channels) if with_lrpe else None
        self.exact_slopes = slope_values(heads, layer, depth, config.decay)
        self.register_buffer("slopes", torch.tensor(self.exact_slopes), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Slopes stay float32 whatever the weights become: rounded to bfloat16 they are other slopes."""
        super()._apply(fn, recurse)
        if not self.slopes.is_meta:
            self.slopes = torch.tensor(self.exact_slopes, device=self.slopes.device)
        return self

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D) -> (B, N, D). mask: bool (B, N), True = keep; padding decays nothing."""
        if mask is None:
            found, _ = lightning_attention(*self._project(x), self.slopes, chunk_size=self.chunk_size)
            return self._finish(x, found)
        token_mask(mask, x)
        order = front_order(mask)  # in front, kept tokens see no padding
        return put_back(self(kept_in_front(x, mask, order)), mask, order)

    def initial_state(self, batch_size: int) -> LightningState:
        """The state of streams that have seen nothing, in float32 (float64 for a float64 layer)."""
        weight = self.out.weight
        memory = weight.new_zeros(self._memory(batch_size), dtype=sum_dtype(weight.dtype))
        return LightningState(memory, torch.zeros(batch_size, dtype=torch.int64, device=weight.device))

    def step(self, x: Tensor, state: LightningState) -> tuple[Tensor, LightningState]:
        """The next tokens of a stream, x: (B, C, D) -> (B, C, D), and the new state.

        Raises:
            ValueError: x has another shape, or the state belongs to another batch size or layer.
        """
        shapes = {"memory": self._memory(len(x)), "tokens": (len(x),)}
        check_state(state, LightningState, shapes, dtype=sum_dtype(self.out.weight.dtype))
        q, k, v = self._project(x, state.tokens)
        if x.shape[1] == 1:
            one, memory = lightning_attention_step(
                q.squeeze(2), k.squeeze(2), v.squeeze(2), self.slopes, state.memory
            )
            found = one.unsqueeze(2)
        else:
            found, after = lightning_attention(
                q,
                k,
                v,
                self.slopes,
                chunk_size=self.chunk_size,
                initial_state=state.memory,
                output_final_state=True,
            )
            memory = cast(Tensor, after)
        return self._finish(x, found), LightningState(memory, state.tokens + x.shape[1])

    def _memory(self, streams: int) -> tuple[int, ...]:
        """The shape of their memory: (B, H, d, d), with LRPE (B, H, 2 d, d)."""
        channels = self.out.in_features // self.heads
        return streams, self.heads, channels if self.lrpe is None else 2 * channels, channels

    def _project(self, x: Tensor, offset: int | Tensor = 0) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> queries, keys (B, H, N, d or 2 d), values (B, H, N, d); they start at `offset`."""
        if x.dim() != 3 or x.shape[-1] != self.out.in_features:
            raise ValueError(f"expected x (B, N, {self.out.in_features}), got {tuple(x.shape)}")
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = self.activation(q), self.activation(k), self.value_activation(v)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        if self.lrpe is not None:
            q, k = self.lrpe(q, offset), self.lrpe(k, offset)
        return q, k, v

    def _finish(self, x: Tensor, found: Tensor) -> Tensor:
        """Norm, gate, output: (B, N, D) and (B, H, N, d) -> (B, N, D)."""
        return self.dropout(self.out(self.gate(x, self.norm(found.transpose(1, 2).flatten(2)))))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, slopes={min(self.exact_slopes):.3g} to {max(self.exact_slopes):.3g}"


class Sglu(nn.Module):
    """Simple gated linear unit, W_out ((W_1 x) * (W_2 x)): no activation (TransNormerLLM, eq. 10)."""

    def __init__(self, config: SgluConfig, *, width: int) -> None:
        super().__init__()
        hidden = max(1, round(config.ratio * width))
        self.inner = init_linear(nn.Linear(width, 2 * hidden, bias=False))
        self.out = init_linear(nn.Linear(hidden, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        one, other = self.inner(x).chunk(2, dim=-1)
        return self.out(one * other)


def head_width(width: int, heads: int) -> int:
    """Channels per head.

    Raises:
        ValueError: `heads` does not divide `width`.
    """
    if heads < 1 or width % heads:
        raise ValueError(f"width {width} must be a multiple of heads {heads}, with at least one head")
    return width // heads
