"""Images: the bundled digits of UCI (8 x 8 pixels), and the fetched MNIST and Fashion-MNIST (28 x 28)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.batch import Batch, Example
from zoo.data.bundled import read_arrays
from zoo.data.fetch import fetch
from zoo.data.formats import read_idx
from zoo.data.origins import FASHION_MNIST, MNIST
from zoo.data.parts import hold_out
from zoo.data.scale import Standardise
from zoo.data.split import Splits, TensorSplit
from zoo.errors import ZooError
from zoo.sources import Files

#: The share of the official train split that becomes validation, by class: 5000 of 60000.
VALIDATION = 1 / 12

#: Of digits_pixels: the symbol before the first pixel; those below it are grey levels.
DIGITS_START = 17


class ByteImages:
    """Images kept as bytes, a quarter of the memory of floats, and encoded batch by batch.

    Args:
        pixels: uint8 (B, C, H, W).
        targets: (B,), or a dict of (B, ...) by question.
        encode: float pixels in [0, 1] -> inputs of the model.
    """

    def __init__(self, pixels: Tensor, targets: Tensor | dict[str, Tensor], *, encode: Standardise) -> None:
        self.pixels = pixels
        self.targets = targets
        self.encode = encode

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Example:
        return {"input": self.encode(self.pixels[index].float() / 255), "target": self._asked(index)}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: float (B, C, H, W), and its targets."""
        at = torch.as_tensor(indices)
        return {"input": self.encode(self.pixels[at].float() / 255), "target": self._asked(at)}

    def _asked(self, at: int | Tensor) -> Tensor | dict[str, Tensor]:
        if isinstance(self.targets, dict):
            return {name: target[at] for name, target in self.targets.items()}
        return self.targets[at]


def load_digits(config: None = None) -> Splits:
    """1797 digits, input float (1, 8, 8), class 0-9; one mean and deviation for all pixels of train."""
    arrays = read_arrays("digits.npz")
    raw = torch.from_numpy(arrays["pixels"]).float()[:, None] / 16  # 0..16 is the range in the source
    label = torch.from_numpy(arrays["label"]).long()
    parts = [torch.from_numpy(arrays["split"]) == part for part in range(3)]
    train = raw[parts[0]]
    encode = Standardise(mean=train.mean(), deviation=train.std(correction=0))

    def split(part: Tensor) -> TensorSplit:
        return TensorSplit(encode(raw[part]), label[part])

    return Splits(train=split(parts[0]), val=split(parts[1]), test=split(parts[2]), encode=encode)


def load_digits_pixels(config: None = None) -> Splits:
    """The digits as sequences, row by row: input int64 (64,), a start symbol and all pixels but the last;
    target int64 (64,), the pixels, 0 to 16.
    """
    arrays = read_arrays("digits.npz")
    pixels = torch.from_numpy(arrays["pixels"]).long().flatten(1)  # (B, 64)
    part = torch.from_numpy(arrays["split"])

    def split(number: int) -> TensorSplit:
        rows = pixels[part == number]
        return TensorSplit(shifted(rows), rows)

    return Splits(train=split(0), val=split(1), test=split(2), encode=shifted)


def shifted(pixels: Any) -> Tensor:
    """What a model of pixels sees before each of them: (..., N) -> int64 (..., N), the start symbol first.

    Raises:
        ZooError: a pixel lies outside 0..16.
    """
    pixels = torch.as_tensor(pixels)
    outside = pixels[(pixels < 0) | (pixels >= DIGITS_START)]
    if len(outside):
        raise ZooError(f"pixels must lie within 0..{DIGITS_START - 1}, got {outside[0].item()}")
    return F.pad(pixels.long()[..., :-1], (1, 0), value=DIGITS_START)


def load_fashion_mnist(config: None = None) -> Splits:
    """70000 articles of clothing, input float (1, 28, 28), one of ten classes; the official test split."""
    return _load_idx(FASHION_MNIST)


def load_mnist(config: None = None) -> Splits:
    """70000 handwritten digits, input float (1, 28, 28), class 0-9; the official test split."""
    return _load_idx(MNIST)


def _load_idx(files: Files) -> Splits:
    """One mean and deviation for all pixels of train; validation is cut from train by a fixed seed."""
    fetched = fetch(files)
    pixels, labels = (
        {part: torch.tensor(read_idx(fetched[f"{part}-{what}-ubyte"])) for part in ("train", "t10k")}
        for what in ("images-idx3", "labels-idx1")
    )
    held = torch.from_numpy(hold_out(labels["train"].numpy(), fraction=VALIDATION, seed=0))
    train = pixels["train"][~held]
    counts = train.flatten().bincount(minlength=256).double()  # exact, and without a copy as floats
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * values).sum() / counts.sum()
    deviation = (counts * (values - mean) ** 2).sum().div(counts.sum()).sqrt()
    encode = Standardise(mean=mean.float(), deviation=deviation.float())

    def split(images: Tensor, classes: Tensor) -> ByteImages:
        return ByteImages(images[:, None], classes.long(), encode=encode)

    return Splits(
        train=split(train, labels["train"][~held]),
        val=split(pixels["train"][held], labels["train"][held]),
        test=split(pixels["t10k"], labels["t10k"]),
        encode=encode,
        source=fetched.record,
    )
