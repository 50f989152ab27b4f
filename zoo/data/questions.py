"""Several questions per example: the digits, and the strength of alloys of which not all was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor

from zoo.data.bundled import read_arrays
from zoo.data.images import ByteImages, load_digits, load_fashion_mnist
from zoo.data.parts import by_group
from zoo.data.scale import Standardise
from zoo.data.split import Split, Splits, TensorSplit
from zoo.data.targets_config import DigitsMtlConfig, HeaStrengthConfig
from zoo.kinds import IGNORE

#: How many closed loops each digit has: the superclass of `digits_mtl`.
LOOPS = (1, 0, 0, 0, 1, 0, 1, 0, 2, 1)
#: The sort of each article of `fashion_mnist_mtl`: top, trousers, dress, shoe, bag.
SORTS = (0, 1, 0, 2, 0, 3, 0, 3, 4, 3)
#: Groups that `hea_strength` one-hot encodes, as `tools/make_bundled.py` numbers them.
PROCESSING, TESTS = 6, 3
#: Shares of the rows where its split is drawn anew.
VALIDATION, TEST = 0.1, 0.2


def load_digits_mtl(config: DigitsMtlConfig | None = None) -> Splits:
    """The images and splits of `digits`, each with three questions.

    digit: int64, 0-9; loops: int64, how many closed loops that digit has (0-2); slant: float (1,), how far
    the ink leans, standardised on train (`slant_of`). Of images of train without answers they are IGNORE and
    NaN.
    """
    config = config or DigitsMtlConfig()
    digits = load_digits()
    # Slant is a measure of the ink: it is taken from the pixels in [0, 1], not from standardised ones.
    encode = digits.encode
    if not isinstance(encode, Standardise):
        raise TypeError(f"digits are standardised, but encode is {type(encode).__name__}")
    parts = {name: getattr(digits, name) for name in digits.sizes}
    unknown = dict.fromkeys(parts, torch.zeros(0, dtype=torch.int64))
    unknown["train"] = _unlabelled(len(digits.train), config)
    slants = {
        name: slant_of(encode.inverse(part.inputs)).index_fill(0, unknown[name], torch.nan)
        for name, part in parts.items()
    }
    scale = Standardise.fit(slants["train"])
    loops = torch.tensor(LOOPS)
    splits = {
        name: TensorSplit(
            part.inputs,
            {
                "digit": part.targets.index_fill(0, unknown[name], IGNORE),
                "loops": loops[part.targets].index_fill(0, unknown[name], IGNORE),
                "slant": scale(slants[name]),
            },
        )
        for name, part in parts.items()
    }
    return Splits(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        encode=encode,
        decode=_decode_last(scale),
    )


def _unlabelled(count: int, config: DigitsMtlConfig) -> Tensor:
    """Which of `count` images have no answers; two at least have some, so that values have a deviation."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(config.seed))
    return order[max(2, round(config.labelled * count)) :]


def load_fashion_mnist_mtl(config: None = None) -> Splits:
    """The images and splits of `fashion_mnist`, each with three questions.

    article: int64, 0-9; sort: int64, 0-4, what sort of article that is; ink: float (1,), the mean of the
    pixels, standardised on train.
    """
    clothes = load_fashion_mnist()
    sorts = torch.tensor(SORTS)
    scale = Standardise.fit(_ink(cast(ByteImages, clothes.train)))

    def ask(split: Split) -> ByteImages:
        part = cast(ByteImages, split)
        articles = cast(Tensor, part.targets)
        targets = {"article": articles, "sort": sorts[articles], "ink": scale(_ink(part))}
        return ByteImages(part.pixels, targets, encode=part.encode)

    return Splits(
        train=ask(clothes.train),
        val=ask(clothes.val),
        test=ask(clothes.test),
        encode=clothes.encode,
        decode=_decode_last(scale),
        source=clothes.source,
    )


def _ink(images: ByteImages) -> Tensor:
    """The mean of the pixels in [0, 1]: float64 (B, 1)."""
    return images.pixels.sum((1, 2, 3), dtype=torch.float64)[:, None] / (255 * images.pixels[0].numel())


def _decode_last(scale: Standardise) -> Callable[[Tensor], Tensor]:
    """Outputs (B, K) whose last column is one value -> the same with that value in natural units."""
    return lambda outputs: torch.cat([outputs[:, :-1], scale.inverse(outputs[:, -1:])], dim=1)


def slant_of(pixels: Tensor) -> Tensor:
    """How many pixels the ink moves to the left per row down: (B, 1, H, W) in [0, 1] -> float64 (B, 1).

    The slope of the least-squares line x = a y + b through the ink, with the sign that makes an upright
    stroke that leans to the right positive.
    """
    ink = pixels[:, 0].double()
    ink = ink / ink.sum((1, 2), keepdim=True)
    y = torch.arange(ink.shape[1], dtype=torch.float64)[:, None].expand(ink.shape[1:])
    x = torch.arange(ink.shape[2], dtype=torch.float64)[None, :].expand(ink.shape[1:])
    dy = y - (ink * y).sum((1, 2), keepdim=True)
    dx = x - (ink * x).sum((1, 2), keepdim=True)
    return (-(ink * dx * dy).sum((1, 2)) / (ink * dy.square()).sum((1, 2)))[:, None]


def load_hea_strength(config: HeaStrengthConfig | None = None) -> Splits:
    """Alloys, input float (38,), target float (3,): yield strength, tensile strength, hardness; NaN: unknown.

    Features: fractions of 28 elements, the temperature of the test (25 degrees where it is not stated), one
    of 6 ways of processing, one of 3 kinds of test; each standardised on train, as is each target on what
    was measured there. `decode` gives MPa, MPa and HV.
    """
    arrays = read_arrays("hea_strength.npz")
    amounts = arrays["amounts"].astype(np.float64)  # (rows, 28)
    columns = [
        amounts / amounts.sum(axis=1, keepdims=True),
        arrays["celsius_tenths"][:, None] / 10,
        np.eye(PROCESSING)[arrays["processing"]],
        np.eye(TESTS)[arrays["test"]],
    ]
    raw = torch.from_numpy(np.concatenate(columns, axis=1))
    tenths = torch.from_numpy(arrays["tenths"]).double()  # (rows, 3), -1: not measured
    targets = torch.where(tenths >= 0, tenths / 10, torch.nan)
    part_of = parts_of_alloys(arrays, config or HeaStrengthConfig())
    parts = [torch.from_numpy(part_of == part) for part in range(3)]
    encode = Standardise.fit(raw[parts[0]])
    scale = Standardise.fit(targets[parts[0]])
    train, val, test = (TensorSplit(encode(raw[at]), scale(targets[at])) for at in parts)
    return Splits(train=train, val=val, test=test, encode=encode, decode=scale.inverse)


def parts_of_alloys(arrays: Mapping[str, np.ndarray], config: HeaStrengthConfig) -> np.ndarray:
    """The part of each row: 0 train, 1 validation, 2 test."""
    if config.split == "grouped" and config.seed is None:
        return arrays["split"]
    groups = arrays["paper"].tolist() if config.split == "grouped" else range(len(arrays["paper"]))
    return by_group(groups, val=VALIDATION, test=TEST, seed=config.seed or 0)
