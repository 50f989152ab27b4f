"""Convolutions that use the first channels of their weights.

B batch, C channels, H and W rows and columns.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from zoo_slimmable.layers import Size, check_inputs, filled, full, like, parts_of
from zoo_slimmable.widths import Channels, Slimmable, active, first


class Convolution(Slimmable, _ConvNd):
    """What both convolutions have in common; it stands before torch's layer among the bases.

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

    #: Torch's layer.
    ordinary: Any

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
        build: Any = super().__init__  # of torch's layer, the next of the bases
        build(
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
    def sides(self) -> tuple[tuple[Channels, ...], tuple[Channels, ...]]:
        """The channels along the weight's first two dimensions."""
        raise NotImplementedError

    @property
    def active_groups(self) -> int:
        """Groups at the present width.

        Raises:
            ValueError: the two sides keep different numbers of groups.
        """
        return kept_groups(self.groups, self.inputs, self.outputs)

    def used(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias at the present width; of groups the weight's second dimension is that of one."""
        weight = first(self.weight, 0, self.sides[0])
        if self.groups == 1:
            weight = first(weight, 1, self.sides[1])
        return weight.contiguous(), None if self.bias is None else first(self.bias, 0, self.outputs)

    def check_width(self) -> None:
        kept_groups(self.groups, self.inputs, self.outputs)

    def active_parameters(self) -> int:
        taps = self.weight[0, 0].numel()
        inputs = active(self.inputs) // self.active_groups
        return active(self.outputs) * (inputs * taps + (self.bias is not None))

    def plain(self) -> Any:
        """An ordinary layer of the present width, with copies of the weights."""
        layer = self.ordinary(
            active(self.inputs),
            active(self.outputs),
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.active_groups,
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
            **like(self.weight),
        )
        layer.output_padding = self.output_padding
        return filled(layer, *self.used())


class SlimmableConv2d(Convolution, nn.Conv2d):
    """A convolution with the weight W[:o, :i]; depthwise where both sides are the same channels.

    See `Convolution` for its parameters and errors.
    """

    ordinary = nn.Conv2d

    @property
    def sides(self) -> tuple[tuple[Channels, ...], tuple[Channels, ...]]:
        """Outputs come first."""
        return self.outputs, self.inputs

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, i, H, W) -> (B, o, H', W')."""
        check_inputs(self, x.shape[-3])
        weight, bias = self.used()
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.active_groups)


class SlimmableConvTranspose2d(Convolution, nn.ConvTranspose2d):
    """A transposed convolution with the weight W[:i, :o], which lies inputs first.

    See `Convolution` for its parameters and errors; output_padding: as in torch.
    """

    ordinary = nn.ConvTranspose2d

    def __init__(
        self,
        inputs: Size,
        outputs: Size,
        kernel: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.output_padding = (output_padding,) * 2 if isinstance(output_padding, int) else output_padding

    @property
    def sides(self) -> tuple[tuple[Channels, ...], tuple[Channels, ...]]:
        """Inputs come first."""
        return self.inputs, self.outputs

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """x: (B, i, H, W) -> (B, o, H', W')."""
        check_inputs(self, x.shape[-3])
        weight, bias = self.used()
        return F.conv_transpose2d(
            x,
            weight,
            bias,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.output_padding,  # type: ignore[arg-type]
            self.active_groups,
            self.dilation,  # type: ignore[arg-type]
        )


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
