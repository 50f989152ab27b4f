"""Convolutions whose weights are functions, and a small model of them. B batch, C channels, O outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers import full_precision, sum_dtype
from zoo.plugin import Image
from zoo_kan.bases import make_basis
from zoo_kan.config import KanConvConfig
from zoo_kan.edges import branch, expand
from zoo_kan.functional import check_floating, check_whole
from zoo_kan.layers import NOISE
from zoo_kan.model import pick
from zoo_kan.splines import Extrapolate


class KANConv2d(nn.Module):
    """A KAN layer over each patch: y_o = sum over the patch's places p and channels c of phi_ocp(x_cp).

    The functions of the basis are taken of each pixel once and then convolved, which is the same as
    `KANLinear` on patches (tested) but for the grids: here one for each channel, not for each place of a
    patch. They stay as they are: `kan/grids` moves those of `KANLinear` only.

    Args:
        kernel_size, stride, padding: as of `torch.nn.Conv2d`, one number for both sides. Padding is with
            zeros, of the pixels: the functions see them.
        grid_intervals, order, grid_range, basis, base, extrapolate: as of `KANLinear`.

    Raises:
        ValueError: sizes that cannot be.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        grid_intervals: int = 5,
        order: int = 3,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        basis: str = "bspline",
        base: str = "silu",
        extrapolate: Extrapolate = "zero",
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "kernel_size": kernel_size}
        sizes["stride"] = stride
        for name, size in sizes.items():
            check_whole(name, size, at_least=1)
        check_whole("padding", padding, at_least=0)
        if base not in ("silu", "identity", "none"):
            raise ValueError(f"base must be one of silu, identity, none, got {base!r}")
        self.in_channels, self.stride, self.padding, self.base = in_channels, stride, padding, base
        self.basis = make_basis(
            basis,
            features=in_channels,
            intervals=grid_intervals,
            order=order,
            low=grid_range[0],
            high=grid_range[1],
            extrapolate=extrapolate,
        )
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        bound = 1 / math.sqrt(in_channels * kernel_size**2)
        with_base = base != "none"
        self.coef = nn.Parameter(torch.empty(*shape, self.basis.count))
        self.base_weight = nn.Parameter(torch.empty(shape)) if with_base else None
        nn.init.normal_(self.coef, std=NOISE * bound if with_base else bound)
        if self.base_weight is not None:
            nn.init.uniform_(self.base_weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, O, H', W').

        Raises:
            ValueError: another number of channels, or not of a floating-point type.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"expected x (B, {self.in_channels}, H, W), got {tuple(x.shape)}")
        check_floating(x)
        with full_precision(x.device):
            padded = F.pad(x, (self.padding,) * 4).to(sum_dtype(x.dtype))
            pixels = padded.permute(0, 2, 3, 1)  # (B, H, W, C)
            planes = expand(pixels.flatten(0, 2), self.basis).flatten(1)  # (B H W, K C)
            planes = planes.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2)
            weight = self.coef.permute(0, 4, 1, 2, 3).flatten(1, 2).to(planes.dtype)  # (O, K C, kh, kw)
            y = F.conv2d(planes, weight, stride=self.stride)
            if self.base_weight is not None:
                weight = self.base_weight.to(planes.dtype)
                y = y + F.conv2d(branch(padded, self.base), weight, stride=self.stride)
        return y.to(x.dtype)


class KanConv(nn.Module):
    """KAN convolutions on images, each after a norm; every further one halves the sides. Then the mean."""

    def __init__(self, config: KanConvConfig, *, width: int, causal: bool, inputs: Image) -> None:
        super().__init__()
        if causal:
            raise ValueError("kan/conv sees whole images: causal=True makes no sense")
        self.num_features = config.channels[-1]
        sizes = (inputs.channels, *config.channels)
        self.norms = nn.ModuleList(nn.GroupNorm(1, size, affine=False) for size in sizes[:-1])
        self.layers = nn.ModuleList(
            KANConv2d(
                channels,
                outputs,
                config.kernel,
                stride=1 if not n else 2,
                padding=config.kernel // 2,
                **config.functions,  # type: ignore[arg-type]
            )
            for n, (channels, outputs) in enumerate(pairwise(sizes))
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, channels[-1])."""
        return self.forward_intermediates(x, indices=1)[0].mean((2, 3))

    def forward_intermediates(self, x: Tensor, *, indices: int | Sequence[int] | None = None) -> list[Tensor]:
        """What each layer passes on, (B, O, H', W'); `indices` as in `Kan`.

        Raises:
            ValueError: there is no such layer.
        """
        passed = []
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = layer(norm(x))
            passed.append(x)
        return pick(passed, indices)
