"""`core/text_files`: a user's text as blocks of symbols, from memory-mapped files of symbols in the cache."""

from __future__ import annotations

from typing import Any

from zoo.data.own.facts import existing, record
from zoo.data.own.text_config import TextFilesConfig
from zoo.data.own.text_study import Texts, divide
from zoo.data.split import Splits, TokenWindows
from zoo.data.text import Bytes, Characters
from zoo.data.tokens import Codec, tokenise
from zoo.errors import ZooError

NAMES = ("train", "val", "test")


def load_text_files(config: TextFilesConfig) -> Splits:
    """Blocks of `config.length` symbols, input and target int64 (N,).

    Validation and test ask for each symbol (but the very first) once.
    """
    root, facts = existing(config.path), config.facts()
    found = divide(root, config)
    codec: Codec | None = None
    if config.unit == "character":
        codec = Characters(facts["alphabet"])
    elif config.unit == "byte":
        codec = Bytes()
    stretches = [[[str(path), start, end] for path, start, end in part] for part in found.parts]
    stamps = [[file.stat().st_size, file.stat().st_mtime_ns] for file in found.files]
    identity: dict[str, Any] = {"unit": config.unit, "encoding": config.encoding, "parts": stretches}
    tokens = tokenise(
        "own",
        lambda: {name: Texts(found.parts[i], config.encoding) for i, name in enumerate(NAMES)},
        identity={**identity, "stamps": stamps, "alphabet": facts.get("alphabet")},
        symbols=facts["symbols"],
        codec=codec,
    )
    for name, ids in tokens.splits.items():
        if len(ids) <= config.length:
            raise ZooError(
                f"{root.name} has {len(ids)} symbols for {name}, but a block needs {config.length + 1}: "
                f"lower `length`, or change the shares `val` and `test`"
            )
    train, val, test = (tokens.splits[name] for name in NAMES)
    return Splits(
        train=TokenWindows(train, length=config.length, stride=config.stride or config.length),
        val=TokenWindows(val, length=config.length, stride=config.length, once=True),
        test=TokenWindows(test, length=config.length, stride=config.length, once=True),
        encode=tokens.codec.encode,
        decode=tokens.codec.decode,
        text=True,
        source=record(found.files, root=root if root.is_dir() else None),
    )
