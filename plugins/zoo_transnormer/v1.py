"""The layers of the first TransNormer: attention in blocks, and linear attention scaled by a norm.

B batch, N tokens, D width, H heads, d channels per head.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from zoo.layers.init import init_linear
from zoo.layers.padding import front_order, kept_in_front, put_back
from zoo.layers.precision import sum_dtype
from zoo.layers.streams import check_state
from zoo_transnormer.checks import token_mask
from zoo_transnormer.config import DiagAttentionConfig, NormAttentionConfig
from zoo_transnormer.functional import diag_attention, lightning_attention, linear_attention_bidirectional
from zoo_transnormer.layers import LightningState, head_width
from zoo_transnormer.parts import ACTIVATIONS, ReflectedRotary, SRMSNorm


class _Attention(nn.Module):
    """Projections, relative positions and padding, the same for both layers."""

    def __init__(
        self, config: NormAttentionConfig | DiagAttentionConfig, *, width: int, heads: int, causal: bool
    ) -> None:
        super().__init__()
        channels = head_width(width, heads)
        self.heads = heads
        self.causal = causal
        self.qkv = init_linear(nn.Linear(width, 3 * width, bias=False))
        self.positions = ReflectedRotary(channels=channels) if config.positions == "lrpe" else None
        self.norm: nn.Module = SRMSNorm()
        self.out = init_linear(nn.Linear(width, width, bias=False))
        self.dropout = nn.Dropout(config.dropout_prob)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D) -> (B, N, D). mask: bool (B, N), True = keep."""
        if mask is None:
            return self._finish(self._attend(*self._project(x), None))
        token_mask(mask, x)
        order = front_order(mask)
        x = kept_in_front(x, mask, order)
        kept = torch.arange(x.shape[1], device=x.device) < mask.sum(1, keepdim=True)  # (B, N)
        return put_back(self._finish(self._attend(*self._project(x), kept)), mask, order)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, kept: Tensor | None) -> Tensor:
        """q, k, v: (B, H, N, d), kept: bool (B, N) -> (B, H, N, d)."""
        raise NotImplementedError

    def _activate(self, x: Tensor) -> Tensor:
        """Queries or keys (B, N, D), value by value, before their positions."""
        return x

    def _project(self, x: Tensor, offset: int | Tensor = 0) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> queries, keys, values (B, H, N, d); the first token stands at `offset`."""
        if x.dim() != 3 or x.shape[-1] != self.out.in_features:
            raise ValueError(f"expected x (B, N, {self.out.in_features}), got {tuple(x.shape)}")
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k = self._activate(q), self._activate(k)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, H, N, d)
        if self.positions is not None:
            q, k = self.positions(q, offset), self.positions(k, offset)
        return q, k, v

    def _finish(self, found: Tensor) -> Tensor:
        """(B, H, N, d) -> (B, N, D); the norm runs over all heads jointly."""
        return self.dropout(self.out(self.norm(found.transpose(1, 2).flatten(2))))

    def _must_be_causal(self) -> None:
        if not self.causal:
            raise ValueError("it streams only when built with causal=True: it sees later tokens")

    def extra_repr(self) -> str:
        return f"heads={self.heads}, causal={self.causal}"


class NormAttention(_Attention):
    """Norm(phi(Q) (phi(K)^T V)) (TransNormer, eq. 14): linear attention whose scale comes from a norm.

    A denominator, as in other linear attention, has gradients of size 1 / |s|, which nothing bounds.
    """

    slopes: Tensor

    def __init__(
        self,
        config: NormAttentionConfig,
        *,
        width: int,
        heads: int,
        causal: bool,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__(config, width=width, heads=heads, causal=causal)
        self.activation = ACTIVATIONS[config.activation]
        self.register_buffer("slopes", torch.zeros(heads), persistent=False)  # no decay

    def initial_state(self, batch_size: int) -> LightningState:
        """The state before the first token.

        Raises:
            ValueError: the layer is not causal.
        """
        self._must_be_causal()
        weight = self.out.weight
        memory = weight.new_zeros(self._memory(batch_size), dtype=sum_dtype(weight.dtype))
        return LightningState(memory, torch.zeros(batch_size, dtype=torch.int64, device=weight.device))

    def step(self, x: Tensor, state: LightningState) -> tuple[Tensor, LightningState]:
        """x: the next tokens (B, C, D) -> (B, C, D) and the new state; equals `forward` on all tokens.

        Raises:
            ValueError: x has another shape, or the state belongs to another batch size or layer.
        """
        self._must_be_causal()
        shapes = {"memory": self._memory(len(x)), "tokens": (len(x),)}
        check_state(state, LightningState, shapes, dtype=sum_dtype(self.out.weight.dtype))
        q, k, v = self._project(x, state.tokens[:, None, None])
        found, memory = lightning_attention(
            q, k, v, self.slopes, initial_state=state.memory, output_final_state=True
        )
        return self._finish(found), LightningState(cast(Tensor, memory), state.tokens + x.shape[1])

    def _memory(self, streams: int) -> tuple[int, ...]:
        """The shape of their memory, (B, H, d, d)."""
        channels = self.out.in_features // self.heads
        return streams, self.heads, channels, channels

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, kept: Tensor | None) -> Tensor:
        if self.causal:
            return lightning_attention(q, k, v, self.slopes)[0]
        return linear_attention_bidirectional(q, k, v, key_padding_mask=kept)

    def _activate(self, x: Tensor) -> Tensor:
        return self.activation(x)


class DiagState(NamedTuple):
    """What a causal stream remembers: keys and values of the block begun, (B, H, M, d), M < block; tokens
    seen, an int64 scalar."""

    keys: Tensor
    values: Tensor
    tokens: Tensor


class DiagAttention(_Attention):
    """Softmax (or relu) attention within blocks of tokens that do not overlap (TransNormer, section 4.2)."""

    def __init__(
        self,
        config: DiagAttentionConfig,
        *,
        width: int,
        heads: int,
        causal: bool,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__(config, width=width, heads=heads, causal=causal)
        if config.weights == "softmax":  # it keeps the scale by itself
            self.norm = nn.Identity()
        self.block = config.block
        self.weights = config.weights

    def initial_state(self, batch_size: int) -> DiagState:
        """The state before the first token.

        Raises:
            ValueError: the layer is not causal.
        """
        self._must_be_causal()
        weight = self.out.weight
        empty = weight.new_zeros(batch_size, self.heads, 0, weight.shape[0] // self.heads)
        return DiagState(empty, empty, torch.zeros((), dtype=torch.int64, device=weight.device))

    def step(self, x: Tensor, state: DiagState) -> tuple[Tensor, DiagState]:
        """x: the next tokens (B, C, D) -> (B, C, D) and the new state; equals `forward` on all tokens.

        Raises:
            ValueError: x has another shape, or the state belongs to another batch size or layer.
        """
        self._must_be_causal()
        weight = self.out.weight
        one = (len(x), self.heads, None, weight.shape[0] // self.heads)
        check_state(state, DiagState, {"keys": one, "values": one, "tokens": ()}, dtype=weight.dtype)
        q, k, v = self._project(x, state.tokens)
        begun = state.keys.shape[2]
        k, v = torch.cat((state.keys, k), 2), torch.cat((state.values, v), 2)
        q = torch.cat((q.new_zeros(*q.shape[:2], begun, q.shape[3]), q), 2)  # whole blocks, from their start
        found = diag_attention(q, k, v, block=self.block, kind=self.weights, causal=True)[:, :, begun:]
        start = k.shape[2] // self.block * self.block
        # Copies: a view would keep all keys alive.
        rest = DiagState(k[:, :, start:].clone(), v[:, :, start:].clone(), state.tokens + x.shape[1])
        return self._finish(found), rest

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, kept: Tensor | None) -> Tensor:
        return diag_attention(
            q, k, v, block=self.block, kind=self.weights, causal=self.causal, key_padding_mask=kept
        )
