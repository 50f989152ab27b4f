"""Mixers that do not leave the house as they found it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.saboteurs.mixers import Mean


class Reseeds(Mean):
    """The same weights always, and from then on the same random numbers for everybody."""

    def __init__(self, config: Any, **shape: Any) -> None:
        torch.manual_seed(0)
        super().__init__(config, **shape)


class ReseedsInTraining(Mean):
    """The same noise at every step."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        if self.training:
            torch.manual_seed(0)
        return super().forward(x, mask=mask)


class SetsThreads(Mean):
    """Takes two threads, whatever the user said."""

    def __init__(self, config: Any, **shape: Any) -> None:
        super().__init__(config, **shape)
        torch.set_num_threads(2)


class Chatters(Mean):
    """Tells its shapes to the terminal."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        print("mixing", tuple(x.shape))
        return super().forward(x, mask=mask)
