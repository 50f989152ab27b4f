"""Parameters of the built-in datasets (torch-free). The tables, digits and japanese_vowels take none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from zoo.config import Config, param
from zoo.kinds import Classes, Ids, NextId, Series

#: Characters of sotu_small, in the order of their ids from 1 on: those of its train split. Id 0 is any other.
SOTU_ALPHABET = "\n \"$&'(),-./0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz\N{EM DASH}"


@dataclass(frozen=True, kw_only=True)
class BlocksConfig(Config):
    """How a long sequence of symbols becomes blocks."""

    length: int = param(128, "symbols per block", at_least=2, at_most=32768)
    stride: int | None = param(
        None, "symbols from the start of one train block to the next; the default is `length`", at_least=1
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.stride is not None and self.stride > self.length:
            yield "stride", f"must be at most length {self.length}, or text between blocks is lost"


@dataclass(frozen=True, kw_only=True)
class SotuConfig(BlocksConfig):
    """How a text becomes blocks of symbols."""

    unit: Literal["character", "byte"] = param("character", "what a symbol is; bytes are those of UTF-8")
    readings: int = param(
        1, "a block is a passage of length / readings symbols, read so many times in a row", at_least=1
    )

    def check(self) -> Iterator[tuple[str, str]]:
        passage, rest = divmod(self.length, self.readings)
        if rest or passage < 2:
            yield "readings", f"must divide length {self.length} into passages of at least 2 symbols"
        elif self.stride is not None and self.stride > passage:
            yield "stride", f"must be at most {passage} (length / readings), or text between blocks is lost"

    def kinds(self) -> tuple[Ids, NextId]:
        """Inputs and targets for these parameters."""
        vocab = 256 if self.unit == "byte" else 1 + len(SOTU_ALPHABET)
        return Ids(vocab=vocab, length=self.length), NextId(vocab=vocab, unit=self.unit)


@dataclass(frozen=True, kw_only=True)
class RecallConfig(Config):
    """What the synthetic recall tasks share. Symbols below `reserved` have a meaning of their own."""

    reserved: ClassVar[int] = 1

    length: int = param(64, "symbols per sequence", at_least=4)
    vocab: int = param(64, "how many different symbols there are", at_least=4)
    examples: int = param(8192, "sequences to train on", at_least=1)
    eval_examples: int = param(1024, "sequences in each of validation and test", at_least=1)
    eval_length: int | None = param(
        None, "symbols per sequence of validation and test; the default is `length`", at_least=4
    )
    seed: int = param(0, "seed of all sequences; each split has its own stream", at_least=0)

    def kinds(self) -> tuple[Ids, NextId]:
        """Inputs and targets for these parameters."""
        longest = max(self.length, self.eval_length or 0)
        return Ids(vocab=self.vocab, length=longest), NextId(vocab=self.vocab)

    def fits(self, needed: int, what: str) -> Iterator[tuple[str, str]]:
        """The problem of a sequence that is too short for what it must hold, if it is."""
        for name, length in (("length", self.length), ("eval_length", self.eval_length)):
            if length is not None and needed > length:
                yield name, f"must be at least {needed} for {what}, got {length}"


@dataclass(frozen=True, kw_only=True)
class AssociativeRecallConfig(RecallConfig):
    """Key-value pairs, then each key again. Symbol 0 is blank; the rest is halved into keys and values."""

    pairs: int = param(8, "key-value pairs to remember; every key is asked once", at_least=1)
    shortest: int | None = param(
        None,
        "sequences to train on have this many symbols to `length`, evenly, then blanks; default: `length`",
        at_least=4,
    )

    @property
    def keys(self) -> int:
        """Keys are the symbols 1 .. keys; values those above."""
        return (self.vocab - self.reserved) // 2

    def check(self) -> Iterator[tuple[str, str]]:
        if self.pairs > self.keys:
            problem = f"must be at most {self.keys}, the keys of a vocab of {self.vocab}; got {self.pairs}"
            yield "pairs", problem
        needed = 4 * self.pairs
        yield from self.fits(needed, f"{self.pairs} pairs and their queries")
        if self.shortest is not None and not needed <= self.shortest <= self.length:
            yield "shortest", f"must lie within {needed}..{self.length}, the symbols needed and length"


@dataclass(frozen=True, kw_only=True)
class PasskeyConfig(RecallConfig):
    """A number hidden in filler, asked at the end.

    Symbols 0-9 are digits, 10 announces the key, 11 asks for it, the rest is filler.
    """

    reserved: ClassVar[int] = 12

    vocab: int = param(32, "how many different symbols there are: 12 and the filler", at_least=13)
    digits: int = param(5, "digits of the key", at_least=1)
    ask_again: float = param(
        0.0,
        "share of the filler behind the key that, in training, asks for its first digit as well",
        at_least=0,
        below=1,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from self.fits(2 * self.digits + 2, f"a key of {self.digits} digits, said and asked")


@dataclass(frozen=True, kw_only=True)
class CopyConfig(RecallConfig):
    """Symbols to repeat after a delimiter. Symbol 0 is blank, 1 the delimiter, the rest is to be copied."""

    reserved: ClassVar[int] = 2

    vocab: int = param(16, "how many different symbols there are: 2 and those to be copied", at_least=4)
    items: int = param(16, "symbols to copy", at_least=1)
    mode: Literal["plain", "selective"] = param(
        "plain", "plain: the symbols stand together at the start; selective: scattered among blanks"
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from self.fits(2 * self.items + 1, f"{self.items} symbols, the delimiter and the copy")


@dataclass(frozen=True, kw_only=True)
class Mnist1dConfig(Config):
    """Ten shapes in one dimension, moved, stretched and covered with noise."""

    length: int = param(40, "samples per series", at_least=8)
    examples: int = param(4000, "series to train on", at_least=10)
    eval_examples: int = param(1000, "series in each of validation and test", at_least=10)
    noise: float = param(0.15, "deviation of the smooth noise; shapes are about 1 high", at_least=0)
    seed: int = param(0, "seed of all series; each split has its own stream", at_least=0)

    def kinds(self) -> tuple[Series, Classes]:
        """Inputs and targets for these parameters."""
        return Series(channels=1, length=self.length), Classes(count=10, names=tuple("0123456789"))
