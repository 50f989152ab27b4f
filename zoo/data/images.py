"""Bundled images: the handwritten digits of UCI, 8 x 8 pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.data.bundled import read_arrays
from zoo.data.scale import Standardise
from zoo.data.split import Splits, TensorSplit


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
