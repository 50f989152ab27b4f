"""`core/forecast_table`: a user's time series to forecast. N steps given, C channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.batch import Batch, Example
from zoo.data.forecast import SeriesWindows, fill_forward
from zoo.data.own.facts import existing, record
from zoo.data.own.forecast_config import ForecastTableConfig
from zoo.data.own.forecast_study import channels_of, study
from zoo.data.own.table_file import read_table
from zoo.data.scale import Standardise
from zoo.data.split import Splits
from zoo.errors import ZooError


class FirstChannels:
    """Windows of which only the first channels are asked."""

    def __init__(self, windows: SeriesWindows, asked: int) -> None:
        self.windows = windows
        self.asked = asked

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Example:
        return self._asked(self.windows[index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: input (B, N, C), target (B, horizon, asked)."""
        return self._asked(self.windows.__getitems__(indices))

    def _asked(self, example: Example) -> Example:
        return {**example, "target": example["target"][..., : self.asked]}


class SeriesReader:
    """A series (steps, C) in natural units -> the input of a window, its last N steps; or those of a file."""

    def __init__(self, scale: Standardise, channels: Sequence[str], config: ForecastTableConfig) -> None:
        self.scale = scale
        self.channels = channels
        self.config = config

    def read(self, path: Path) -> list[Tensor]:
        """The last `length` steps of a table; what comes next is to be forecast."""
        table = read_table(path, delimiter=self.config.delimiter, encoding=self.config.encoding)
        values = torch.from_numpy(channels_of(table, self.channels))
        if len(values) < self.config.length:
            raise ZooError(f"{path.name} has {len(values)} steps, but {self.config.length} must be given")
        return [self(values)]

    def __call__(self, raw: Any) -> Tensor:
        x = fill_forward(self.scale(raw))[-self.config.length :]
        return x - x[-1:] if self.config.relative else x

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the scale by channel; the last `length` steps, less the last where `relative`."""
        config = {"length": self.config.length, "relative": self.config.relative}
        return {"kind": "window", "channels": list(self.channels), **config, "scale": self.scale.to_dict()}


def load_forecast_table(config: ForecastTableConfig) -> Splits:
    """Windows, input float (N, C), target float (horizon, targets): the first channels, continued.

    Each channel is standardised on the steps of train; no window crosses from one part into another. With
    `relative`, `decode` gives changes from the last given step.
    """
    path = existing(config.path, folder=False)
    found = study(path, config)
    raw = torch.from_numpy(found.values)
    scale = Standardise.fit(raw[: found.counts[0]])
    asked = len(found.targets)
    mean, deviation = scale.mean[:asked].float(), scale.deviation[:asked].float()
    answers = Standardise(mean=torch.zeros_like(mean) if config.relative else mean, deviation=deviation)

    def split(part: Tensor, stride: int = 1) -> FirstChannels:
        length, horizon = config.length, config.horizon
        windows = SeriesWindows(part, length=length, horizon=horizon, stride=stride, relative=config.relative)
        return FirstChannels(windows, asked)

    train, val, test = torch.split(scale(raw), list(found.counts))
    return Splits(
        train=split(train, config.stride),
        val=split(val),
        test=split(test),
        encode=SeriesReader(scale, found.channels, config),
        decode=answers.inverse,
        source=record([path]),
    )
