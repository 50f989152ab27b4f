"""Bundled text: State of the Union addresses, as characters or bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.bundled import read_bytes
from zoo.data.config import SOTU_ALPHABET, SotuConfig
from zoo.data.split import Readings, Split, Splits, TokenWindows


class Characters:
    """Characters <-> ids: 1 and up in the order of the alphabet, 0 for any character outside it."""

    #: What id 0 is decoded to.
    UNKNOWN = "\N{REPLACEMENT CHARACTER}"

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        codes = np.array([ord(character) for character in alphabet], dtype=np.uint32)
        self._order = np.argsort(codes)
        self._codes = codes[self._order]  # ascending

    def encode(self, text: str) -> Tensor:
        """Text -> int64 (characters,)."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        at = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        return torch.from_numpy(np.where(self._codes[at] == codes, self._order[at] + 1, 0))

    def decode(self, ids: Tensor) -> str:
        """Ids of any shape -> text."""
        return "".join((self.UNKNOWN + self.alphabet)[i] for i in ids.flatten().tolist())

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the vocabulary, by id."""
        return {"kind": "characters", "vocabulary": [self.UNKNOWN, *self.alphabet]}


class Bytes:
    """Bytes of UTF-8 <-> ids 0..255."""

    def encode(self, text: str) -> Tensor:
        """Text -> int64 (bytes,)."""
        return torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64))

    def decode(self, ids: Tensor) -> str:
        """Ids of any shape -> text; what is no valid UTF-8 becomes a replacement character."""
        return bytes(ids.flatten().tolist()).decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": "bytes"}


def sotu_texts() -> dict[str, str]:
    """The text of each split: whole addresses, each ended by a newline (there is none within)."""
    texts = {"train": "", "val": "", "test": ""}
    for line in read_bytes("sotu_small.txt").decode().splitlines(keepends=True):
        split, _, address = line.split("\t")
        texts[split] += address
    return texts


def load_sotu_small(config: SotuConfig) -> Splits:
    """Blocks of `config.length` symbols, input and target int64 (N,).

    Validation and test ask for each symbol (but the very first) once, or once in each reading.
    """
    codec = Bytes() if config.unit == "byte" else Characters(SOTU_ALPHABET)
    ids = {name: codec.encode(text) for name, text in sotu_texts().items()}
    length = config.length // config.readings

    def windows(split: str, stride: int, *, once: bool) -> Split:
        passages = TokenWindows(ids[split], length=length, stride=stride, once=once)
        return passages if config.readings == 1 else Readings(passages, config.readings)

    return Splits(
        train=windows("train", config.stride or length, once=False),
        val=windows("val", length, once=True),
        test=windows("test", length, once=True),
        encode=codec.encode,
        decode=codec.decode,
        text=True,
    )
