"""Make an existing convolutional or transformer backbone slimmable, in place: same weights, same names.

The model is traced in evaluation and in training, see `zoo_slimmable.tracing`, and its channels are followed
in both, see `zoo_slimmable.graph`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

from zoo.layers import Model
from zoo.plugin import Image, Transformed
from zoo_slimmable.config import SlimmableConfig
from zoo_slimmable.graph import Graph, Set, Sides
from zoo_slimmable.norms import SlimmableBatchNorm2d, SwitchableBatchNorm2d
from zoo_slimmable.timm_layers import is_attention, slim_attention, slim_layer
from zoo_slimmable.tracing import trace
from zoo_slimmable.widths import Channels, channels_of, fixed, matches

M = TypeVar("M", bound=nn.Module)


def apply(model: M, config: SlimmableConfig) -> Transformed:
    """The transform `slim/slimmable`."""
    if channels_of(_target(model)):  # the head may have widths of its own
        return Transformed(model=model)
    return Transformed(model=model, notes=tuple(make_slimmable(model, config)))


def make_slimmable(model: nn.Module, config: SlimmableConfig) -> list[str]:
    """Convert the layers of a model where it allows; of one of the zoo's, those of its backbone.

    Returns:
        Sentences on what stays at full width.

    Raises:
        ValueError: it cannot be traced, or nothing in it can be slimmed; then nothing is changed.
    """
    target = _target(model)
    for pattern in config.exclude:
        if not any(matches(name, pattern) for name, _ in target.named_modules() if name):
            raise ValueError(f"exclude: {pattern!r} is no module of this model")

    def named(kind: Callable[[nn.Module], bool]) -> list[str]:
        found = [name for name, module in target.named_modules() if kind(module)]
        return [name for name in found if not any(matches(name, pattern) for pattern in config.exclude)]

    x = _example(model, config)
    graph = Graph(target, _traced(target, x, training=False), _traced(target, x, training=True))
    layers, attentions = graph.free(config.exclude), named(is_attention)
    if not (layers or attentions):
        why = "; ".join(sorted(set(graph.reasons())))
        raise ValueError(
            f"no channels of it can be slimmed: {why or 'it has no linear or convolutional layer'}"
        )
    if isinstance(model, Model) and any(isinstance(m, SwitchableBatchNorm2d) for m in model.head.modules()):
        raise ValueError("switchable norms of its head do not know the encoder's widths: use group or batch")
    for name in attentions:
        parent, _, last = name.rpartition(".")
        setattr(target.get_submodule(parent), last, slim_attention(target.get_submodule(name)))
    _convert(target, layers, divisor=config.divisor)
    if isinstance(model, Model):
        for norm in model.head.modules():
            if isinstance(norm, SlimmableBatchNorm2d):  # whose statistics now depend on the encoder's widths
                norm.start_statistics((list(channels_of(target)), *norm.scopes))
    return graph.notes()


def _target(model: nn.Module) -> nn.Module:
    target: nn.Module = model.backbone if isinstance(model, Model) else model
    return target


def _example(model: nn.Module, config: SlimmableConfig) -> Tensor:
    """An input of the model.

    Raises:
        ValueError: its size is not known.
    """
    like = next((p for p in model.parameters()), None)
    if like is None:
        raise ValueError("it has no weights")
    size: tuple[int, ...] | None = config.input_size or None
    if size is None and isinstance(model, Model):
        inputs = model.plan.inputs
        if not isinstance(inputs, Image) or model.plan.claims.accepts != "image":
            raise ValueError(
                f"it works on {model.plan.claims.accepts}, and only image models can be converted"
            )
        size = (inputs.channels, inputs.height, inputs.width)
    if size is None:
        known = getattr(model, "pretrained_cfg", None) or {}
        size = tuple(known["input_size"]) if "input_size" in known else None
        image = getattr(getattr(model, "patch_embed", None), "img_size", None)
        if size is not None and image is not None:
            size = (size[0], *image)
    if size is None:
        raise ValueError("the size of its images is not known: give input_size, e.g. [3, 224, 224]")
    return torch.zeros(2, *size, dtype=like.dtype, device=like.device)


def _traced(target: nn.Module, x: Tensor, *, training: bool) -> fx.Graph:
    try:
        # Of a copy: what a forward keeps for later would be kept of the tracing.
        return trace(copy.deepcopy(target), x, training=training)
    except Exception as error:  # it fails in as many ways as there are ways to write a forward
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        mode = " in training" if training else ""
        raise ValueError(f"its forward cannot be traced{mode} ({why})") from error


def _convert(target: nn.Module, layers: dict[str, Sides], *, divisor: int) -> None:
    made: dict[Set, Channels] = {}

    def channels(sets: tuple[Set, ...]) -> tuple[Channels, ...]:
        roots = [each.root() for each in sets]
        for root in roots:
            if root not in made:
                made[root] = fixed(root.size) if root.why else Channels(root.size, divisor=divisor)
        return tuple(made[root] for root in roots)

    scope: list[Channels] = []
    for name, (reads, writes) in layers.items():
        layer = slim_layer(target.get_submodule(name), channels(reads), channels(writes))
        if isinstance(layer, SlimmableBatchNorm2d):
            layer.start_statistics((scope,))
    scope += channels_of(target)
