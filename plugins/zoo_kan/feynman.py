"""The dataset `kan/feynman`: formulas of physics, to be found again from data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from zoo.data import Splits, Standardise, TensorSplit
from zoo_kan.config import EQUATIONS, FeynmanConfig

#: The formulas of `EQUATIONS`: columns of variables -> values.
FORMULAS: dict[str, Callable[..., np.ndarray]] = {
    "toy": lambda x, y: np.exp(np.sin(np.pi * x) + y**2),
    "I.6.20": lambda theta, sigma: np.exp(-(theta**2) / (2 * sigma**2)) / np.sqrt(2 * np.pi * sigma**2),
    "I.12.11": lambda a, theta: 1 + a * np.sin(theta),
    "I.16.6": lambda a, b: (a + b) / (1 + a * b),
    "I.26.2": lambda n, theta: np.arcsin(n * np.sin(theta)),
    "I.27.6": lambda a, b: 1 / (1 + a * b),
    "I.29.16": lambda a, one, two: np.sqrt(1 + a**2 - 2 * a * np.cos(one - two)),
    "I.40.1": lambda n0, a: n0 * np.exp(-a),
    "II.6.15a": lambda a, b, c: c * np.sqrt(a**2 + b**2) / (4 * np.pi),
    "II.38.14": lambda a: 1 / (2 * (1 + a)),
}


def load(config: FeynmanConfig) -> Splits:
    """Variables drawn uniformly from their ranges, input float (F,); target float (1,), the formula's value.

    Both are standardised on train; `decode` gives the value itself. Noise is added to the train split alone.
    """
    ranges = EQUATIONS[config.equation]
    low, high = np.array(ranges).T
    counts = (config.examples, config.eval_examples, config.eval_examples)
    rng = np.random.default_rng(config.seed)
    raw = [torch.from_numpy(rng.uniform(low, high, (count, len(ranges)))) for count in counts]
    values = [torch.from_numpy(FORMULAS[config.equation](*each.numpy().T))[:, None] for each in raw]
    encode, scale = Standardise.fit(raw[0]), Standardise.fit(values[0])
    targets = [scale(each) for each in values]
    if config.noise:
        targets[0] = (
            targets[0] + config.noise * torch.from_numpy(rng.standard_normal(targets[0].shape)).float()
        )
    train, val, test = (TensorSplit(encode(x), y) for x, y in zip(raw, targets, strict=True))
    return Splits(train=train, val=val, test=test, encode=encode, decode=scale.inverse)
