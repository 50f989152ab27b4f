"""A slimmable convolutional encoder, and slimmable decoders, one for each question.

B batch, C image channels, D width of the last stage, H and W rows and columns, K outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.plugin import Classes, Image, Maps, Multi, Values
from zoo_slimmable.config import ConvConfig, DecodersConfig, MapDecodersConfig, NormConfig
from zoo_slimmable.convolution import SlimmableConv2d, SlimmableConvTranspose2d
from zoo_slimmable.layers import SlimmableLinear
from zoo_slimmable.norms import Scopes, SlimmableBatchNorm2d, SlimmableGroupNorm, SwitchableBatchNorm2d
from zoo_slimmable.widths import Channels, channels_of, fixed

#: The question of a head that answers one only.
ONLY = "answer"


class Encoder(nn.Module):
    """Stages of convolutions, each half as large and twice as wide as the one before.

    A stage's channels are one set, which its residual blocks share; within a block they are free.

    Attributes:
        channels: of the last stage, which decoders read.
        taps: names of the modules whose outputs are compared between widths.
    """

    def __init__(self, config: ConvConfig, *, width: int, causal: bool, inputs: Image) -> None:
        super().__init__()
        if causal:
            raise ValueError("slim/conv sees whole images; it cannot be built with causal=True")
        self.num_features = width
        scope: list[Channels] = []
        stages, given = [], fixed(inputs.channels)
        for index in range(config.stages):
            channels = Channels(width >> (config.stages - 1 - index), divisor=config.divisor)
            stride = config.stride if index == 0 else 2
            stages.append(Stage(config, given, channels, stride=stride, scopes=(scope,)))
            given = channels
        self.stages = nn.ModuleList(stages)
        self.channels = given
        self.taps = tuple(f"stages.{index}" for index in range(config.stages))
        scope += channels_of(self)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, d, H', W'), d of the D channels at the present width."""
        for stage in self.stages:
            x = stage(x)
        return x

    def forward_intermediates(self, x: Tensor, *, indices: int | Sequence[int] | None = None) -> list[Tensor]:
        """What each stage gives; indices: which; a number n: the last n; `None`: all.

        Raises:
            ValueError: there is no such stage.
        """
        passed = []
        for stage in self.stages:
            x = stage(x)
            passed.append(x)
        count = len(passed)
        wanted = range(count) if indices is None else indices
        wanted = range(count - wanted, count) if isinstance(wanted, int) else wanted
        if any(not -count <= index < count for index in wanted):
            raise ValueError(f"stages are 0 to {count - 1}, or -{count} to -1, got {list(wanted)}")
        return [passed[index] for index in wanted]


