"""Bundled series: Japanese Vowels, nine speakers saying /ae/."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.data.batch import pad
from zoo.data.bundled import read_arrays
from zoo.data.scale import Standardise
from zoo.data.split import Splits, TensorSplit


def load_japanese_vowels(config: None = None) -> Splits:
    """640 utterances, input float (7..29, 12): 12 cepstrum coefficients per frame; class: the speaker.

    The official test split; each coefficient is standardised on the frames of train.
    """
    arrays = read_arrays("japanese_vowels.npz")
    frames = torch.from_numpy(arrays["millionths"]).double() / 1e6  # (frames of all utterances, 12)
    lengths = torch.from_numpy(arrays["length"]).long()
    label = torch.from_numpy(arrays["label"]).long()
    part_of = torch.from_numpy(arrays["split"])
    raw = torch.split(frames, lengths.tolist())
    encode = Standardise.fit(torch.cat([x for x, part in zip(raw, part_of, strict=True) if part == 0]))
    inputs = pad([encode(x) for x in raw], value=0)  # (640, 29, 12)

    def split(part: int) -> TensorSplit:
        chosen: Tensor = part_of == part
        return TensorSplit(inputs[chosen], label[chosen], lengths=lengths[chosen])

    return Splits(train=split(0), val=split(1), test=split(2), encode=encode)
