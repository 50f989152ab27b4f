"""Examples, batches, and how the first become the second. B batch, N tokens or time steps, C channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.kinds import IGNORE

#: `{"input": Tensor, "target": Tensor}`; data to predict on has no target. Where several questions are asked
#: (the kind Multi), the target is a dict of tensors.
Example = dict[str, Any]
#: The same with a leading B, and `"length"` (B,) int64 where inputs are ragged.
Batch = dict[str, Any]


def collate(examples: Sequence[Example] | Batch) -> Batch:
    """Join examples into a batch; a batch that is ready (from `__getitems__`) passes through.

    Ids (N,), series and events (N, C) of different N are padded with 0 on the right, per-token targets with
    IGNORE (or NaN, where they are real numbers), and `"length"` tells the true N.

    Raises:
        ZooError: there is no example, or shapes differ in something else than N.
    """
    if isinstance(examples, dict):
        return examples
    if not examples:
        raise ZooError("there is no example to make a batch of")
    inputs = [example["input"] for example in examples]
    if len({(x.ndim, x.dtype, x.shape[1:] if _is_sequence(x) else x.shape) for x in inputs}) > 1:
        raise ZooError(f"inputs of these shapes and types cannot share a batch: {_shapes(inputs)}")
    batch: Batch = {}
    if _is_sequence(inputs[0]):
        batch["input"] = pad(inputs, value=0)
        lengths = [len(x) for x in inputs]
        if len(set(lengths)) > 1:
            batch["length"] = torch.tensor(lengths)
    else:
        batch["input"] = torch.stack(inputs)
    if "target" in examples[0]:
        batch["target"] = _join([example["target"] for example in examples])
    return batch


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with every tensor on `device`."""
    return {
        name: to_device(value, device) if isinstance(value, dict) else value.to(device)
        for name, value in batch.items()
    }


def _join(targets: Sequence[Any]) -> Any:
    if isinstance(targets[0], dict):
        return {name: _join([target[name] for target in targets]) for name in targets[0]}
    if _is_ids(targets[0]):
        return pad(targets, value=IGNORE)
    ragged = _is_sequence(targets[0]) and len({len(target) for target in targets}) > 1
    return pad(targets, value=torch.nan) if ragged else torch.stack(list(targets))


def mask_of(batch: Batch) -> Tensor | None:
    """Which tokens are real, bool (B, N), True = keep; `None` where nothing is padded."""
    if "length" not in batch:
        return None
    steps = torch.arange(batch["input"].shape[1], device=batch["input"].device)
    lengths: Tensor = batch["length"]
    return steps < lengths.to(steps.device)[:, None]  # (B, N)


def pad(sequences: Sequence[Tensor], *, value: float) -> Tensor:
    """Sequences (N_i, ...) padded on the right to the longest: (B, N, ...)."""
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=value)


def _is_ids(x: Tensor) -> bool:
    return x.ndim == 1 and not x.is_floating_point()


def _is_sequence(x: Tensor) -> bool:
    return _is_ids(x) or x.ndim == 2  # ids (N,), or series and events (N, C)


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(sorted({f"{tuple(x.shape)} {x.dtype}".replace("torch.", "") for x in tensors}))
