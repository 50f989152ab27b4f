"""Texts of one class each, as symbols. N symbols."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.batch import Example
from zoo.data.text import Bytes, Characters
from zoo.data.tokens import Codec


class ClassifiedTexts:
    """Rows of a text and its class; a text is cut after `length` symbols, an empty one is a newline.

    Args:
        rows: `rows[i]` is a mapping with the columns `names`, of the text and of the class.
        at: the numbers of the examples.
        label: a class as it stands there -> its number.
    """

    def __init__(
        self,
        rows: Any,
        at: np.ndarray,
        *,
        names: tuple[str, str],
        codec: Codec,
        label: Callable[[Any], int],
        length: int,
    ) -> None:
        self.rows = rows
        self.at = at
        self.names = names
        self.codec = codec
        self.label = label
        self.length = length

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[int(self.at[index])]
        text, label = (row[name] for name in self.names)
        return {"input": self.encode(text or ""), "target": torch.tensor(self.label(label))}

    def encode(self, text: str) -> Tensor:
        """Text -> int64 (N,), 1 <= N <= length."""
        return self.codec.encode(text[: self.length] or "\n")[: self.length]


def alphabet_of(texts: Iterable[str]) -> str:
    """The characters that occur, in order."""
    seen: set[str] = set()
    for text in texts:
        seen.update(text)
    return "".join(sorted(seen))


def codec_of(unit: str, alphabet: str) -> Codec:
    """Bytes, or the characters of an alphabet."""
    return Characters(alphabet) if unit == "character" else Bytes()
