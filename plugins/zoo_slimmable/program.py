"""A cut-out network as a file that runs without the zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers import Model
from zoo.plugin import ZooError
from zoo_slimmable.configuration import tasks_of
from zoo_slimmable.cost import Cost
from zoo_slimmable.export import export_slim


@torch.no_grad()
def write_program(model: Model, x: Tensor, path: Path, *, tasks: tuple[str, ...] = ()) -> dict[str, Any]:
    """Write the network of the present width by torch.export, for any number of examples.

    Args:
        x: an input, (1, ...).
        tasks: keep the decoders of these only; their answers stand side by side in the model's order.

    Returns:
        Its size, its cost, and whether its outputs are those of the slimmed network bit for bit.

    Raises:
        ZooError: a task that has no decoder of its own, or the file cannot be written.
    """
    known = tasks_of(model)
    for task in tasks:
        if task not in known:
            raise ZooError(f"there is no decoder for {task!r}. There is: {', '.join(known) or 'none'}")
    cost = Cost(model, x)
    small: Any = export_slim(model).eval()
    if tasks:
        small.head.decoders = nn.ModuleDict(
            {name: small.head.decoders[name] for name in known if name in tasks}
        )
        expected = torch.cat(
            [model.head.decoders[n](model.forward_features(x)[0]) for n in known if n in tasks], 1
        )
    else:
        expected = model(x)
    several = x.expand(2, *x.shape[1:]).contiguous()
    program = torch.export.export(small, (several,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    try:
        torch.export.save(program, path)
    except (OSError, RuntimeError) as error:  # the latter from torch: no such folder, no space
        raise ZooError(f"{path}: cannot be written: {error}") from error
    outputs = torch.export.load(path).module()(x)
    macs = cost.macs() if not tasks else Cost(small, x).macs()
    return {
        "parameters": sum(p.numel() for p in small.parameters()),
        "full_parameters": sum(p.numel() for p in model.parameters()),
        "flops": 2 * macs,
        "share": macs / cost.macs(1.0),
        "same": bool(torch.equal(outputs, expected)),
        "difference": float((outputs - expected).abs().max()),
        "outputs": list(outputs.shape[1:]),
    }
