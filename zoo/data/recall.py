"""Synthetic recall tasks: what was seen long ago is asked for later. Made from a seed, at any length.

In all three the answer to position t is the symbol that follows at t + 1, and IGNORE elsewhere: only a
causal model has to remember. (Where training asks for a passkey again, the answer does not follow.) Symbols
to recall are drawn evenly and independently, so that neither a position nor the other answers give one away.
B sequences, N symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from zoo.data.config import AssociativeRecallConfig, CopyConfig, PasskeyConfig, RecallConfig
from zoo.data.split import Splits, TensorSplit
from zoo.errors import ZooError
from zoo.kinds import IGNORE

C = TypeVar("C", bound=RecallConfig)
#: (symbols, targets): int64 (B, N) each.
Sequences = tuple[np.ndarray, np.ndarray]

BLANK = 0  # of associative recall and copy
DELIMITER = 1  # of copy
ANNOUNCE, ASK = 10, 11  # of passkey


def load_associative_recall(config: AssociativeRecallConfig) -> Splits:
    """`k v` pairs, then the keys once more in another order, each followed by its value; blanks between.

    Multi-query associative recall after Arora et al. 2023 (arXiv:2312.04927). Deviation: the value follows
    the query in the input, as in a text.
    """
    return _load(config, _of_many_lengths, evaluated=replace(config, shortest=None))


def load_passkey(config: PasskeyConfig) -> Splits:
    """Filler, a number announced somewhere in it, and at the end the question for the number.

    After Mohtashami and Jaggi 2023 (arXiv:2305.16300). Deviation: symbols instead of English sentences.
    """
    return _load(config, passkey, evaluated=replace(config, ask_again=0.0))


def load_copy(config: CopyConfig) -> Splits:
    """Symbols, blanks, a delimiter, then the symbols again.

    plain: the copying problem of Hochreiter and Schmidhuber 1997 as in Arjovsky et al. 2016
    (arXiv:1511.06464); selective: that of Gu and Dao 2023 (arXiv:2312.00752).
    """
    return _load(config, copy)


def associative_recall(config: AssociativeRecallConfig, count: int, rng: np.random.Generator) -> Sequences:
    """`count` sequences of associative recall."""
    pairs, blanks = config.pairs, config.length - 4 * config.pairs
    keys = _distinct(1, 1 + config.keys, pairs, count, rng)
    values = rng.integers(1 + config.keys, config.vocab, (count, pairs))
    order = rng.permuted(np.tile(np.arange(pairs), (count, 1)), axis=1)
    first = np.concatenate([keys, np.take_along_axis(keys, order, axis=1)], axis=1)  # (B, 2 pairs)
    second = np.concatenate([values, np.take_along_axis(values, order, axis=1)], axis=1)
    # A sequence is made of 2 * pairs units of two symbols and `blanks` units of one.
    units = 2 * pairs + blanks
    chosen = _distinct(0, units, 2 * pairs, count, rng)
    chosen.sort(axis=1)
    at = chosen + np.arange(2 * pairs)  # each unit of two moves what comes after it by one
    symbols = np.full((count, config.length), BLANK)
    asked = np.zeros((count, config.length), dtype=bool)
    np.put_along_axis(symbols, at, first, axis=1)
    np.put_along_axis(symbols, at + 1, second, axis=1)
    np.put_along_axis(asked, at[:, pairs:], True, axis=1)
    return symbols, _following(symbols, asked)


def _of_many_lengths(config: AssociativeRecallConfig, count: int, rng: np.random.Generator) -> Sequences:
    """The same, the shorter ones with blanks behind: what short ones teach helps with long ones."""
    if config.shortest is None:
        return associative_recall(config, count, rng)
    symbols = np.full((count, config.length), BLANK)
    targets = np.full((count, config.length), IGNORE)
    lengths = rng.integers(config.shortest, config.length + 1, count)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        short = replace(config, length=int(length), shortest=None)
        symbols[rows, :length], targets[rows, :length] = associative_recall(short, len(rows), rng)
    return symbols, targets


def passkey(config: PasskeyConfig, count: int, rng: np.random.Generator) -> Sequences:
    """`count` sequences with a hidden number."""
    digits, length = config.digits, config.length
    symbols = rng.integers(config.reserved, config.vocab, (count, length))
    key = rng.integers(0, 10, (count, digits))
    question = length - digits - 1
    at = rng.integers(0, question - digits, (count, 1))  # where the key is announced
    symbols[:, question] = ASK
    symbols[:, question + 1 :] = key
    np.put_along_axis(symbols, at, ANNOUNCE, axis=1)
    np.put_along_axis(symbols, at + 1 + np.arange(digits), key, axis=1)
    asked = np.zeros((count, length), dtype=bool)
    asked[:, question:-1] = True
    targets = _following(symbols, asked)
    if config.ask_again:
        place = np.arange(length)
        again = (rng.random((count, length)) < config.ask_again) & (place > at + digits) & (place < question)
        symbols[again] = ASK
        targets = np.where(again, key[:, :1], targets)
    return symbols, targets


def copy(config: CopyConfig, count: int, rng: np.random.Generator) -> Sequences:
    """`count` sequences to copy from."""
    items, length = config.items, config.length
    delimiter = length - items - 1
    copied = rng.integers(config.reserved, config.vocab, (count, items))
    if config.mode == "plain":
        at = np.tile(np.arange(items), (count, 1))
    else:
        at = _distinct(0, delimiter, items, count, rng)
        at.sort(axis=1)
    symbols = np.full((count, length), BLANK)
    np.put_along_axis(symbols, at, copied, axis=1)
    symbols[:, delimiter] = DELIMITER
    symbols[:, delimiter + 1 :] = copied
    asked = np.zeros((count, length), dtype=bool)
    asked[:, delimiter:-1] = True
    return symbols, _following(symbols, asked)


class Symbols:
    """Whole numbers in [0, vocab) -> int64 (N,)."""

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab

    def __call__(self, raw: Any) -> Tensor:
        """A list or tensor of symbols.

        Raises:
            ZooError: one lies outside the vocabulary.
        """
        ids = torch.as_tensor(raw)
        outside = ids[(ids < 0) | (ids >= self.vocab)]
        if len(outside):
            raise ZooError(f"symbols must lie within 0..{self.vocab - 1}, got {outside[0].item()}")
        return ids.long()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": "symbols", "vocab": self.vocab}


def _load(
    config: C, make: Callable[[C, int, np.random.Generator], Sequences], evaluated: C | None = None
) -> Splits:
    """`evaluated`: what validation and test are made of, where they differ."""
    evaluated = replace(evaluated or config, length=config.eval_length or config.length)

    def split(config: C, stream: int, count: int) -> TensorSplit:
        symbols, targets = make(config, count, np.random.default_rng([config.seed, stream]))
        return TensorSplit(torch.from_numpy(symbols), torch.from_numpy(targets))

    return Splits(
        train=split(config, 0, config.examples),
        val=split(evaluated, 1, config.eval_examples),
        test=split(evaluated, 2, config.eval_examples),
        encode=Symbols(config.vocab),
    )


def _following(symbols: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Targets (B, N): the next symbol where asked, bool (B, N); the last place is never asked."""
    return np.where(asked, np.roll(symbols, -1, axis=1), IGNORE)


def _distinct(low: int, high: int, size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` rows of `size` different whole numbers in [low, high), in random order: (count, size)."""
    rows = max(1, 2**22 // (high - low))  # as many at a time as keep memory small
    chunks = [min(rows, count - start) for start in range(0, count, rows)]
    choices = np.arange(low, high)
    return np.concatenate([rng.permuted(np.tile(choices, (chunk, 1)), axis=1)[:, :size] for chunk in chunks])
