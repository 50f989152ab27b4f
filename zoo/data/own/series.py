"""`core/series_files`: a user's time series to classify. N steps, C channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.batch import pad
from zoo.data.formats import filled
from zoo.data.own.facts import record
from zoo.data.own.series_config import SeriesFilesConfig
from zoo.data.own.series_files import files_of, read_series, study
from zoo.data.scale import Standardise
from zoo.data.split import Splits, TensorSplit


class SeriesEncoder:
    """Series (N, C) in natural units -> inputs, each channel standardised on train."""

    def __init__(self, scale: Standardise, config: SeriesFilesConfig) -> None:
        self.scale = scale
        self.config = config

    def read(self, path: Path) -> list[Tensor]:
        """The series of a file of the same form; a CSV needs no column of classes."""
        return [self(filled(x)) for x, _ in read_series(path, self.config, labelled=False)]

    def __call__(self, raw: Any) -> Tensor:
        return self.scale(raw)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: that of the scale, by channel."""
        return self.scale.to_dict()


def load_series_files(config: SeriesFilesConfig) -> Splits:
    """Series, input float (N, C), one class each; each channel is standardised on the steps of train."""
    files = files_of(config)
    found = study(files, config)
    index = {name: i for i, name in enumerate(found.classes)}
    raw = [torch.from_numpy(x) for x in found.series]
    train = np.flatnonzero(found.parts == 0)
    encode = SeriesEncoder(Standardise.fit(torch.cat([raw[i] for i in train])), config)
    inputs = pad([encode(x) for x in raw], value=0)  # (series, N, C)
    lengths = torch.tensor([len(x) for x in raw])
    labels = torch.tensor([index[label] for label in found.labels])

    def split(part: int) -> TensorSplit:
        at = torch.from_numpy(found.parts == part)
        return TensorSplit(inputs[at], labels[at], lengths=lengths[at] if found.ragged else None)

    return Splits(train=split(0), val=split(1), test=split(2), encode=encode, source=record(files))
