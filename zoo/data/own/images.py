"""`core/image_folder`: images read from disk when they are asked for. C channels, H height, W width."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.batch import Example
from zoo.data.own.facts import cached_facts, existing, record
from zoo.data.own.images_config import Augment, Fit, ImageFolderConfig, PictureConfig
from zoo.data.own.images_study import SUFFIXES, blamed_on_folder, list_images, parts_of, without
from zoo.data.own.pictures import UnreadableImage, read_picture
from zoo.data.scale import Standardise
from zoo.data.split import Splits

#: Images of train that mean and deviation are measured on.
MEASURED = 512


class PictureEncoder:
    """A picture file -> float (C, H, W): fitted to the size, standardised on train."""

    def __init__(self, *, channels: int, size: tuple[int, int], fit: Fit | None, scale: Standardise) -> None:
        self.channels = channels
        self.size = size
        self.fit = fit
        self.scale = scale

    def pixels(self, path: Path) -> Tensor:
        """uint8 (C, H, W)."""
        return to_tensor(read_picture(path, channels=self.channels, size=self.size, fit=self.fit))

    def read(self, path: Path) -> list[Tensor]:
        """One picture; of a folder, each, in the order of their names."""
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise UnreadableImage(f"{path}: there is no image in this folder")
        # A single new picture may have any size: it is fitted as one would have been in training.
        fit = self.fit or "crop"
        return [
            self(to_tensor(read_picture(file, channels=self.channels, size=self.size, fit=fit)).float() / 255)
            for file in files
        ]

    def __call__(self, raw: Any) -> Tensor:
        """Float (C, H, W) in [0, 1] -> the input of a model."""
        return self.scale(raw)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: size (height, width) and fit of a picture, then its scale, for pixels in [0, 1]."""
        return {"kind": "picture", "size": list(self.size), "fit": self.fit, "scale": self.scale.to_dict()}


class ImageFiles:
    """Images on disk, each read anew when it is asked for, in whatever process that is.

    Args:
        root: the folder that `names` count from.
        names: paths; kept as one array of bytes, so that a million of them take little, and workers share it.
        labels: int64 (images,).
        augment: what is changed at random; torch's random numbers decide.
    """

    def __init__(
        self, root: Path, names: Sequence[str], labels: Tensor, *, encode: PictureEncoder, augment: Augment
    ) -> None:
        self.root = root
        self.names = np.array([os.fsencode(name) for name in names])
        self.labels = labels
        self.encode = encode
        self.augment = augment

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        x = augmented(self.pixels(index), self.augment)
        return {"input": self.encode(x.float() / 255), "target": self.labels[index]}

    def pixels(self, index: int) -> Tensor:
        """uint8 (C, H, W), as they are in the file."""
        with blamed_on_folder():
            return self.encode.pixels(self.root / os.fsdecode(self.names[index]))


def load_image_folder(config: ImageFolderConfig) -> Splits:
    """Images, input float (C, H, W), one class each; nothing but their names is kept in memory.

    Each channel is standardised by mean and deviation over 512 images of train.
    """
    root, facts = existing(config.path, folder=True), config.facts()
    listing = without(list_images(root), facts["broken"])
    parts = parts_of(listing, config, root)
    index = {name: i for i, name in enumerate(facts["classes"])}
    labels = torch.tensor([index[label] for label in listing.labels])
    size = (facts["height"], facts["width"])
    fit = config.fit if config.wanted is not None else None
    unscaled = Standardise(mean=torch.zeros(1), deviation=torch.ones(1))
    encode = PictureEncoder(channels=facts["channels"], size=size, fit=fit, scale=unscaled)

    def split(part: int) -> ImageFiles:
        at = np.flatnonzero(parts == part)
        names = [name for name, own in zip(listing.files, parts, strict=True) if own == part]
        augment: Augment = config.augment if part == 0 else "none"
        return ImageFiles(root, names, labels[torch.from_numpy(at)], encode=encode, augment=augment)

    train, val, test = (split(part) for part in range(3))
    folders = [Path(folder) for folder in listing.folders]
    encode.scale = measured_scale(train, config, folders)
    source = record([root / file for file in listing.files], root=root)
    return Splits(train=train, val=val, test=test, encode=encode, source=source)


def measured_scale(train: Any, config: PictureConfig, folders: Sequence[Path]) -> Standardise:
    """Mean and deviation of each channel over images spread over train; kept in the cache.

    Args:
        train: has `pixels(index) -> uint8 (C, H, W)`.
    """

    def compute() -> tuple[dict[str, Any], Sequence[Path]]:
        chosen = (
            [i * len(train) // MEASURED for i in range(MEASURED)]
            if len(train) > MEASURED
            else range(len(train))
        )
        total = squares = torch.zeros(())
        count = 0
        for i in chosen:
            x = train.pixels(i).double() / 255
            total, squares = total + x.sum((1, 2)), squares + x.square().sum((1, 2))
            count += x[0].numel()
        mean = total / count
        return {"mean": mean.tolist(), "variance": (squares / count - mean**2).clamp_min(0).tolist()}, folders

    identity = {**asdict(config), "folders": [str(folder) for folder in folders[:1]]}
    found = cached_facts("image-scale", identity, compute)
    mean, variance = torch.tensor(found["mean"]), torch.tensor(found["variance"])
    return Standardise(mean=mean[:, None, None], deviation=variance.sqrt()[:, None, None])


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W) or (H, W, C) -> (C, H, W)."""
    x = torch.from_numpy(pixels.copy())
    return x[None] if x.ndim == 2 else x.permute(2, 0, 1).contiguous()


def augmented(x: Tensor, how: Augment) -> Tensor:
    """An image (C, H, W) mirrored, or shifted by up to an eighth (its edges mirrored), at random."""
    if how in ("flip", "crop_and_flip") and torch.rand(()) < 0.5:
        x = x.flip(-1)
    if how in ("crop", "crop_and_flip"):
        height, width = x.shape[1:]
        dy, dx = height // 8, width // 8
        padded = F.pad(x.float(), (dx, dx, dy, dy), mode="reflect").to(x.dtype)
        top, left = int(torch.randint(2 * dy + 1, ())), int(torch.randint(2 * dx + 1, ()))
        x = padded[:, top : top + height, left : left + width]
    return x
