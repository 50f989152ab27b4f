"""Long texts as files of symbols in the cache, read through a memory map: they need not fit into memory."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from zoo.data.fetch import locked, workshop
from zoo.errors import ZooError
from zoo.sources import cache_folder

#: Raised when the same text would give other files.
FORMAT = 1


class Codec(Protocol):
    """Text <-> int64 ids."""

    def encode(self, text: str, /) -> Tensor: ...
    def decode(self, ids: Tensor, /) -> str: ...


class TokenFile:
    """A file of ids; `file[at]` reads those at the positions `at`, int64 of the same shape.

    It is opened on first use, and by each process anew: a worker gets the path, not the content.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self.path = path
        self.dtype = dtype

    def __len__(self) -> int:
        return os.path.getsize(self.path) // np.dtype(self.dtype).itemsize

    def __getitem__(self, at: Tensor) -> Tensor:
        return torch.from_numpy(self._ids[at.numpy()].astype(np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFile, (self.path, self.dtype)

    @functools.cached_property
    def _ids(self) -> np.ndarray:
        return np.memmap(self.path, dtype=self.dtype, mode="r")


class Bpe:
    """Byte-pair encoding over the bytes of UTF-8: any text can be encoded, and comes back as it was.

    Raises:
        ZooError: `tokenizers` is not installed.
    """

    def __init__(self, serialised: str) -> None:
        self._tokenizer = _tokenizers().Tokenizer.from_str(serialised)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab: int) -> Bpe:
        """Merge the commonest pair of symbols until there are `vocab`, or no pair is left (Sennrich 2016)."""
        library = _tokenizers()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    @property
    def serialised(self) -> str:
        """JSON from which it can be made again."""
        return cast(str, self._tokenizer.to_str())

    def __len__(self) -> int:
        return cast(int, self._tokenizer.get_vocab_size())

    def __reduce__(self) -> tuple[Any, ...]:
        return Bpe, (self.serialised,)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `tokenizer` is the JSON that the library `tokenizers` reads."""
        return {"kind": "bpe", "tokenizer": json.loads(self.serialised)}

    def encode(self, text: str) -> Tensor:
        """Text -> int64 (tokens,)."""
        return torch.tensor(self._tokenizer.encode(text).ids, dtype=torch.int64)

    def decode(self, ids: Tensor) -> str:
        """Ids of any shape -> text."""
        return cast(str, self._tokenizer.decode(ids.flatten().tolist(), skip_special_tokens=False))


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The splits of a text as files of ids, and the codec that made them."""

    codec: Codec
    splits: Mapping[str, TokenFile]


def tokenise(
    folder: str,
    documents: Callable[[], Mapping[str, Iterable[str]]],
    *,
    identity: Mapping[str, Any],
    symbols: int,
    codec: Codec | None,
) -> Tokens:
    """The ids of each split, made on first use and found again by what they are made from.

    Args:
        folder: the dataset's folder below the cache.
        documents: gives the texts of each split; called only where the files are not there yet.
        identity: all that the ids depend on, as plain data; its hash names the files.
        symbols: how many different ids there are (for a bpe: at most).
        codec: `None`: a bpe of `symbols`, trained on the train split alone and kept beside the ids.
    """
    text = json.dumps({"format": FORMAT, "symbols": symbols, **identity}, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    final = cache_folder() / folder / f"tokens-{key}"
    dtype = "u1" if symbols <= 2**8 else "<u2" if symbols <= 2**16 else "<u4"
    if not final.is_dir():
        with locked(f"{folder}/tokens-{key}"):
            if not final.is_dir():  # another process has been faster
                _make(final, documents(), codec=codec, symbols=symbols, dtype=dtype, identity=text)
    if codec is None:
        codec = Bpe((final / "tokenizer.json").read_text(encoding="utf-8"))
    return Tokens(
        codec=codec,
        splits={name: TokenFile(final / f"{name}.bin", dtype) for name in ("train", "val", "test")},
    )


def _make(
    final: Path,
    documents: Mapping[str, Iterable[str]],
    *,
    codec: Codec | None,
    symbols: int,
    dtype: str,
    identity: str,
) -> None:
    """Write the files of all splits into a folder that appears whole or not at all."""
    with workshop(f"{final.parent.name}/{final.name}") as folder:
        if codec is None:
            codec = Bpe.train(documents["train"], vocab=symbols)
            (folder / "tokenizer.json").write_text(codec.serialised, encoding="utf-8")
        for name, texts in documents.items():
            with open(folder / f"{name}.bin", "wb") as file:
                for text in texts:
                    file.write(codec.encode(text).numpy().astype(dtype).tobytes())
        (folder / "identity.json").write_text(identity + "\n", encoding="utf-8")
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder, final)


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ZooError(
            "unit: bpe needs the package 'tokenizers', which the extra 'text' brings: "
            "pip install 'archzoo[text]'. Without it: unit: character or byte"
        ) from None
    return tokenizers
