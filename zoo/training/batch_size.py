"""`data.batch_size: auto`: how large a batch fits in memory. B batch."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.batch import collate, mask_of, to_device
from zoo.data.split import Split
from zoo.errors import ZooError
from zoo.layers.model import Model
from zoo.tasks.base import Task

#: The share of free memory that a step may fill: what is measured is not all that a step needs for a moment.
SHARE = 0.5
#: An epoch keeps at least so many updates.
UPDATES = 16
#: The sizes that are measured; what larger ones need follows from these.
TRIED = (4, 8)


def largest_batch(
    model: Model, task: Task[Any, Any], split: Split, *, device: torch.device, memory: int | None = None
) -> int:
    """The largest power of two whose step fits in the memory of the device.

    A step keeps numbers for each example until it has gone backwards, and four for each weight: itself, its
    gradient and two of the optimiser. At most a sixteenth of the split: more would fit with small data, but
    leave few updates.

    Args:
        memory: bytes; `None`: half of what is free.

    Raises:
        ZooError: not even one example fits.
    """
    room = int(SHARE * free_memory(device)) if memory is None else memory
    weights = 4 * sum(p.numel() * p.element_size() for p in model.parameters())
    small, large = (kept_bytes(model, task, split, size=size, device=device) for size in TRIED)
    each = max(1, (large - small) // (TRIED[1] - TRIED[0]))
    fitting = (room - weights - max(0, small - TRIED[0] * each)) // each
    if fitting < 1:
        raise ZooError(
            "data.batch_size: auto finds no room for one example: "
            f"a step needs {weights + each:,} bytes, and may take {room:,}. "
            "A smaller model, or trainer.gradient_checkpointing, needs less"
        )
    most = max(1, min(fitting, len(split) // UPDATES))
    return 1 << (most.bit_length() - 1)


def kept_bytes(model: Model, task: Task[Any, Any], split: Split, *, size: int, device: torch.device) -> int:
    """Bytes that a step with B examples keeps for going backwards, weights not counted."""
    model = copy.deepcopy(model).to(device).train()  # statistics of batch norms stay as they are
    step = max(1, len(split) // size)
    batch = to_device(collate([split[(i * step) % len(split)] for i in range(size)]), device)
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = task.loss(model(batch["input"], mask=mask_of(batch)), batch)
    del loss
    return sum(kept.values())


def free_memory(device: torch.device) -> int:
    """Bytes that a device has left."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    facts = _read("/proc/meminfo")
    if "MemAvailable:" in facts:
        free.append(1024 * int(facts.partition("MemAvailable:")[2].split()[0]))
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():  # of a container
        free.append(int(limit) - int(used))
    return min(free)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
