"""Layers that use the first channels of their weights: linear, convolution, attention, feed-forward.

Each is a subclass of torch's layer with the same weights, and computes what that layer does at full width.
Slices are made contiguous: a strided weight gives other roundings than the small network cut out of it.
Gradients of what is not used are exact zeros. B batch, N tokens, D width, H heads, C channels.
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
        return _used(self)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., i) -> (..., o)."""
        _check_inputs(self, x.shape[-1])
        weight, bias = self.used()
        return F.linear(x, weight, bias)

    def active_parameters(self) -> int:
        return active(self.outputs) * (active(self.inputs) + (self.bias is not None))

    def plain(self) -> nn.Linear:
        """An ordinary layer of the present width, with copies of the weights."""
        layer = nn.Linear(
            active(self.inputs), active(self.outputs), bias=self.bias is not None, **_like(self.weight)
        )
        return _filled(layer, *self.used())


class SlimmableConv2d(Slimmable, nn.Conv2d):
    """A convolution with the weight W[:o, :i]; depthwise where both sides are the same channels.

    Args:
        inputs, outputs: channels of the two sides; a plain number never changes. Several sets of inputs lie
            side by side, as a concatenation gives them.
        kernel, stride, padding, dilation: as in torch.
        groups: of the full layer. With as many as there are channels, on both sides the same `Channels`, the
            convolution is depthwise; otherwise both sides have `unit` channels per group, and whole groups
            are used.

    Raises:
        ValueError: groups that do not fit the two sides.
    """

    def __init__(
        self,
        inputs: Size,
        outputs: Size,
        kernel: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self.inputs, self.outputs = parts_of(inputs), parts_of(outputs)
        check_groups(groups, self.inputs, self.outputs)
        super().__init__(
            full(self.inputs),
            full(self.outputs),
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )

    @property
    def active_groups(self) -> int:
        """Groups at the present width.

        Raises:
            ValueError: the two sides keep different numbers of groups.
        """
        return kept_groups(self.groups, self.inputs, self.outputs)

    def used(self) -> tuple[Tensor, Tensor | None]:
        """Weight (o, i / groups, ...) and bias at the present width."""
        return _used(self)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, i, H, W) -> (B, o, H', W')."""
        _check_inputs(self, x.shape[-3])
        weight, bias = self.used()
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.active_groups)

    def active_parameters(self) -> int:
        taps = self.weight[0, 0].numel()
        inputs = active(self.inputs) // self.active_groups
        return active(self.outputs) * (inputs * taps + (self.bias is not None))

    def plain(self) -> nn.Conv2d:
        """An ordinary layer of the present width, with copies of the weights."""
        layer = nn.Conv2d(
            active(self.inputs),
            active(self.outputs),
            self.kernel_size,  # type: ignore[arg-type]
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
            groups=self.active_groups,
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
            **_like(self.weight),
        )
        return _filled(layer, *self.used())


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

    def macs(self, tokens: int) -> int:
        """Multiplications of scores and of sums over N tokens, for one example."""
        return 2 * tokens * tokens * self.heads.active


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


def check_groups(groups: int, inputs: tuple[Channels, ...], outputs: tuple[Channels, ...]) -> None:
    """Refuse groups that a width would tear apart.

    Raises:
        ValueError: the sides do not say which channels stand together.
    """
    if groups == 1:
        return
    sides = (inputs, outputs)
    if any(len(side) != 1 or side[0].full % groups for side in sides):
        raise ValueError(
            f"{groups} groups do not divide {full(inputs)} inputs and {full(outputs)} outputs, of one set of "
            "channels each"
        )
    depthwise = inputs[0] is outputs[0] and inputs[0].full == groups
    if not depthwise and any(not side[0].fixed and side[0].unit != side[0].full // groups for side in sides):
        raise ValueError(
            f"the channels on both sides of {groups} groups must be units of whole groups: "
            f"Channels({inputs[0].full}, unit={inputs[0].full // groups}) and "
            f"Channels({outputs[0].full}, unit={outputs[0].full // groups}), or one depthwise set"
        )


def kept_groups(groups: int, inputs: tuple[Channels, ...], outputs: tuple[Channels, ...]) -> int:
    """How many of a convolution's groups are used at the present width.

    Raises:
        ValueError: the two sides keep different numbers of groups.
    """
    if groups == 1:
        return 1
    kept = [active(side) * groups // full(side) for side in (inputs, outputs)]
    if kept[0] != kept[1]:
        raise ValueError(
            f"a convolution of {groups} groups has inputs of {kept[0]} and outputs of {kept[1]} "
            "groups at these widths: give both sides one width"
        )
    return kept[0]


def _check_inputs(layer: Any, given: int) -> None:
    if given != active(layer.inputs):
        raise ValueError(
            f"this layer reads {active(layer.inputs)} of {full(layer.inputs)} channels at its present width, "
            f"but is given {given}: layers that follow each other share one Channels"
        )


def _used(layer: Any) -> tuple[Tensor, Tensor | None]:
    weight = first(layer.weight, 0, layer.outputs)
    if getattr(layer, "groups", 1) == 1:
        weight = first(weight, 1, layer.inputs)
    bias = None if layer.bias is None else first(layer.bias, 0, layer.outputs)
    return weight.contiguous(), bias


def _like(tensor: Tensor) -> dict[str, Any]:
    return {"device": tensor.device, "dtype": tensor.dtype}


@torch.no_grad()
def _filled(layer: Any, weight: Tensor, bias: Tensor | None) -> Any:
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer
