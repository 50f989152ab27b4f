"""A transposed convolution, and an embedding, that use the first channels of their weights.

B batch, C channels, N symbols, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo_slimmable.layers import (
    Size,
    _check_inputs,
    _filled,
    _like,
    check_groups,
    full,
    kept_groups,
    parts_of,
)
from zoo_slimmable.widths import Slimmable, active, first


class SlimmableConvTranspose2d(Slimmable, nn.ConvTranspose2d):
    """A transposed convolution with the weight W[:i, :o], which lies inputs first.

    Args:
        inputs, outputs: channels of the two sides; a plain number never changes.
        kernel, stride, padding, output_padding, dilation: as in torch.
        groups: of the full layer; whole groups are used, as in `SlimmableConv2d`.

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
        output_padding: int | tuple[int, int] = 0,
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
            output_padding=output_padding,
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
        """Weight (i, o / groups, ...) and bias at the present width."""
        weight = first(self.weight, 0, self.inputs)
        if self.groups == 1:
            weight = first(weight, 1, self.outputs)
        return weight.contiguous(), None if self.bias is None else first(self.bias, 0, self.outputs)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """x: (B, i, H, W) -> (B, o, H', W')."""
        _check_inputs(self, x.shape[-3])
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

    def active_parameters(self) -> int:
        taps = self.weight[0, 0].numel()
        outputs = active(self.outputs)
        each = active(self.inputs) * taps // self.active_groups
        return outputs * (each + (self.bias is not None))

    def plain(self) -> nn.ConvTranspose2d:
        """An ordinary layer of the present width, with copies of the weights."""
        layer = nn.ConvTranspose2d(
            active(self.inputs),
            active(self.outputs),
            self.kernel_size,  # type: ignore[arg-type]
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            output_padding=self.output_padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
            groups=self.active_groups,
            bias=self.bias is not None,
            **_like(self.weight),
        )
        return _filled(layer, *self.used())


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
        layer = nn.Embedding(self.num_embeddings, active(self.outputs), **_like(self.weight))
        return _filled(layer, *self.used())
