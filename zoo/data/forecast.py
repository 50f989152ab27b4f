"""Forecasting: windows of one long series, cut so that no part sees another. N steps given, C channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.data.batch import Batch, Example
from zoo.data.bundled import read_arrays
from zoo.data.scale import Standardise
from zoo.data.split import Splits
from zoo.data.targets_config import ApplianceEnergySmallConfig, WindowsConfig
from zoo.errors import ZooError

#: The shares of train and validation in time; the rest is test.
TRAIN, VALIDATION = 0.7, 0.1


class SeriesWindows:
    """Windows of a series (steps, C): input (N, C), and as target (horizon, C) the steps that follow it.

    Args:
        values: one part of a series; every window lies within it, its target too. What is NaN is given as
            the last value before it (0 where there is none) and is not asked.
        length: N.
        stride: steps from the start of one window to the start of the next.
        relative: subtract the last given step from all of the window.

    Raises:
        ZooError: the part is too short for one window.
    """

    def __init__(
        self, values: Tensor, *, length: int, horizon: int, stride: int = 1, relative: bool = False
    ) -> None:
        last = len(values) - length - horizon
        if last < 0:
            raise ZooError(
                f"a window of {length} steps and {horizon} to forecast needs {length + horizon}, "
                f"but a part of the series has {len(values)}; lower `length` or `horizon`"
            )
        self.values = values
        self.given = fill_forward(values)
        self.length = length
        self.relative = relative
        self.starts = torch.arange(0, last + 1, stride)
        self._offsets = torch.arange(length + horizon)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: input (B, N, C), target (B, horizon, C)."""
        at = self.starts[torch.as_tensor(indices)][:, None] + self._offsets  # (B, N + horizon)
        given, asked = self.given[at[:, : self.length]], self.values[at[:, self.length :]]
        if self.relative:
            last = given[:, -1:]
            given, asked = given - last, asked - last
        return {"input": given, "target": asked}


def fill_forward(values: Tensor) -> Tensor:
    """Each NaN of a series (steps, C) as the last number before it in its channel, 0 where there is none."""
    if not values.isnan().any():
        return values
    steps = torch.arange(len(values))[:, None]
    known = torch.where(values.isnan(), -1, steps).cummax(dim=0).values  # the last known step, (steps, C)
    return values.gather(0, known.clamp_min(0)).masked_fill(known < 0, 0.0)


def split_by_time(raw: Tensor, config: WindowsConfig) -> Splits:
    """The first 70 % of a series (steps, C) train, the next 10 % validate, the rest tests.

    Each channel is standardised on the steps of train. No window crosses from one part into another, so
    that no step that is asked for in one part is seen in another. With `relative`, `decode` gives changes
    from the last given step.
    """
    first, second = round(TRAIN * len(raw)), round((TRAIN + VALIDATION) * len(raw))
    scale = Standardise.fit(raw[:first].double())
    train, val, test = torch.tensor_split(scale(raw), (first, second))

    def windows(part: Tensor, stride: int = 1) -> SeriesWindows:
        return SeriesWindows(
            part, length=config.length, horizon=config.horizon, stride=stride, relative=config.relative
        )

    encode = WindowScale(scale, relative=config.relative)
    return Splits(
        train=windows(train, config.stride),
        val=windows(val),
        test=windows(test),
        encode=encode,
        decode=encode.decode,
    )


class WindowScale:
    """Windows standardised by channel; with `relative` they are changes from their last given step."""

    def __init__(self, scale: Standardise, *, relative: bool) -> None:
        self.scale = scale
        self.relative = relative

    def __call__(self, series: Any) -> Tensor:
        """A series (N, C) in natural units -> the input of a window."""
        x = fill_forward(self.scale(series))
        return x - x[-1:] if self.relative else x

    def decode(self, forecast: Tensor) -> Tensor:
        """(..., C) on the scale of train -> natural units."""
        natural = self.scale.inverse(forecast)
        return natural - self.scale.mean.float() if self.relative else natural

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the scale by channel, and whether a window counts from its last step."""
        return {"kind": "window", "relative": self.relative, "scale": self.scale.to_dict()}


def load_appliance_energy_small(config: ApplianceEnergySmallConfig) -> Splits:
    """3289 hours of a house, float (N, 8): use of power, temperatures, humidities, wind; what comes next?"""
    hundredths = torch.from_numpy(read_arrays("appliance_energy_small.npz")["hundredths"])
    return split_by_time(hundredths.double() / 100, config)
