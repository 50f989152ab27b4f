"""What a network costs at a width, in closed form: multiply-accumulates and parameters.

One forward pass finds out at how many places each layer works; those do not depend on widths. From then on
any width is arithmetic, and nothing is run.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from zoo.layers import evaluating
from zoo.layers.operations import OperationCounter
from zoo_slimmable.convolution import Convolution
from zoo_slimmable.layers import SlimmableAttention, SlimmableLinear
from zoo_slimmable.widths import Slimmable, Width, active, channels_of, set_width, width_scope

#: Floating-point operations of a multiply-accumulate.
FLOPS_PER_MAC = 2
#: Layers whose cost follows from their sizes.
_COUNTED = (nn.Linear, _ConvNd, SlimmableAttention)


class Cost:
    """What a model costs at its present width, or at any other.

    Counted are products of matrices, convolutions and attention, for one example; norms, activations and
    additions are not, as is usual.

    Args:
        model: its slimmable layers follow the model's width; others, and what modules compute without a
            layer, cost what they cost.
        x: inputs of the model, (B, ...); the cost is that of one example of this size.

    Raises:
        ValueError: inputs of no example.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model = model
        self.places, self.others = _work(model, x)

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
        layers = (_macs(modules[n], places) for n, places in self.places.items() if _lies_in(n, below))
        return sum(layers) + sum(macs for name, macs in self.others.items() if _lies_in(name, below))

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
def _work(model: nn.Module, x: Tensor) -> tuple[dict[str, int], dict[str, int]]:
    """By name: how often each layer works for one example, see `_places`; and multiply-accumulates of what
    other modules compute themselves, beside the modules in them.
    """
    if not len(x):
        raise ValueError(
            f"the cost is found by one forward pass: give one example or more, not {tuple(x.shape)}"
        )
    places: Counter[str] = Counter()
    others: Counter[str] = Counter()
    operations = OperationCounter()
    calls: list[list[int]] = []  # under way: operations before it, and those of modules in it

    def enter(module: nn.Module, inputs: Any) -> None:
        calls.append([operations.total, 0])

    def leave(name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            before, within = calls.pop()
            total = operations.total - before
            if calls:
                calls[-1][1] += total
            if isinstance(module, _COUNTED):
                places[name] += max(1, _places(module, inputs[0], output) // len(x))
            elif total > within:
                others[name] += total - within

        return note

    before = {channels: (channels.width, channels.active) for channels in channels_of(model)}
    if before:
        set_width(model, 1.0)
    handles = []
    for name, module in model.named_modules():
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave(name))]
    try:
        with evaluating(model), operations:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
        for channels, (width, count) in before.items():
            channels.width, channels.active = width, count
    return dict(places), {name: flops // (FLOPS_PER_MAC * len(x)) for name, flops in others.items()}


def _places(module: Any, x: Tensor, output: Tensor) -> int:
    """At how many places of all examples a layer works; of attention the pairs of tokens of all."""
    if isinstance(module, SlimmableAttention):
        return x.shape[-2] * x.numel() // x.shape[-1]
    if isinstance(module, _ConvTransposeNd):  # each place of the input spreads over the kernel
        return x.numel() // module.in_channels
    return output.numel() // (module.out_channels if isinstance(module, _ConvNd) else output.shape[-1])


def _macs(module: Any, places: int) -> int:
    if isinstance(module, SlimmableAttention):
        return module.macs(places)
    if isinstance(module, SlimmableLinear):
        return places * active(module.inputs) * active(module.outputs)
    if isinstance(module, Convolution):
        taps = math.prod(module.kernel_size)
        inputs = active(module.inputs) // module.active_groups
        return places * taps * inputs * active(module.outputs)
    if isinstance(module, _ConvNd):
        taps = math.prod(module.kernel_size)
        return places * taps * module.in_channels // module.groups * module.out_channels
    return places * module.in_features * module.out_features


def _lies_in(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")
