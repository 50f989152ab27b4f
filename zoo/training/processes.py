"""The processes of a run: how many take part, and which of them this one is.

Each device has a process of its own, and all of them run the same command. They are started by torchrun, by
SLURM or another cluster that Lightning knows; without any, Lightning starts those of this node itself. The
first one leads: it alone writes the run folder and speaks to the user.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from zoo.recipe import LoadedRecipe
from zoo.recipe.schema import TrainerSection
from zoo.training.lightning import (
    CLUSTERS,
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
    pl,
    rank_zero_only,
)

#: What Lightning sets when it starts the others.
_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """count: of the whole run. per_node: of each node. rank: which one this is, from 0."""

    count: int = 1
    per_node: int = 1
    rank: int = 0
    environment: ClusterEnvironment | None = None

    @property
    def nodes(self) -> int:
        """Machines that take part."""
        return self.count // self.per_node

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0


def find_processes(loaded: LoadedRecipe) -> Processes:
    """Those that the recipe asks for, as they were started.

    Raises:
        ZooError: another number was started than the recipe asks for, or they cannot share what it asks for.
    """
    trainer, data = loaded.recipe.trainer, loaded.recipe.data
    per_node = _devices(trainer)
    count = per_node * trainer.nodes
    cluster = next((make() for kind, make in CLUSTERS.items() if kind.detect()), None)
    started = cluster.world_size() if cluster is not None else count
    if started != count and (count > 1 or isinstance(cluster, TorchElasticEnvironment)):
        raise loaded.mistake(
            "trainer.devices",
            f"{started} processes were started for this run, but trainer.devices x trainer.nodes is "
            f"{per_node} x {trainer.nodes} = {count}; start as many, or set them to what was started",
        )
    if count == 1:  # several of them in a job of SLURM are several runs
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        return Processes(environment=LightningEnvironment())
    if trainer.strategy == "fsdp" and loaded.recipe.callbacks.ema is not None:
        raise loaded.mistake(
            "callbacks.ema",
            "averages whole weights, and fsdp leaves a device a share of each: take ddp, or no ema",
        )
    if data.batch_size == "auto":
        raise loaded.mistake(
            "data.batch_size", f"auto measures one device; give a number for {count} of them"
        )
    if data.batch_size % count:
        below = data.batch_size // count * count
        fitting = f"{below} or {below + count}" if below else str(count)
        raise loaded.mistake(
            "data.batch_size",
            f"is the batch of all devices together: {data.batch_size} examples do not divide among "
            f"{count} devices, {fitting} would",
        )
    environment = cluster or LightningEnvironment()
    if cluster is None:
        environment.set_world_size(count)
        environment.set_global_rank(environment.node_rank() * per_node + environment.local_rank())
    return Processes(count=count, per_node=per_node, rank=environment.global_rank(), environment=environment)


@contextmanager
def group_of(trainer: pl.Trainer) -> Iterator[None]:
    """Train in a group with the other processes; afterwards each works for itself again.

    What Lightning sets in the environment to start the others is for them only. Where this process fails,
    those that it started do not wait for it.
    """
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        yield
    except Exception:
        for process in getattr(trainer.strategy.launcher, "procs", None) or ():
            process.kill()
        raise
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _devices(trainer: TrainerSection) -> int:
    """Devices of each node."""
    if trainer.devices != "auto":
        return trainer.devices
    gpus = trainer.accelerator in ("auto", "gpu", "cuda")
    return max(1, torch.cuda.device_count()) if gpus else 1
