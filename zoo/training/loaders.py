"""The order of the data: a run is one stream of batches, and any part of it can be made again.

Batch `number` of a run depends on the seed and on `number` alone: the epoch it lies in is
`number // batches_per_epoch`, each epoch has its own permutation, and whatever is random in a dataset
(augmentation) starts from a seed of its own. So a resumed run sees what the uninterrupted one would. Of
several processes each takes its part of every batch, so that a batch is the same on any number of devices.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from zoo.data.batch import Batch, collate

#: The key of a batch that is not to count, see `part_of`.
IDLE = "idle"


def derived_seed(seed: int, purpose: str, number: int = 0) -> int:
    """A 63-bit seed that differs for each (seed, purpose, number)."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_generators(seed: int, device: torch.device | None = None) -> None:
    """What `torch.manual_seed` does, for the CPU and one device.

    That takes a millisecond where there is no GPU: for each kind of device that torch knows it stores the
    call, with the stack it came from, until the device is used.
    """
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class Job(NamedTuple):
    """What makes a batch. seed: of whatever is random in it. idle: it fills a gap and is not to count."""

    seed: int | None
    indices: list[int]
    idle: bool


def part_of(batch: Sequence[int], rank: int, processes: int) -> tuple[list[int], bool]:
    """A process's examples of a batch, and whether they only fill a gap.

    Every process makes every step, for they wait for each other: one that is left without an example, at the
    end of an epoch, takes another's and counts it with weight 0.
    """
    part = list(batch[rank::processes])
    return (part, False) if part else (list(batch[:1]), True)


def own(purpose: str, rank: int) -> str:
    """The purpose of a seed that differs between processes; the first has that of a run on one device."""
    return f"{purpose}/{rank}" if rank else purpose


class BatchStream:
    """A batch sampler over all epochs of a run: for each batch, the job that makes this process's part of it.

    Args:
        examples: size of the split.
        batch_size: B, of all processes together; the last batch of an epoch may be smaller.
        batches: length of the whole run.
        start: batches that an earlier part of the run has used up.
        rank, processes: which of how many this one is.
    """

    def __init__(
        self,
        *,
        examples: int,
        batch_size: int,
        batches: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.start = start
        self.rank = rank
        self.processes = processes

    def __iter__(self) -> Iterator[Job]:
        per_epoch = batches_per_epoch(self.examples, self.batch_size)
        order: list[int] = []
        for number in range(self.start, self.batches):
            epoch, position = divmod(number, per_epoch)
            if position == 0 or not order:
                generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
                order = torch.randperm(self.examples, generator=generator).tolist()
            first = position * self.batch_size
            seed = derived_seed(self.seed, own("batch", self.rank), number)
            yield Job(seed, *part_of(order[first : first + self.batch_size], self.rank, self.processes))

    def __len__(self) -> int:
        return self.batches  # of the whole run: Lightning adds what is used up itself


class EvalStream:
    """A batch sampler over a split in order, each example in one process."""

    def __init__(self, *, examples: int, batch_size: int, rank: int = 0, processes: int = 1) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.rank = rank
        self.processes = processes

    def __iter__(self) -> Iterator[Job]:
        for first in range(0, self.examples, self.batch_size):
            batch = range(first, min(first + self.batch_size, self.examples))
            yield Job(None, *part_of(batch, self.rank, self.processes))

    def __len__(self) -> int:
        return batches_per_epoch(self.examples, self.batch_size)


class SeededBatches:
    """A split whose batches are made with torch's generator set, in this process or in a worker."""

    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, job: Job) -> Batch:
        if job.seed is not None:
            seed_generators(job.seed)
        if hasattr(self.split, "__getitems__"):
            batch = collate(self.split.__getitems__(job.indices))
        else:
            batch = collate([self.split[index] for index in job.indices])
        return {**batch, IDLE: True} if job.idle else batch


def batches_per_epoch(examples: int, batch_size: int) -> int:
    """How many batches show every example once."""
    return -(-examples // batch_size)


def train_loader(split: Any, stream: BatchStream, *, workers: int = 0, pin: bool = False) -> DataLoader[Any]:
    """The batches of `stream`, from its start on."""
    return DataLoader(
        SeededBatches(split),  # type: ignore[arg-type]
        batch_sampler=stream,  # type: ignore[arg-type]
        collate_fn=_ready,
        num_workers=workers,
        worker_init_fn=_ignore_interrupt,
        pin_memory=pin,
    )


def eval_loader(
    split: Any,
    *,
    batch_size: int,
    workers: int = 0,
    pin: bool = False,
    rank: int = 0,
    processes: int = 1,
) -> DataLoader[Any]:
    """A split in order, or the part of it that is this process's."""
    stream = EvalStream(examples=len(split), batch_size=batch_size, rank=rank, processes=processes)
    return DataLoader(
        SeededBatches(split),  # type: ignore[arg-type]
        batch_sampler=stream,  # type: ignore[arg-type]
        collate_fn=_ready,
        num_workers=workers,
        worker_init_fn=_ignore_interrupt,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )


def _ready(batch: Any) -> Any:
    return batch


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; what it means is decided in the main one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