class Stage(nn.Module):
    """A convolution to the stage's channels, and residual blocks on them."""

    def __init__(
        self, config: ConvConfig, given: Channels, channels: Channels, *, stride: int, scopes: Scopes
    ) -> None:
        super().__init__()
        self.enter = SlimmableConv2d(given, channels, 3, stride=stride, padding=1, bias=False)
        self.norm = make_norm(config, channels, scopes)
        self.blocks = nn.ModuleList(Block(config, channels, scopes) for _ in range(config.blocks))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c, H, W) -> (B, c', H', W')."""
        x = F.gelu(self.norm(self.enter(x)))
        for block in self.blocks:
            x = block(x)
        return x


class Block(nn.Module):
    """x + norm(conv(gelu(norm(conv(x))))), then a gelu."""

    def __init__(self, config: ConvConfig, channels: Channels, scopes: Scopes) -> None:
        super().__init__()
        inner = Channels(channels.full, divisor=config.divisor)
        self.first = SlimmableConv2d(channels, inner, 3, padding=1, bias=False)
        self.norm1 = make_norm(config, inner, scopes)
        self.second = SlimmableConv2d(inner, channels, 3, padding=1, bias=False)
        self.norm2 = make_norm(config, channels, scopes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c, H, W) -> the same."""
        return F.gelu(x + self.norm2(self.second(F.gelu(self.norm1(self.first(x))))))


class Decoders(nn.Module):
    """A decoder for each question, with a width of its own: about the example, or about each pixel of it.

    Features (B, D) count as maps of one pixel.

    Attributes:
        decoders: by question.
    """

    def __init__(
        self, config: DecodersConfig, *, targets: Classes | Values | Multi | Maps, width: int
    ) -> None:
        super().__init__()
        parts = targets.parts if isinstance(targets, (Multi, Maps)) else {ONLY: targets}
        self.decoders = nn.ModuleDict(
            {name: self._decoder(config, targets, part.outputs, fixed(width)) for name, part in parts.items()}
        )

    def _decoder(self, config: DecodersConfig, targets: Any, outputs: int, given: Channels) -> nn.Module:
        if isinstance(config, MapDecodersConfig):
            return MapDecoder(config, given, outputs, size=(targets.height, targets.width))
        return Decoder(config, given, outputs)

    def connect(self, stem: nn.Module | None, *, backbone: nn.Module) -> None:
        """Read as many channels as the backbone gives at its width."""
        given = getattr(backbone, "channels", None)
        for decoder in self._all():
            decoder.read(given, list(channels_of(backbone)))

    def forward(self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        """features: (B, d, H, W) or (B, d) -> the answers side by side, (B, K), or (B, K, H, W).

        pre_logits: what the decoders share, the mean of the features, (B, d); of maps what their last linear
            maps take, side by side.
        """
        if features.dim() == 2:
            features = features[:, :, None, None]
        if pre_logits and not any(isinstance(decoder, MapDecoder) for decoder in self._all()):
            return features.mean((2, 3))
        return torch.cat([decoder(features, pre_logits=pre_logits) for decoder in self._all()], dim=1)

    def _all(self) -> Iterator[Any]:
        return iter(self.decoders.values())


class Decoder(nn.Module):
    """One of `Decoders`, about the example: convolution, norm, gelu, mean, linear map."""

    def __init__(self, config: DecodersConfig, given: Channels, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.channels = Channels(config.hidden, divisor=config.divisor)
        self.enter = self._enter(given)
        self.norm: nn.Module = make_norm(config, self.channels, ((self.channels,),))
        self.answer = self._answer(outputs)

    def _enter(self, given: Channels) -> Any:
        side = self.config.kernel
        return SlimmableConv2d(given, self.channels, side, padding=side // 2, bias=False)

    def _answer(self, outputs: int) -> nn.Module:
        return SlimmableLinear(self.channels, outputs)

    def read(self, given: Channels | None, encoder: list[Channels]) -> None:
        """Share the channels of what comes before, and count them among those that statistics depend on."""
        if isinstance(given, Channels):
            self.enter.inputs = (given,)
        if encoder and self.config.norm in ("batch", "switchable"):
            like = next(self.norm.parameters())
            self.norm = make_norm(self.config, self.channels, (encoder, [self.channels])).to(like)

    def forward(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        """x: (B, d, H, W) -> (B, K); pre_logits: what the linear map takes, (B, c)."""
        pooled = F.gelu(self.norm(self.enter(x))).mean((2, 3))
        return pooled if pre_logits else self.answer(pooled)


class MapDecoder(Decoder):
    """One of `Decoders`, about each pixel.

    Each place of the features becomes a square of pixels (a transposed convolution), which is resized to the
    image; then norm, gelu, a convolution added to what it takes, and a linear map of each pixel.
    """

    def __init__(
        self, config: MapDecodersConfig, given: Channels, outputs: int, *, size: tuple[int, int]
    ) -> None:
        self.unfold, self.size = config.unfold, size
        super().__init__(config, given, outputs)
        side = config.kernel
        self.smooth = SlimmableConv2d(self.channels, self.channels, side, padding=side // 2)

    def _enter(self, given: Channels) -> Any:
        return SlimmableConvTranspose2d(given, self.channels, self.unfold, stride=self.unfold, bias=False)

    def _answer(self, outputs: int) -> nn.Module:
        return SlimmableConv2d(self.channels, outputs, 1)

    def forward(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        """x: (B, d, h, w) -> (B, K, H, W); pre_logits: what the last linear map takes, (B, c, H, W)."""
        x = self.enter(x)  # (B, c, h * unfold, w * unfold)
        if x.shape[2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False)
        x = F.gelu(self.norm(x))
        x = F.gelu(x + self.smooth(x))
        return x if pre_logits else self.answer(x)


def make_norm(config: NormConfig, channels: Channels, scopes: Scopes) -> nn.Module:
    """The norm that the parameters name. scopes: see `zoo_slimmable.norms`."""
    if config.norm == "group":
        return SlimmableGroupNorm(channels, group=config.divisor)
    if config.norm == "batch":
        return SlimmableBatchNorm2d(channels, scopes=scopes)
    return SwitchableBatchNorm2d(channels, widths=config.widths, scopes=scopes)
