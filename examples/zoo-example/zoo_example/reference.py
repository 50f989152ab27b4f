"""The slow and obvious form that the fast one must equal."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_example.layers import ExampleMixer


def reference(mixer: ExampleMixer, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """x: (B, N, D), mask: bool (B, N), True = keep -> (B, N, D), one token after the other."""
    averages = _averages(mixer, x, mask)
    if not mixer.causal:
        later = _averages(mixer, x.flip(1), None if mask is None else mask.flip(1)).flip(1)
        averages = (averages + later) / 2
    return mixer.out(F.silu(mixer.gate(x)) * averages)


def _averages(mixer: ExampleMixer, x: Tensor, mask: Tensor | None) -> Tensor:
    decay = torch.sigmoid(mixer.decay_logit)
    average = torch.zeros_like(x[:, 0])
    averages = []
    for t in range(x.shape[1]):
        updated = decay * average + (1 - decay) * mixer.value(x[:, t])
        average = updated if mask is None else torch.where(mask[:, t, None], updated, average)
        averages.append(average)
    return torch.stack(averages, 1)
