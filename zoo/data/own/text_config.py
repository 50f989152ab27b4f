"""Parameters of `core/text_files`, and what they mean for the contract (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from zoo.config import param
from zoo.data.config import BlocksConfig
from zoo.data.own.config import DrawnConfig, PathConfig
from zoo.data.own.facts import cached_facts, existing
from zoo.kinds import Ids, NextId

#: Symbols of a bpe where no number is given.
DEFAULT_VOCAB = 4096


@dataclass(frozen=True, kw_only=True)
class TextFilesConfig(BlocksConfig, DrawnConfig, PathConfig):
    """Your own text: a file, or a folder of files. It may be larger than memory."""

    path: str = param(help="a text file, or a folder of them", path=True)
    pattern: str = param("*.txt", "names of the files of a folder, those of its folders too")
    unit: Literal["character", "byte", "bpe"] = param(
        "character", "what a symbol is; bpe: tokens of a byte-pair encoding trained on the train split"
    )
    vocab: int | None = param(None, "symbols of a bpe, 4096 where none is given", at_least=257, at_most=2**20)
    length: int = param(256, "symbols per block", at_least=2, at_most=32768)
    val: float = param(0.05, "share of the text that is for validation", above=0, below=1)
    test: float = param(0.05, "share of the text that is for test", above=0, below=1)
    encoding: str = param("utf-8", "of the files, e.g. latin-1")

    def check(self) -> Iterator[tuple[str, str]]:
        yield from BlocksConfig.check(self)
        yield from DrawnConfig.check(self)
        if self.vocab is not None and self.unit != "bpe":
            yield "vocab", f"is for unit: bpe; a {self.unit} vocabulary has a size of its own"

    def kinds(self) -> tuple[Ids, NextId]:
        """Inputs and targets, as the text has them."""
        symbols = self.facts()["symbols"]
        unit = "token" if self.unit == "bpe" else self.unit
        return Ids(vocab=symbols, length=self.length), NextId(vocab=symbols, unit=unit)

    def notes(self) -> Iterable[str]:
        """How much text there is, and how it is split."""
        return tuple(self.facts()["notes"])

    def facts(self) -> dict[str, Any]:
        """What a look at the text finds: once, until a file changes."""
        root = existing(self.path)

        def compute() -> tuple[dict[str, Any], list[Path]]:
            from zoo.data.own.text_study import study

            return study(root, self)

        # Blocks are cut later: they do not change what is found.
        asked = {k: v for k, v in asdict(self).items() if k not in ("length", "stride")}
        return cached_facts("text", {**asked, "path": str(root)}, compute)
