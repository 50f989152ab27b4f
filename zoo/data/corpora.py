"""Fetched texts: State of the Union addresses, the King James Bible, Moby Dick."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zoo.data.archive import read_texts
from zoo.data.fetch import Fetched, fetch
from zoo.data.fetched_config import CorpusConfig, KjvConfig, MobyDickConfig, SotuCorpusConfig
from zoo.data.origins import KJV, MOBY_DICK, SOTU
from zoo.data.split import Splits, TokenWindows
from zoo.data.text import Bytes, Characters
from zoo.data.tokens import Codec, tokenise
from zoo.sources import Files

#: Texts of each split, in order; their concatenation is the split.
Documents = Mapping[str, Iterable[str]]

#: Of ten addresses in a row (by year), which go to validation and test.
_SOTU_PARTS = {4: "val", 9: "test"}
#: Where the parts of a single text begin.
VALIDATION, TEST = 0.85, 0.90


def load_sotu(config: SotuCorpusConfig) -> Splits:
    """233 addresses, 1790 to 2020; every fifth of ten is for validation, every tenth for test."""
    return _load(config, SOTU, sotu_documents)


def load_kjv(config: KjvConfig) -> Splits:
    """31102 verses, one per line; the last tenth is for test, the twentieth before it for validation."""
    return _load(config, KJV, kjv_documents)


def load_moby_dick(config: MobyDickConfig) -> Splits:
    """135 chapters and the epilogue; parts as those of `kjv`."""
    return _load(config, MOBY_DICK, moby_dick_documents)


def sotu_documents(fetched: Fetched) -> Documents:
    """Whole addresses, each ended by a newline (there is none within)."""
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for index, (_, text) in enumerate(read_texts(fetched["datasets-sotu.tgz"], suffix=".txt")):
        parts[_SOTU_PARTS.get(index % 10, "train")].append(text.rstrip("\n") + "\n")
    return parts


def kjv_documents(fetched: Fetched) -> Documents:
    """Verses, without their references."""
    verses = json.loads(fetched["verses-1769.json"].read_text(encoding="utf-8"))
    return cut("".join(f"{verse}\n" for verse in verses.values()))


def moby_dick_documents(fetched: Fetched) -> Documents:
    """The text as it stands in the file."""
    return cut(fetched["data.txt"].read_text(encoding="utf-8"))


def cut(text: str) -> Documents:
    """Train, validation and test of one text, each in lines."""
    first, second = (text.index("\n", int(share * len(text))) + 1 for share in (VALIDATION, TEST))
    parts = {"train": text[:first], "val": text[first:second], "test": text[second:]}
    return {name: part.splitlines(keepends=True) for name, part in parts.items()}


def _load(config: CorpusConfig, files: Files, documents: Callable[[Fetched], Documents]) -> Splits:
    """Blocks of `config.length` symbols; validation and test ask for each symbol (but the first) once."""
    fetched = fetch(files)
    codec: Codec | None = None
    identity: dict[str, Any] = {"unit": config.unit, "sha256": fetched.sha256}
    if config.unit == "character":
        codec = Characters(config.alphabet)
        identity["alphabet"] = config.alphabet
    elif config.unit == "byte":
        codec = Bytes()
    tokens = tokenise(
        files.folder, lambda: documents(fetched), identity=identity, symbols=config.symbols, codec=codec
    )
    length = config.length
    train, val, test = (tokens.splits[name] for name in ("train", "val", "test"))
    return Splits(
        train=TokenWindows(train, length=length, stride=config.stride or length),
        val=TokenWindows(val, length=length, stride=length, once=True),
        test=TokenWindows(test, length=length, stride=length, once=True),
        encode=tokens.codec.encode,
        decode=tokens.codec.decode,
        text=True,
        source=fetched.record,
    )
