"""Training with the model spread over the processes (FSDP2). B batch."""

from __future__ import annotations

from torch.distributed.fsdp import fully_shard

from zoo.training.blocks import repeated_blocks
from zoo.training.module import TrainingModule


class ShardedModule(TrainingModule):
    """Each process keeps its share of every weight, and gathers a layer while that computes.

    Zhao et al. 2023, arXiv:2304.11277; the form with a shard per parameter that torch calls FSDP2.
    """

    def configure_model(self) -> None:
        """Called by Lightning, once the processes know each other."""
        devices = self.device_mesh
        if devices is None:
            raise RuntimeError("a sharded module is configured by a strategy that has a mesh of devices")
        for block in repeated_blocks(self.model.get_submodule("backbone")):
            fully_shard(block, mesh=devices["data_parallel"])
        fully_shard(self.model, mesh=devices["data_parallel"])
