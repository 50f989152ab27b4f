"""Ten shapes in one dimension: small and quick, yet models that see order win by far. Made from a seed.

After the description of MNIST-1D (Greydanus and Kobak 2024, arXiv:2011.14439). Deviations: the shapes and
the constants below are our own, so scores are of this dataset only; instead of padding, shifting and then
resampling a template, each sample looks up its place in the shape, which is the same.
"""

from __future__ import annotations

import numpy as np
import torch

from zoo.data.config import Mnist1dConfig
from zoo.data.scale import Standardise
from zoo.data.split import Splits, TensorSplit

#: Heights of the ten shapes at twelve points, like the outlines of the digits.
SHAPES = np.array(
    [
        [0.0, 3.0, 4.5, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 4.5, 3.0, 0.0],
        [0.0, 0.0, 0.0, 0.5, 2.0, 5.0, 5.0, 2.0, 0.5, 0.0, 0.0, 0.0],
        [2.0, 4.0, 5.0, 4.0, 2.5, 1.0, 0.0, -1.0, -1.5, -1.0, 0.5, 2.0],
        [0.0, 4.0, 5.0, 3.0, 1.0, 0.5, 0.5, 1.0, 3.0, 5.0, 4.0, 0.0],
        [5.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 5.0, 5.0, 0.0, 0.0, 0.0],
        [5.0, 5.0, 4.5, 1.0, -2.0, -3.0, -2.0, 1.0, 3.5, 4.0, 2.5, 0.0],
        [5.0, 3.5, 2.0, 0.5, -1.0, -1.5, -0.5, 2.0, 3.5, 3.5, 1.5, 0.0],
        [5.0, 5.0, 5.0, 5.0, 5.0, 3.5, 2.0, 0.5, -0.5, -1.5, -2.5, -3.5],
        [1.0, 4.0, 5.0, 3.0, 0.5, -1.0, -1.0, 0.5, 3.0, 5.0, 4.0, 1.0],
        [0.0, 2.0, 4.5, 5.0, 3.5, 1.5, 3.5, 5.0, 3.5, 1.0, -1.5, -4.0],
    ]
)
#: A shape of 12 points lies somewhere in a frame of so many.
SHORTEST_FRAME, LONGEST_FRAME = 48, 72
#: Deviations: of the scale around 1, of the slope over the frame, of the noise of single samples.
SCALE, SLOPE, JITTER = 0.4, 0.2, 0.02
#: Deviation (in samples) of the kernel that makes noise smooth.
SMOOTHNESS = 2.0


def load_mnist1d(config: Mnist1dConfig) -> Splits:
    """Series, input float (N, 1), class 0-9; one mean and deviation, those of train."""
    made = [
        shapes(
            count, length=config.length, noise=config.noise, rng=np.random.default_rng([config.seed, stream])
        )
        for stream, count in enumerate((config.examples, config.eval_examples, config.eval_examples))
    ]
    encode = Standardise.fit(torch.from_numpy(made[0][0]).flatten(0, 1))
    train, val, test = (TensorSplit(encode(x), torch.from_numpy(y)) for x, y in made)
    return Splits(train=train, val=val, test=test, encode=encode)


def shapes(
    count: int, *, length: int, noise: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`count` series (count, length, 1) and their classes, as many of each class as can be."""
    labels = rng.permutation(np.arange(count) % len(SHAPES))
    template = SHAPES / 5
    points = template.shape[1]
    frame = rng.integers(SHORTEST_FRAME, LONGEST_FRAME + 1, (count, 1))
    start = rng.integers(0, frame - points + 1)
    # Where in the shape each sample lies, from 0 to points - 1; elsewhere there is none.
    at = np.linspace(0, 1, length) * (frame - 1) - start  # (count, length)
    left = np.clip(np.floor(at), 0, points - 2).astype(int)
    rows = template[labels]
    low, high = (np.take_along_axis(rows, left + i, axis=1) for i in (0, 1))
    series = np.where((at >= 0) & (at <= points - 1), low + (high - low) * (at - left), 0.0)
    series *= 1 + SCALE * rng.standard_normal((count, 1))
    series += SLOPE * rng.standard_normal((count, 1)) * np.linspace(-1, 1, length)
    series += noise * _smooth_noise(count, length, rng)
    series += JITTER * rng.standard_normal((count, length))
    return series[:, :, None], labels


def _smooth_noise(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Noise (count, length) of deviation 1 whose neighbours are alike."""
    reach = int(4 * SMOOTHNESS)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SMOOTHNESS) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    white = rng.standard_normal((count, length + 2 * reach))
    windows = np.lib.stride_tricks.sliding_window_view(white, len(kernel), axis=1)  # (count, length, taps)
    return windows @ kernel
