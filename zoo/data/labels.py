"""Sequence labelling with a known optimum: hidden states seen through noise. N symbols, K states."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from zoo.data.recall import Symbols
from zoo.data.split import Splits, TensorSplit
from zoo.data.targets_config import NoisyStatesConfig


def load_noisy_states(config: NoisyStatesConfig) -> Splits:
    """Symbols int64 (N,) in [0, K); the label of each is the state behind it, int64 (N,).

    The states are a Markov chain: with the chance `stay` the next one is the same, else any other, evenly.
    A symbol is its state, or with the chance `noise` any symbol, evenly.
    """

    def split(stream: int, count: int) -> TensorSplit:
        symbols, states = draw(config, count, np.random.default_rng([config.seed, stream]))
        return TensorSplit(torch.from_numpy(symbols), torch.from_numpy(states))

    def best() -> dict[str, float]:
        """Of a model that sees both directions."""
        likeliest = posterior(config, test.inputs.numpy()).argmax(-1)
        return {"accuracy": float((likeliest == cast(Tensor, test.targets).numpy()).mean())}

    test = split(2, config.eval_examples)
    return Splits(
        train=split(0, config.examples),
        val=split(1, config.eval_examples),
        test=test,
        encode=Symbols(config.states),
        best=best,
    )


def draw(config: NoisyStatesConfig, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` sequences: symbols and states, int64 (count, N)."""
    shape = (count, config.length)
    moves = np.where(rng.random(shape) < config.stay, 0, rng.integers(1, config.states, shape))
    moves[:, 0] = rng.integers(0, config.states, count)
    states = moves.cumsum(axis=1) % config.states
    symbols = np.where(rng.random(shape) < config.noise, rng.integers(0, config.states, shape), states)
    return symbols, states


def posterior(config: NoisyStatesConfig, symbols: np.ndarray, *, causal: bool = False) -> np.ndarray:
    """The exact chance of each state given the symbols: int (B, N) -> float64 (B, N, K).

    No model can do better than answer with the likeliest state. By the forward-backward algorithm; with
    `causal` forward only: what can be known from symbols up to that one.
    """
    states = config.states
    moving = (1 - config.stay) / (states - 1)
    transition = np.full((states, states), moving) + (config.stay - moving) * np.eye(states)
    emission = np.full((states, states), config.noise / states) + (1 - config.noise) * np.eye(states)
    seen = emission[:, symbols].transpose(1, 2, 0)  # (B, N, K)
    forward, backward = np.empty_like(seen), np.ones_like(seen)
    before = np.full((len(symbols), states), 1 / states)
    for step in range(symbols.shape[1]):
        now = before * seen[:, step]
        forward[:, step] = now / now.sum(axis=1, keepdims=True)
        before = forward[:, step] @ transition
    if causal:
        return forward
    for step in range(symbols.shape[1] - 2, -1, -1):
        now = (backward[:, step + 1] * seen[:, step + 1]) @ transition.T
        backward[:, step] = now / now.sum(axis=1, keepdims=True)
    both = forward * backward
    return both / both.sum(axis=2, keepdims=True)
