"""What a network costs at a width, in closed form: multiply-accumulates and parameters.

One forward pass finds out at how many places each layer works; those do not depend on widths. From then on
any width is arithmetic, and nothing is run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo_slimmable.convolution import Convolution
from zoo_slimmable.layers import SlimmableAttention, SlimmableLinear
from zoo_slimmable.norms import _evaluating
from zoo_slimmable.widths import Slimmable, Width, active, channels_of, set_width, width_scope

#: Floating-point operations of a multiply-accumulate.
FLOPS_PER_MAC = 2


class Cost:
    """What a model costs at its present width, or at any other.

    Counted are linear maps, convolutions and attention, for one example; norms, activations and additions are
    not, as is usual.

    Args:
        model: its slimmable layers follow the model's width; others cost what they cost.
        x: inputs of the model, (B, ...); the cost is that of one example of this size.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model = model
        self.places = _places(model, x)

    def macs(self, width: Width | None = None, *, below: str = "") -> int:
        """Multiply-accumulates for one example; FLOPs are twice as many.

        width: another width than the present one. below: only layers in the module of this name.

        Raises:
            ValueError: there is no such module, or the width cannot be.
        """
        if width is not None:
            with width_scope(self.model, width):
                return self.macs(below=below)
        modules = self._modules(below)
        return sum(
            _macs(modules[name], places) for name, places in self.places.items() if _lies_in(name, below)
        )

    def parameters(self, width: Width | None = None, *, below: str = "") -> int:
        """How many numbers the network of a width has; arguments as in `macs`."""
        if width is not None:
            with width_scope(self.model, width):
                return self.parameters(below=below)
        counted = {id(p) for m in self.model.modules() if isinstance(m, Slimmable) for p in m.parameters()}  # type: ignore[attr-defined]
        total = 0
        for name, module in self._modules(below).items():
            if not _lies_in(name, below):
                continue
            if isinstance(module, Slimmable):
                total += module.active_parameters()
            total += sum(p.numel() for p in module.parameters(recurse=False) if id(p) not in counted)
        return total

    def _modules(self, below: str) -> dict[str, nn.Module]:
        """All modules by name, `below` among them."""
        modules = dict(self.model.named_modules())
        if below not in modules:
            raise ValueError(f"the model has no module {below!r}, whose cost was asked for")
        return modules


@torch.no_grad()
def _places(model: nn.Module, x: Tensor) -> dict[str, int]:
    """How often each layer works for one example; of attention the tokens."""
    found: dict[str, int] = {}

    def hook(name: str) -> Any:
        def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, SlimmableAttention):
                places = inputs[0].shape[-2]
            elif isinstance(module, nn.ConvTranspose2d):  # each place of the input spreads over the kernel
                places = inputs[0].numel() // inputs[0].shape[-3] // len(x)
            elif isinstance(module, nn.Conv2d):
                places = output.shape[-2] * output.shape[-1] * (output.numel() // output[0].numel()) // len(x)
            else:
                places = output.numel() // output.shape[-1] // len(x)
            found[name] = found.get(name, 0) + max(1, places)

        return count

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, SlimmableAttention)
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    before = {channels: (channels.width, channels.active) for channels in channels_of(model)}
    if before:
        set_width(model, 1.0)
    handles = [module.register_forward_hook(hook(name)) for name, module in named]
    try:
        with _evaluating(model):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
        for channels, (width, count) in before.items():
            channels.width, channels.active = width, count
    return found


def _macs(module: Any, places: int) -> int:
    if isinstance(module, SlimmableAttention):
        return module.macs(places)
    if isinstance(module, SlimmableLinear):
        return places * active(module.inputs) * active(module.outputs)
    if isinstance(module, Convolution):
        taps = module.kernel_size[0] * module.kernel_size[1]
        inputs = active(module.inputs) // module.active_groups
        return places * taps * inputs * active(module.outputs)
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        taps = module.kernel_size[0] * module.kernel_size[1]
        return places * taps * module.in_channels // module.groups * module.out_channels
    return places * module.in_features * module.out_features


def _lies_in(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")
