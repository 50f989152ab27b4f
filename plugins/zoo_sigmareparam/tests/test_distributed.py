"""Two processes: replicas stay equal, and sharded weights are refused."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from zoo_sigmareparam import apply_sigma_reparam
from zoo_sigmareparam.parametrization import converted


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3))
        model = copy.deepcopy(plain)
        apply_sigma_reparam(model)
        replica = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(replica.parameters(), lr=0.1)
        x = torch.randn(2, 8, 4)  # another half for each rank
        for _ in range(4):
            loss = replica(x[rank]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        each = next(converted(model))
        torch.save((each.by.u, each.by.gamma.detach(), each.original.detach()), f"{folder}/{rank}.pt")
        _check_that_shards_are_refused(plain)
        for use_orig_params in (False, True):
            _check_the_older_fsdp(plain, x, rank, use_orig_params=use_orig_params)
    finally:
        dist.destroy_process_group()


def _check_that_shards_are_refused(plain: nn.Module) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    before, after = copy.deepcopy(plain), copy.deepcopy(plain)
    fully_shard(before, mesh=mesh)
    with pytest.raises(ValueError, match=r"weights are sharded.*use DistributedDataParallel"):
        apply_sigma_reparam(before)
    apply_sigma_reparam(after)
    for layer in (after[0], after[2], after):  # type: ignore[index]
        fully_shard(layer, mesh=mesh)
    with pytest.raises(RuntimeError, match=r"this one is sharded.*Use DistributedDataParallel"):
        after(torch.randn(2, 4))


def _check_the_older_fsdp(plain: nn.Module, x: torch.Tensor, rank: int, *, use_orig_params: bool) -> None:
    """One unit gathers all weights before the model's own forward, and is right; units inside are refused."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    def sharded(module: nn.Module) -> nn.Module:
        return FullyShardedDataParallel(
            module, use_orig_params=use_orig_params, device_id=torch.device("cpu")
        )

    with pytest.raises(ValueError, match=r"weights are sharded.*use DistributedDataParallel"):
        apply_sigma_reparam(sharded(copy.deepcopy(plain)))
    whole, inner = copy.deepcopy(plain), copy.deepcopy(plain)
    apply_sigma_reparam(whole)
    apply_sigma_reparam(inner)
    unit = sharded(copy.deepcopy(whole))
    for model, batch in ((whole, x.flatten(0, 1)), (unit, x[rank])):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(unit(x[rank]), whole(x[rank]), rtol=1e-4, atol=1e-5)
    inner[0] = sharded(inner[0])  # type: ignore[index, operator]
    with pytest.raises(RuntimeError, match=r"this one is sharded.*Use DistributedDataParallel"):
        sharded(inner)(x[rank])


def test_two_ranks_keep_equal_vectors_and_refuse_shards(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in (0, 1)
    ]
    said = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


if __name__ == "__main__":
    work(int(sys.argv[2]), sys.argv[1])
