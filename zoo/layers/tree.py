"""A model as a tree of modules, with the shapes that they give and the numbers that they train. B batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zoo.catalogue import Catalogue
from zoo.contract import Plan
from zoo.data.random_inputs import sample_of
from zoo.layers.model import Model, build_model


@dataclass(frozen=True, kw_only=True)
class Node:
    """One module, or several alike side by side.

    name: within the module above; `0-3` for several. level: how deep it lies; the model itself is 0.
    type: its class. shape: of what it gives for one example, without the batch; `None`: it was not called by
    itself. parameters: numbers that are trained in it and below, of all `count` together.
    """

    name: str
    level: int
    type: str
    shape: tuple[int, ...] | None
    parameters: int
    count: int = 1


def module_tree(plan: Plan, *, catalogue: Catalogue, levels: int | None = None) -> list[Node]:
    """The model of a plan, module by module, top down; modules alike that follow each other are one node.

    levels: how many below the model; `None`: all.
    """
    model, shapes = _shapes(plan, catalogue)
    return list(_walk(model, "", "", 0, shapes, levels))


def _shapes(plan: Plan, catalogue: Catalogue) -> tuple[Model, dict[str, tuple[int, ...]]]:
    """The model and what each of its modules gives: on the meta device, where it runs without numbers."""
    x = sample_of(plan.inputs, 1, getattr(plan.inputs, "length", 1))
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model = build_model(plan, catalogue=catalogue, fresh=False).eval()
            return model, _seen(model, x.to("meta"))
        except Exception:  # a layer that looks at its numbers cannot run without any
            model = build_model(plan, catalogue=catalogue, fresh=False).eval()
            return model, _seen(model, x)


@torch.no_grad()
def _seen(model: Model, x: Tensor) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            if tensors:
                shapes[name] = tuple(tensors[0].shape[1:])

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _walk(
    module: nn.Module,
    path: str,
    name: str,
    level: int,
    shapes: dict[str, tuple[int, ...]],
    levels: int | None,
) -> Iterator[Node]:
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    yield Node(name=name, level=level, type=type(module).__name__, shape=shapes.get(path), parameters=trained)
    if levels is not None and level >= levels:
        return
    waiting: list[Node] = []
    for child, below in module.named_children():
        inner = f"{path}.{child}" if path else child
        found = list(_walk(below, inner, child, level + 1, shapes, levels))
        if waiting and _alike(waiting, found):
            first = waiting[0]
            waiting[0] = replace(
                first,
                name=f"{first.name.partition('-')[0]}-{child}",
                parameters=first.parameters + found[0].parameters,
                count=first.count + 1,
            )
            continue
        yield from waiting
        waiting = found
    yield from waiting


def _alike(one: list[Node], other: list[Node]) -> bool:
    """Whether two modules have the same modules of the same sizes below them."""
    first = replace(one[0], name=other[0].name, parameters=one[0].parameters // one[0].count, count=1)
    return [first, *one[1:]] == other
