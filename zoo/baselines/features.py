"""One protocol for every dataset: examples as rows of numbers, for models that know no structure.

| inputs   | asked for a whole example                             | asked for each token, or pixel    |
|----------|-------------------------------------------------------|-----------------------------------|
| image    | its pixels                                            | the pixels nearby                 |
| vector   | as it stands                                          |                                   |
| series   | all steps side by side; ragged: mean, deviation,      | the steps nearby                  |
|          | minimum and maximum of each channel                   |                                   |
| ids      | the share of each symbol                              | the symbols nearby, one-hot       |
| events   | of the log gaps as of a ragged series; the share of   |                                   |
|          | each mark                                             |                                   |

B examples, N tokens, C channels, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.batch import Batch, mask_of
from zoo.kinds import IGNORE, DataKind, Events, Ids, Image, Labels, Maps, Series, TargetKind
from zoo.tasks.base import batches

#: How far the features of a token, or of a pixel, reach to either side.
NEARBY = 3
#: Images whose pixels become rows at a time, to bound memory.
IMAGES = 32


def rows_of(split: Any, inputs: DataKind, targets: TargetKind, *, most: int) -> tuple[np.ndarray, Any]:
    """Features float (rows, F) and the targets of these rows, of at most `most` rows evenly spread.

    A row is an example; for labels it is a token that is asked for, for maps a pixel.
    """
    if isinstance(targets, Maps):
        return _pixels_of(split, inputs, targets, most=most)
    tokens = inputs.length if isinstance(targets, Labels) and isinstance(inputs, (Ids, Series, Events)) else 1
    features, answers = [], []
    for batch in batches(_spread(split, max(1, most // tokens))):
        if isinstance(targets, Labels):
            asked = batch["target"] != IGNORE
            features.append(nearby(batch, inputs)[asked])
            answers.append(batch["target"][asked])
        else:
            features.append(whole(batch, inputs))
            answers.append(batch["target"])
    return torch.cat(features).numpy(), _join(answers)


def _pixels_of(split: Any, inputs: DataKind, targets: Maps, *, most: int) -> tuple[np.ndarray, Any]:
    step = max(1, len(split) * targets.height * targets.width // most)
    step += step > 1 and targets.width % step == 0  # else the same columns of every row
    features: list[Tensor] = []
    answers: list[Any] = []
    for batch in batches(_spread(split, most), IMAGES):
        features.append(nearby(batch, inputs).flatten(0, 1)[::step])
        asked = {}
        for name, target in batch["target"].items():
            values = target if target.dim() == 3 else target.movedim(1, -1)  # (B, H, W) or (B, H, W, C)
            asked[name] = values.flatten(0, 2)[::step]
        answers.append(asked)
    return torch.cat(features).numpy(), _join(answers)


def count_features(split: Any, inputs: DataKind, targets: TargetKind) -> int:
    """F: how many features a row has."""
    batch = next(batches(_spread(split, 1)))
    return int((nearby if isinstance(targets, (Labels, Maps)) else whole)(batch, inputs).shape[-1])


def whole(batch: Batch, inputs: DataKind) -> Tensor:
    """One row per example: (B, F)."""
    x: Tensor = batch["input"]
    mask = mask_of(batch)
    keep = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask  # (B, N), where there is an N
    if isinstance(inputs, Ids):
        return _shares(x, keep, inputs.vocab)
    if isinstance(inputs, Events):
        log_gap = (x[..., 1:2] / inputs.scale).clamp_min(1e-6).log()
        return torch.cat([_spread_of(log_gap, keep), _shares(x[..., 2].long(), keep, inputs.marks)], dim=1)
    if isinstance(inputs, Series) and inputs.ragged:
        return _spread_of(x, keep)
    return x.flatten(1)


def _shares(symbols: Tensor, keep: Tensor, count: int) -> Tensor:
    """How often each symbol occurs: int (B, N) -> (B, count)."""
    counts = F.one_hot(symbols, count).float()  # (B, N, count)
    return (counts * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)


def _spread_of(x: Tensor, keep: Tensor) -> Tensor:
    """Mean, deviation, minimum and maximum of each channel: (B, N, C) -> (B, 4 C)."""
    kept = x.masked_fill(~keep[..., None], torch.nan)  # (B, N, C)
    mean = kept.nanmean(1)
    deviation = (kept - mean[:, None]).square().nanmean(1).sqrt()
    low = x.masked_fill(~keep[..., None], torch.inf).amin(1)
    high = x.masked_fill(~keep[..., None], -torch.inf).amax(1)
    return torch.cat([mean, deviation, low, high], dim=1)


def nearby(batch: Batch, inputs: DataKind) -> Tensor:
    """One row per token, or pixel, with its neighbours on all sides: (B, N, F); zeros beyond the ends."""
    x: Tensor = batch["input"]
    if isinstance(inputs, Image):
        return F.unfold(x, 2 * NEARBY + 1, padding=NEARBY).transpose(1, 2)
    tokens = F.one_hot(x, inputs.vocab).float() if isinstance(inputs, Ids) else x  # (B, N, C)
    mask = mask_of(batch)
    if mask is not None:
        tokens = tokens * mask[..., None]
    padded = F.pad(tokens, (0, 0, NEARBY, NEARBY))
    return padded.unfold(1, 2 * NEARBY + 1, 1).flatten(2)


class Spread:
    """At most `most` examples of a split, evenly spread over it."""

    def __init__(self, split: Any, most: int) -> None:
        self.split = split
        size = min(len(split), most)
        self.at = [i * len(split) // size for i in range(size)]

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: int) -> Batch:
        return self.split[self.at[index]]


def _spread(split: Any, most: int) -> Any:
    return split if len(split) <= most else Spread(split, most)


def _join(answers: list[Any]) -> Any:
    if isinstance(answers[0], dict):
        return {name: _join([answer[name] for answer in answers]) for name in answers[0]}
    return torch.cat(answers)
