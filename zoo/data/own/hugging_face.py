"""`core/hugging_face`: a dataset of the Hugging Face hub, or local files through one of its builders.

Images with a class, texts with a class, texts to model, or a table, whichever its columns are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np

from zoo.data.own.config import sizes
from zoo.data.own.facts import existing, mistake, named, record
from zoo.data.own.hub import from_hub, without_progress_bars
from zoo.data.own.library_config import HuggingFaceConfig
from zoo.data.own.parts import NAMES, TEST, TRAIN, VAL, draw, part_called, stratified
from zoo.data.own.pictures_in_memory import Give, shape_of, splits_of
from zoo.data.own.table import RowEncoder
from zoo.data.own.table import splits_of as splits_of_table
from zoo.data.own.table_config import TableConfig
from zoo.data.own.table_file import Table, table_of
from zoo.data.own.table_study import Study
from zoo.data.own.table_study import study as study_table
from zoo.data.own.texts import ClassifiedTexts, alphabet_of, codec_of
from zoo.data.split import Splits, TokenWindows
from zoo.data.tokens import tokenise
from zoo.errors import ZooError, suggest
from zoo.kinds import Classes, DataKind, Ids, Image, NextId, TargetKind, Vector, kind_to_dict
from zoo.sources import cache_folder

Sort = Literal["images", "texts with a class", "text", "table"]
#: The column that is added to a table, to say which part a row is of.
_PART = "(part)"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A loaded dataset: its parts, what its columns are, and which of them are used."""

    parts: Mapping[int, Any]
    sort: Sort
    input: str
    target: str

    @property
    def train(self) -> Any:
        return self.parts[TRAIN]

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in their order."""
        feature = self.train.features[self.target]
        if isinstance(feature, datasets.ClassLabel):
            return list(feature.names)
        found = {value for part in self.parts.values() for value in part.unique(self.target)}
        return [str(value) for value in sorted(found)]

    def label_of(self) -> Callable[[Any], int]:
        """A value of the target column -> the number of its class."""
        if isinstance(self.train.features[self.target], datasets.ClassLabel):
            return int
        index = {name: i for i, name in enumerate(self.classes)}
        return lambda value: index[str(value)]

    def divided(self, config: HuggingFaceConfig) -> list[tuple[Any, np.ndarray]]:
        """For each part the dataset and the numbers of its examples; what it lacks is drawn from train."""
        val = config.val if VAL not in self.parts else 0.0
        test = config.test if TEST not in self.parts else 0.0
        if self.sort == "text":
            parts = draw(len(self.train), val=val, test=test, seed=config.seed)
        else:
            labels = np.array([str(value) for value in self.train[self.target]])
            parts = stratified(labels, val=val, test=test, seed=config.seed)
        found = [
            (self.parts[part], np.arange(len(self.parts[part])))
            if part != TRAIN and part in self.parts
            else (self.train, np.flatnonzero(parts == part))
            for part in range(3)
        ]
        for (_, at), name in zip(found, NAMES, strict=True):
            if not len(at):
                raise ZooError(
                    f"{config.dataset}: no example is for {name}; there are {len(self.train)} for train"
                )
        return found


def load_hugging_face(config: HuggingFaceConfig) -> Splits:
    """Images, float (C, H, W); texts, int64 (N,) bytes or characters; or rows of a table, float (F,)."""
    facts, opened = config.facts(), _open(config)
    files = [existing(path) for path in config.paths.values()]
    source: dict[str, Any] = {"source": f"hugging face {config.dataset}"}
    if files:
        source |= record([file for file in files if file.is_file()])
    source["fingerprints"] = {NAMES[part]: data._fingerprint for part, data in opened.parts.items()}
    if opened.sort == "table":
        found = _table(opened, config)
        read = RowEncoder(found.encoders, delimiter=None, encoding="utf-8")
        return splits_of_table(found, read=read, source=source)
    divided = opened.divided(config)
    if opened.sort == "images":
        gives = [(_give(data, opened), at) for data, at in divided]
        return splits_of(gives, facts, config, stamps=files, source=source)
    codec = codec_of(config.unit, facts["alphabet"])
    if opened.sort == "texts with a class":
        label = opened.label_of()
        train, val, test = (
            ClassifiedTexts(
                data.select_columns([opened.input, opened.target]),
                at,
                names=(opened.input, opened.target),
                codec=codec,
                label=label,
                length=config.length,
            )
            for data, at in divided
        )
        return Splits(train=train, val=val, test=test, encode=train.encode, text=True, source=source)
    ids = tokenise(
        "own",
        lambda: {
            name: _Column(data, at, opened.input) for name, (data, at) in zip(NAMES, divided, strict=True)
        },
        identity={
            "unit": config.unit,
            "alphabet": facts["alphabet"],
            **source,
            "val": config.val,
            "seed": config.seed,
        },
        symbols=facts["inputs"]["vocab"],
        codec=codec,
    ).splits
    n = config.length
    return Splits(
        train=TokenWindows(ids["train"], length=n, stride=n),
        val=TokenWindows(ids["val"], length=n, stride=n, once=True),
        test=TokenWindows(ids["test"], length=n, stride=n, once=True),
        encode=codec.encode,
        decode=codec.decode,
        text=True,
        source=source,
    )


def study(config: HuggingFaceConfig) -> dict[str, Any]:
    """What the contract must know, as plain data."""
    opened = _open(config)
    if opened.sort == "table":
        found = _table(opened, config)
        return _facts(Vector(features=found.features), found.kind, found.notes)
    divided = opened.divided(config)
    stated = named(NAMES[part] for part in sorted(opened.parts))
    notes = [
        f"{config.dataset}: {opened.sort}, {sizes(f'{len(at):,}' for _, at in divided)}; it states {stated}, "
        f"the rest is drawn with seed {config.seed}"
    ]
    if opened.sort == "images":
        give = _give(opened.train, opened)
        height, width, channels = shape_of(give, len(opened.train), config, name=config.dataset)
        inputs: DataKind = Image(channels=channels, height=height, width=width)
        facts = _facts(inputs, _classes(opened, notes), notes)
        return {**facts, "height": height, "width": width, "channels": channels}
    alphabet = ""
    if config.unit == "character":
        alphabet = alphabet_of(_Column(*divided[TRAIN], opened.input))
    vocab = 1 + len(alphabet) if config.unit == "character" else 256
    if opened.sort == "text":
        kinds: tuple[DataKind, TargetKind] = (
            Ids(vocab=vocab, length=config.length),
            NextId(vocab=vocab, unit=config.unit),
        )
    else:
        kinds = Ids(vocab=vocab, length=config.length, ragged=True), _classes(opened, notes)
    return {**_facts(*kinds, notes), "alphabet": alphabet}


def _facts(inputs: DataKind, targets: TargetKind, notes: Sequence[str]) -> dict[str, Any]:
    return {"inputs": kind_to_dict(inputs), "targets": kind_to_dict(targets), "notes": list(notes)}


def _classes(opened: Opened, notes: list[str]) -> Classes:
    names = opened.classes
    notes.append(f"input {opened.input}; target {opened.target}: {len(names)} classes: {named(names)}")
    return Classes(count=len(names), names=tuple(names))


def _open(config: HuggingFaceConfig) -> Opened:
    """Load a dataset, and see what its columns are."""
    parts = _parts(config)
    features = parts[TRAIN].features
    for field, names in (("input", [config.input]), ("target", _targets(config))):
        for name in names:
            if name is not None and name not in features:
                hint = suggest(name, features) or f" It has {named(features)}."
                raise mistake(field, f"{config.dataset} has no column {name!r}.{hint}")
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    targets = _targets(config)
    texts = [name for name, feature in features.items() if _is_text(feature) and name not in targets]
    if config.input in images or (config.input is None and images):
        target = _only(
            targets, [n for n, f in features.items() if isinstance(f, datasets.ClassLabel)], "target", config
        )
        return Opened(parts=parts, sort="images", input=config.input or images[0], target=target)
    if not targets:
        return Opened(
            parts=parts, sort="text", input=_only([config.input], texts, "input", config), target=""
        )
    alone = config.input is None and len(texts) == 1 and len(features) == 2
    if len(targets) == 1 and (config.input in texts or alone):
        return Opened(
            parts=parts, sort="texts with a class", input=config.input or texts[0], target=targets[0]
        )
    return Opened(parts=parts, sort="table", input="", target="")


def _only(given: Sequence[str | None], found: Sequence[str], field: str, config: HuggingFaceConfig) -> str:
    """The column that is given, else the only one that can be meant."""
    names = [name for name in given if name is not None] or list(found)
    if len(names) != 1:
        which = (
            f"{config.dataset} has {named(found)}"
            if found
            else f"{config.dataset} has none that can be meant"
        )
        raise mistake(field, f"must name one column: {which}")
    return names[0]


def _targets(config: HuggingFaceConfig) -> list[str]:
    return [config.target] if isinstance(config.target, str) else list(config.target or ())


def _is_text(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def _parts(config: HuggingFaceConfig) -> dict[int, Any]:
    """The splits by what they are; without one for test, validation is that."""
    found = from_hub(config) if config.path is None else _local(config)
    parts = {part: data for name, data in found.items() if (part := part_called(name)) is not None}
    if TRAIN not in parts:
        raise ZooError(f"{config.dataset} has the splits {named(found)}, but none called train")
    if TEST not in parts and VAL in parts:
        parts[TEST] = parts.pop(VAL)
    return parts


def _local(config: HuggingFaceConfig) -> Mapping[str, Any]:
    files = {field: str(existing(path, field=field)) for field, path in config.paths.items()}
    options: dict[str, Any] = {"data_dir": files["path"]}
    if config.dataset != "imagefolder":
        given = {"train": files["path"], "test": files.get("test_path")}
        options = {"data_files": {name: file for name, file in given.items() if file}}
    try:
        with without_progress_bars():
            loaded: Mapping[str, Any] = datasets.load_dataset(
                config.dataset, cache_dir=str(cache_folder() / "own" / "hugging_face"), **options
            )
    except Exception as error:  # a foreign library on foreign files: anything may be raised
        cause = error.__cause__ or error
        raise ZooError(
            f"{config.dataset} cannot read {config.path}: {' '.join(str(cause).split())}"
        ) from error
    return loaded


def _give(data: Any, opened: Opened) -> Give:
    return functools.partial(_picture, data, opened.input, opened.target, opened.label_of())


def _picture(
    data: Any, picture: str, target: str, label: Callable[[Any], int], index: int
) -> tuple[Any, int]:
    row = data[index]
    return row[picture], label(row[target])


def _table(opened: Opened, config: HuggingFaceConfig) -> Study:
    """All parts as one table, a column of which says the part."""
    names = list(opened.train.features)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    stated: list[str] = []
    for part, data in sorted(opened.parts.items()):
        stated += [NAMES[part]] * len(data)
        for name in names:
            feature, cells = data.features[name], data[name]
            if isinstance(feature, datasets.ClassLabel):
                cells = [feature.int2str(cell) if cell is not None and cell >= 0 else None for cell in cells]
            columns[name] += cells
    split = _PART if len(opened.parts) > 1 else None
    if split:
        columns[split] = stated
    table: Table = table_of(Path(config.dataset), columns)
    form = TableConfig(
        path=config.dataset,
        target=tuple(_targets(config)),
        split=split,
        val=config.val,
        test=config.test,
        seed=config.seed,
    )
    return study_table(table, form)


class _Column:
    """The texts of one column, from the start each time, each ended by a newline."""

    def __init__(self, data: Any, at: np.ndarray, name: str) -> None:
        self.data, self.at, self.name = data, at, name

    def __iter__(self) -> Any:
        for index in self.at:
            yield f"{self.data[int(index)][self.name] or ''}\n"
