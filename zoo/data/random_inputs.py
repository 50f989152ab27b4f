"""Random inputs of any data kind, for what needs some input and not real data. B batch, N tokens or steps."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.kinds import DataKind, Episodes, Events, Ids, Image, Series


def sample_of(
    inputs: DataKind, batch: int, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A batch of a data kind; n is the number of symbols or steps, where it has any."""
    if isinstance(inputs, Ids):
        return torch.randint(inputs.vocab, (batch, n), generator=generator(seed))
    if isinstance(inputs, Events):
        gaps = inputs.scale * normal((batch, n), seed=seed, dtype=torch.float64).exp()
        marks = torch.randint(inputs.marks, (batch, n), generator=generator(seed))
        return torch.stack([gaps.cumsum(1), gaps, marks], dim=-1).to(dtype)
    if isinstance(inputs, Episodes):
        values = normal((batch, n, inputs.columns), seed=seed, dtype=torch.float64)
        values[..., 0] = torch.arange(n) % 3
        values[..., 1] = torch.arange(n) // 3 % inputs.horizon
        return values.to(dtype)
    shape: tuple[int, ...]
    if isinstance(inputs, Series):
        shape = (batch, n, inputs.channels)
    elif isinstance(inputs, Image):
        shape = (batch, inputs.channels, inputs.height, inputs.width)
    else:
        shape = (batch, inputs.features)
    return normal(shape, seed=seed, dtype=dtype)


def normal(shape: tuple[int, ...], *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers; the same ones in every dtype."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
