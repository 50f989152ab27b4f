"""A model of timm without its classifier, as a backbone: images (B, C, H, W) -> features (B, D)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo import torchvision_shim
from zoo.plugin import Image, ZooError
from zoo_timm.config import SETTLED, TimmConfig

torchvision_shim.install()

import timm  # noqa: E402
from timm.models import get_pretrained_cfg  # noqa: E402

from zoo_timm.weights import weights_file  # noqa: E402

#: Sides of square images that are tried when an image does not fit, to name the smallest that does.
SIDES = (8, 12, 16, 24, 28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 256, 288, 320, 336, 384, 448, 512)


class TimmBackbone(nn.Module):
    """What timm gives before its classifier: its own pooling and last norm included.

    Attributes:
        model: timm's module, with `num_classes=0`.
        num_features: D, the width of what comes out.
    """

    def __init__(self, model: nn.Module, *, num_features: int) -> None:
        super().__init__()
        self.model: Any = model
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, D), or (B, D, H', W') from a convolutional model told not to pool.

        Tokens, of a transformer that does not pool, are averaged.
        """
        features = self.model(x)
        return features.mean(1) if features.dim() == 3 else features


class LayeredBackbone(TimmBackbone):
    """A backbone of which timm shows the stages."""

    def forward_intermediates(self, x: Tensor, *, indices: int | Sequence[int] | None = None) -> list[Tensor]:
        """x: (B, C, H, W) -> a feature map (B, D_i, H_i, W_i) of each stage; `indices` as in timm."""
        wanted = list(indices) if isinstance(indices, Sequence) else indices
        return self.model.forward_intermediates(x, indices=wanted, intermediates_only=True)


def build(
    config: TimmConfig, *, member: str, width: int, causal: bool, inputs: Image, fresh: bool = True
) -> TimmBackbone:
    """The model that timm calls `member`; its features are as wide as timm makes them, whatever `width` is.

    fresh: False where its weights are about to be loaded: pretrained ones are not fetched.

    Raises:
        ZooError: timm's model does not take these arguments or images of this size, or its pretrained weights
            are out of reach.
    """
    if causal:
        raise ZooError(f"timm/{member} sees whole images; it cannot be built with causal=True")
    settings = _pretrained_settings(member)
    arguments: dict[str, Any] = {"num_classes": 0, "in_chans": inputs.channels, **config.kwargs}
    if config.dropout_prob:
        arguments["drop_rate"] = config.dropout_prob
    if config.drop_path_prob:
        arguments["drop_path_rate"] = config.drop_path_prob
    size = (inputs.height, inputs.width)
    loading: dict[str, Any] = {}
    if config.pretrained and fresh:
        file = weights_file(member, settings)
        loading = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file), "custom_load": False}}
    try:
        model = _create(member, size, {**arguments, **loading})
        num_features = _output_width(model, inputs.channels, size)
    except ZooError:
        raise
    except Exception as error:  # timm and torch say in many ways that an image or an argument does not fit
        raise ZooError(_explain(error, member, inputs, arguments)) from error
    kind = LayeredBackbone if hasattr(model, "forward_intermediates") else TimmBackbone
    return kind(model, num_features=num_features)


def _pretrained_settings(member: str) -> Any:
    try:
        return get_pretrained_cfg(member)
    except RuntimeError:  # an invalid tag, of an architecture whose tags cannot be read from the source
        known = [f"timm/{name}" for name in timm.list_pretrained(f"{member.partition('.')[0]}.*")]
        raise ZooError(f"unknown model 'timm/{member}'. There is: {', '.join(known) or 'none'}.") from None


def _create(member: str, size: tuple[int, int], arguments: dict[str, Any]) -> nn.Module:
    """timm's module, told the image size where it takes one.

    Raises:
        ZooError: it does not know one of the arguments.
    """
    try:
        return timm.create_model(member, img_size=size, **arguments)
    except TypeError as error:
        if "'img_size'" not in str(error):
            _refuse_argument(error, member)
            raise
    try:
        return timm.create_model(member, **arguments)
    except TypeError as error:
        _refuse_argument(error, member)
        raise


def _refuse_argument(error: TypeError, member: str) -> None:
    """Raise a sentence where `error` says that an argument is unknown."""
    if "unexpected keyword argument" not in str(error):
        return
    name = str(error).rpartition("unexpected keyword argument")[2].strip(" '\"").split("'")[0]
    ours = {"drop_rate": "dropout_prob", "drop_path_rate": "drop_path_prob"}
    if name in ours:
        raise ZooError(f"timm/{member} has no {name}; leave {ours[name]} at 0") from error
    known = _arguments_of(member)
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else f" It takes: {', '.join(known)}." if known else ""
    raise ZooError(f"timm/{member} takes no argument {name!r} (kwargs).{hint}") from error


def _arguments_of(member: str) -> list[str]:
    """What may stand in kwargs: the arguments of the model's class, but for those settled elsewhere."""
    with torch.device("meta"):
        model = timm.create_model(member)
    return sorted(set(inspect.signature(type(model)).parameters) - {"kwargs", *SETTLED})


def _output_width(model: nn.Module, channels: int, size: tuple[int, int]) -> int:
    """D of the features. Not all of timm's classes state it, so two images of nothing are sent through."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            try:
                on_meta = {name: tensor.to("meta") for name, tensor in _tensors(model).items()}
                x = torch.empty(2, channels, *size, device="meta")
                y = functional_call(model, on_meta, (x,))
            except Exception:  # also where an operation has no form that computes shapes alone
                like = next(model.parameters())
                if like.device.type == "meta":
                    raise
                y = model(torch.zeros(2, channels, *size, device=like.device, dtype=like.dtype))
    finally:
        model.train(was_training)
    if not isinstance(y, Tensor) or y.dim() not in (2, 3, 4) or 0 in y.shape:
        given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"it gives {given}, expected features (B, D), (B, N, D) or (B, D, H, W)")
    return int(y.shape[2] if y.dim() == 3 else y.shape[1])


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _explain(error: Exception, member: str, inputs: Image, arguments: dict[str, Any]) -> str:
    """Why timm's model cannot be built for such images, and what would work."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    size = f"{inputs.height} x {inputs.width}"
    side, found = _smallest_side(member, inputs, arguments)
    if side is None:
        return f"timm/{member} cannot be built for images of {size} ({said})"
    if min(inputs.height, inputs.width) >= side:
        return f"timm/{member} cannot take images of {size} ({said}); {side} x {side} would work"
    sentence = f"timm/{member} takes images from {side} x {side} on, got {size} ({said})."
    if "patch_size" in inspect.signature(type(found)).parameters:
        sentence += " With a smaller patch_size in kwargs it takes smaller ones."
    return sentence + " Or take a convolutional model such as timm/test_efficientnet"


def _smallest_side(
    member: str, inputs: Image, arguments: dict[str, Any]
) -> tuple[int, nn.Module] | tuple[None, None]:
    """The smallest of `SIDES` that works, and the model built for it, on the meta device."""
    for side in SIDES:
        try:
            with torch.device("meta"):
                model = _create(member, (side, side), arguments)
            _output_width(model, inputs.channels, (side, side))
            return side, model
        except Exception:  # too small, or wrong in a way that no size mends
            continue
    return None, None
