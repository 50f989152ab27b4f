"""Layers that use the first channels of their weights: linear, embedding, attention, feed-forward.

Each is a subclass of torch's layer with the same weights, and computes what that layer does at full width.
Slices are made contiguous: a strided weight gives other roundings than the small network cut out of it.
Gradients of what is not used are exact zeros. B batch, N tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_slimmable.widths import Channels, Slimmable, active, first, fixed

#: The channels of one side of a layer: a number never changes; several sets lie side by side.
Size = int | Channels | Sequence[Channels]


def parts_of(size: Size) -> tuple[Channels, ...]:
    """One side of a layer as sets of channels."""
    if isinstance(size, int):
        return (fixed(size),)
    return (size,) if isinstance(size, Channels) else tuple(size)


def full(parts: Sequence[Channels]) -> int:
    """How many channels there are in all."""
    return sum(part.full for part in parts)


class SlimmableLinear(Slimmable, nn.Linear):
    """y = x W[:o, :i]^T + b[:o].

    Args:
        inputs, outputs: channels of the two sides; a plain number never changes.
    """

    def __init__(self, inputs: Size, outputs: Size, *, bias: bool = True) -> None:
        self.inputs, self.outputs = parts_of(inputs), parts_of(outputs)
        super().__init__(full(self.inputs), full(self.outputs), bias=bias)

    def used(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias at the present width."""
        weight = first(first(self.weight, 0, self.outputs), 1, self.inputs).contiguous()
        return weight, None if self.bias is None else first(self.bias, 0, self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., i) -> (..., o)."""
        check_inputs(self, x.shape[-1])
        weight, bias = self.used()
        if bias is None and x.dim() > 2 and self.weight.requires_grad:  # torch does so; a slice may want none
            return F.linear(x.flatten(0, -2), weight).view(*x.shape[:-1], len(weight))
        return F.linear(x, weight, bias)

    def active_parameters(self) -> int:
        return active(self.outputs) * (active(self.inputs) + (self.bias is not None))

    def plain(self) -> nn.Linear:
        """An ordinary layer of the present width, with copies of the weights."""
        layer = nn.Linear(
            active(self.inputs), active(self.outputs), bias=self.bias is not None, **like(self.weight)
        )
        return filled(layer, *self.used())


class SlimmableEmbedding(Slimmable, nn.Embedding):
    """A vector per symbol, or per position, of which the first d numbers are used: W[..., :d].

    Args:
        count: symbols.
        channels: D; a plain number never changes.
    """

    def __init__(self, count: int, channels: Size) -> None:
        self.inputs, self.outputs = (), parts_of(channels)
        super().__init__(count, full(self.outputs))

    def used(self) -> tuple[Tensor, None]:
        """The vectors at the present width, (count, d)."""
        return first(self.weight, 1, self.outputs).contiguous(), None

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 (..., N) -> (..., N, d)."""
        return first(F.embedding(ids, self.weight), ids.dim(), self.outputs)

    def active_parameters(self) -> int:
        return self.num_embeddings * active(self.outputs)

    def plain(self) -> nn.Embedding:
        """An ordinary embedding of the present width, with copies of the vectors."""
        layer = nn.Embedding(self.num_embeddings, active(self.outputs), **like(self.weight))
        return filled(layer, *self.used())


class SlimmableAttention(nn.Module):
    """Attention with the first heads only; the scale stays 1 / sqrt(width of a head).

    Args:
        dim: channels of the tokens, on both sides.
        heads: H. head_dim: width of a head, D / H by default.
        qkv_bias, proj_bias: biases of the two linear maps.

    Attributes:
        heads: the channels of all heads, H units of `head_dim`.

    Raises:
        ValueError: heads that do not divide the width.
    """

    def __init__(
        self,
        dim: int | Channels,
        heads: int,
        *,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        proj_bias: bool = True,
    ) -> None:
        super().__init__()
        tokens = parts_of(dim)[0]
        if head_dim is None:
            if heads < 1 or tokens.full % heads:
                raise ValueError(f"{heads} heads do not divide a width of {tokens.full}")
            head_dim = tokens.full // heads
        self.head_dim = head_dim
        self.heads = Channels(heads * head_dim, unit=head_dim)
        self.qkv: Any = SlimmableLinear(tokens, (self.heads,) * 3, bias=qkv_bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        self.attn_drop = nn.Dropout(0.0)
        self.proj: Any = SlimmableLinear(self.heads, tokens, bias=proj_bias)
        self.proj_drop = nn.Dropout(0.0)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """x: (B, N, D) -> (B, N, D). attn_mask: as in torch's scaled_dot_product_attention."""
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads.active // self.head_dim, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, N, head_dim) each
        dropout = self.attn_drop.p if self.training else 0.0
        q, k = self.q_norm(q), self.k_norm(k)
        x = F.scaled_dot_product_attention(
            q, k, v, attn_mask=attn_mask, dropout_p=dropout, is_causal=is_causal
        )
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(b, n, self.heads.active)))

    def macs(self, pairs: int) -> int:
        """Multiplications of scores and of sums, of so many pairs of tokens: N^2 of one sequence."""
        return 2 * pairs * self.heads.active


class SlimmableMlp(nn.Module):
    """Linear, GELU, linear, with a hidden width of its own.

    Args:
        dim: channels of the tokens, on both sides. hidden: those between.
    """

    def __init__(self, dim: int | Channels, hidden: int | Channels) -> None:
        super().__init__()
        self.fc1 = SlimmableLinear(dim, hidden)
        self.fc2 = SlimmableLinear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))


def check_inputs(layer: Any, given: int) -> None:
    """Refuse inputs of another width than the layer has.

    Raises:
        ValueError: as many channels are given as the layer does not read at its present width.
    """
    if given != active(layer.inputs):
        raise ValueError(
            f"this layer reads {active(layer.inputs)} of {full(layer.inputs)} channels at its present width, "
            f"but is given {given}: layers that follow each other share one Channels"
        )


def like(tensor: Tensor) -> dict[str, Any]:
    """Where and of which type a layer beside this tensor is to be."""
    return {"device": tensor.device, "dtype": tensor.dtype}


@torch.no_grad()
def filled(layer: Any, weight: Tensor, bias: Tensor | None) -> Any:
    """The layer, with these weights copied into it."""
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer
