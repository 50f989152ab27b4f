"""Images that another library gives, one by one, as Pillow pictures with a class. C channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pictures
from torch import Tensor

from zoo.data.batch import Example
from zoo.data.own.facts import mistake
from zoo.data.own.images import PictureEncoder, augmented, measured_scale, to_tensor
from zoo.data.own.images_config import Augment, PictureConfig
from zoo.data.own.pictures import is_grey, pixels_of
from zoo.data.scale import Standardise
from zoo.data.split import Splits
from zoo.errors import ZooError

#: Pictures whose sizes and colours stand for all.
LOOKED_AT = 32

#: Number of an example -> its picture and its class.
Give = Callable[[int], tuple[Any, Any]]


class GivenPictures:
    """Some of the pictures that a library gives, as examples.

    Args:
        give: the library; it is handed to worker processes as it is.
        at: the numbers of the examples.
    """

    def __init__(self, give: Give, at: np.ndarray, *, encode: PictureEncoder, augment: Augment) -> None:
        self.give = give
        self.at = at
        self.encode = encode
        self.augment = augment

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: int) -> Example:
        picture, label = self.give(int(self.at[index]))
        x = augmented(self._pixels(picture, index), self.augment)
        return {"input": self.encode(x.float() / 255), "target": torch.tensor(int(label))}

    def pixels(self, index: int) -> Tensor:
        """uint8 (C, H, W)."""
        return self._pixels(self.give(int(self.at[index]))[0], index)

    def _pixels(self, picture: Any, index: int) -> Tensor:
        form = self.encode
        what = f"image {self.at[index]}"
        return to_tensor(pixels_of(picture, channels=form.channels, size=form.size, fit=form.fit, what=what))


def shape_of(give: Give, count: int, config: PictureConfig, *, name: str) -> tuple[int, int, int]:
    """Height, width, channels: as given, else as those of the first pictures.

    Raises:
        ConfigError: they differ in size, and `size` is not given.
        ZooError: they are no pictures.
    """
    pictures = [give(i)[0] for i in range(min(count, LOOKED_AT))]
    for picture in pictures:
        if not isinstance(picture, Pictures.Image):
            raise ZooError(f"{name} gives {type(picture).__name__} objects, expected Pillow images")
    channels = config.channels or (1 if all(map(is_grey, pictures)) else 3)
    if config.wanted is not None:
        return (*config.wanted, channels)
    if len({picture.size for picture in pictures}) > 1:
        seen = " and ".join(f"{h} x {w}" for w, h in sorted({picture.size for picture in pictures})[:2])
        raise mistake("size", f"must be given, since the images of {name} differ: {seen} (height x width)")
    width, height = pictures[0].size
    return height, width, channels


def splits_of(
    gives: Sequence[tuple[Give, np.ndarray]],
    facts: dict[str, Any],
    config: PictureConfig,
    *,
    stamps: Sequence[Path],
    source: dict[str, Any],
) -> Splits:
    """Train, validation and test, each a library and the numbers of its examples."""
    fit = config.fit if config.wanted is not None else None
    scale = Standardise(mean=torch.zeros(1), deviation=torch.ones(1))
    size = (facts["height"], facts["width"])
    encode = PictureEncoder(channels=facts["channels"], size=size, fit=fit, scale=scale)
    train, val, test = (
        GivenPictures(give, at, encode=encode, augment=config.augment if part == 0 else "none")
        for part, (give, at) in enumerate(gives)
    )
    encode.scale = measured_scale(train, config, stamps)
    return Splits(train=train, val=val, test=test, encode=encode, source=source)
