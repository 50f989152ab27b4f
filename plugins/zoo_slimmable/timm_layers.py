"""timm's layers that can be slimmed as torch's can: attention, and norms with an activation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zoo import torchvision_shim
from zoo_slimmable.convolution import SlimmableConv2d, SlimmableConvTranspose2d
from zoo_slimmable.layers import SlimmableAttention, SlimmableLinear
from zoo_slimmable.norms import SlimmableBatchNorm2d, SlimmableLayerNorm
from zoo_slimmable.widths import Channels, fixed

torchvision_shim.install()

import timm.layers as tl  # noqa: E402


class SlimmableBatchNormAct2d(SlimmableBatchNorm2d):
    """timm's batch norm with dropout and activation behind it."""

    drop: nn.Module
    act: nn.Module

    def _finish(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))

    def plain(self) -> nn.Module:  # type: ignore[override]
        """Batch norm, dropout and activation of the present width."""
        return nn.Sequential(super().plain(), self.drop, self.act)


class SlimmableLayerNorm2d(SlimmableLayerNorm):
    """timm's layer norm over the channels of maps."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c, H, W) -> (B, c, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def plain(self) -> nn.LayerNorm:
        """timm's layer of the present width."""
        inner = super().plain()
        layer = tl.LayerNorm2d(self.channels.active, eps=self.eps, affine=self.weight is not None)
        layer = layer.to(next(self.parameters())) if self.weight is not None else layer
        layer.load_state_dict(inner.state_dict())
        return layer


#: What an ordinary layer becomes.
KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: SlimmableConv2d,
    nn.ConvTranspose2d: SlimmableConvTranspose2d,
    nn.Linear: SlimmableLinear,
    nn.BatchNorm2d: SlimmableBatchNorm2d,
    nn.LayerNorm: SlimmableLayerNorm,
    tl.LayerNorm: SlimmableLayerNorm,
    tl.LayerNorm2d: SlimmableLayerNorm2d,
    tl.BatchNormAct2d: SlimmableBatchNormAct2d,
}

#: timm's modules that are not looked into.
LEAVES = (tl.LayerNorm, tl.LayerNorm2d, tl.BatchNormAct2d, tl.DropPath, tl.SelectAdaptivePool2d)

#: Modules that work on each channel by itself, whatever their number.
SAME_CHANNELS = (
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid,
    nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.Mish, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d, nn.ZeroPad2d, nn.Upsample, tl.DropPath, tl.SelectAdaptivePool2d,
)  # fmt: skip

#: Norms, and from which end the dimension that they work over is counted.
_NORMS: dict[type[nn.Module], int] = {
    nn.BatchNorm2d: 1,
    tl.BatchNormAct2d: 1,
    tl.LayerNorm2d: 1,
    nn.LayerNorm: -1,
    tl.LayerNorm: -1,
}


def norm_dim(module: nn.Module) -> int | None:
    """Which dimension a norm that can be slimmed works over; `None` for other modules."""
    if getattr(module, "_fast_norm", False) or len(getattr(module, "normalized_shape", (0,))) != 1:
        return None
    return _NORMS.get(type(module))


def is_attention(module: nn.Module) -> bool:
    """Whether this is timm's attention, in a form whose heads can be slimmed."""
    return (
        type(module) is tl.Attention
        and module.fused_attn
        and isinstance(module.norm, nn.Identity)
        and module.gate is None
    )


def slim_attention(source: Any) -> SlimmableAttention:
    """timm's attention with the same weights, its heads slimmable."""
    made = SlimmableAttention(source.qkv.in_features, source.num_heads, head_dim=source.head_dim)
    heads = made.heads
    dim_in, dim_out = fixed(source.qkv.in_features), fixed(source.proj.out_features)
    for name, inputs, outputs in (("qkv", (dim_in,), (heads,) * 3), ("proj", (heads,), (dim_out,))):
        setattr(made, name, slim_layer(getattr(source, name), inputs, outputs))
    made.q_norm, made.k_norm = source.q_norm, source.k_norm
    made.attn_drop, made.proj_drop = source.attn_drop, source.proj_drop
    return made.train(source.training)


def slim_layer(layer: Any, inputs: tuple[Channels, ...], outputs: tuple[Channels, ...]) -> Any:
    """Change the class of a layer, in place: weights, names, hooks and mode stay."""
    layer.__class__ = KINDS[type(layer)]
    layer.inputs, layer.outputs = inputs, outputs
    return layer
