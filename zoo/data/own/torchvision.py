"""`core/torchvision`: a dataset of torchvision, by the name of its class."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.own.config import sizes
from zoo.data.own.facts import mistake, named
from zoo.data.own.library_config import TorchvisionConfig
from zoo.data.own.parts import TEST, TRAIN, VAL, draw, stratified
from zoo.data.own.pictures_in_memory import Give, shape_of, splits_of
from zoo.data.split import Splits
from zoo.errors import ZooError, one_line, suggest
from zoo.torchvision_shim import install

#: What the argument `split` of torchvision's classes may say, by part.
_SPLITS = {TRAIN: ("train",), VAL: ("val", "valid"), TEST: ("test",)}


def load_torchvision(config: TorchvisionConfig) -> Splits:
    """Images, input float (C, H, W), one class each; each channel is standardised on 512 images of train."""
    facts, opened = config.facts(), _open(config)
    source = {"source": f"torchvision {config.dataset}", "options": config.options}
    return splits_of(_divided(opened, config), facts, config, stamps=[config.root], source=source)


def study(config: TorchvisionConfig) -> dict[str, Any]:
    """What the contract must know, as plain data."""
    opened = _open(config)
    train = opened[TRAIN]
    for i in range(min(len(train), 8)):
        target = train[i][1]
        if isinstance(target, bool) or not isinstance(target, (int, np.integer)):
            raise ZooError(
                f"the targets of {config.dataset} are {type(target).__name__} objects; "
                "core/torchvision takes datasets with one class per image"
            )
    height, width, channels = shape_of(train.__getitem__, len(train), config, name=config.dataset)
    classes = _classes(opened, config)
    divided = _divided(opened, config)
    how = (
        f"by {config.dataset}" if len(opened) == 3 else f"what it does not state is drawn, seed {config.seed}"
    )
    counts = [f"{len(at):,}" for _, at in divided]
    notes = [
        f"{config.dataset}: {sizes(counts)}, {how}",
        f"{len(classes)} classes: {named(classes)}",
    ]
    return {"height": height, "width": width, "channels": channels, "classes": classes, "notes": notes}


def _open(config: TorchvisionConfig) -> dict[int, Any]:
    """The parts that the class itself tells apart: train, test, perhaps validation; or train alone."""
    install()
    from torchvision import datasets

    cls = getattr(datasets, config.dataset, None)
    if config.dataset not in datasets.__all__ or cls is None:
        hint = suggest(config.dataset, datasets.__all__) or " E.g. CIFAR10, SVHN, Flowers102."
        raise mistake("dataset", f"torchvision has no dataset {config.dataset!r}.{hint}")
    takes = inspect.signature(cls.__init__).parameters
    strange = sorted(set(config.options) - set(takes))
    if strange:
        raise mistake(
            f"options.{strange[0]}", f"{config.dataset} has no such keyword.{suggest(strange[0], takes)}"
        )
    given = dict(config.options)
    config.root.mkdir(parents=True, exist_ok=True)
    if "root" in takes:
        given["root"] = str(config.root)
    if "download" in takes:
        given["download"] = config.download
    if "train" in takes and "train" not in given:
        return {part: _make(cls, {**given, "train": part == TRAIN}, config) for part in (TRAIN, TEST)}
    if "split" in takes and "split" not in given:
        return _by_split(cls, given, config)
    return {TRAIN: _make(cls, given, config)}


def _by_split(cls: Any, given: dict[str, Any], config: TorchvisionConfig) -> dict[int, Any]:
    """Those of the splits train, val and test that the class knows; without a test split, val is that."""
    found = {TRAIN: _make(cls, {**given, "split": "train"}, config)}
    for part in (VAL, TEST):
        for name in _SPLITS[part]:
            try:
                found[part] = _make(cls, {**given, "split": name}, config, known=False)
                break
            except ValueError:
                continue
    if TEST not in found and VAL in found:
        found[TEST] = found.pop(VAL)
    return found


def _make(cls: Any, given: dict[str, Any], config: TorchvisionConfig, *, known: bool = True) -> Any:
    try:
        return cls(**given)
    except (Exception, SystemExit) as error:  # a download over a network: anything may be raised
        if not known and isinstance(error, ValueError):
            raise  # the class has no split of this name
        way = "downloaded" if config.download else "found (download: false forbids to fetch it)"
        raise ZooError(
            f"{config.dataset} cannot be {way}: {one_line(error)}. Place its files below "
            f"{config.path or config.root} as torchvision does, or name their folder: path: ..."
        ) from error


def _classes(opened: dict[int, Any], config: TorchvisionConfig) -> list[str]:
    """The names of the classes; where torchvision has none, their numbers."""
    names = getattr(opened[TRAIN], "classes", None)
    if names:
        return [str(name) for name in names]
    labels = [_labels(dataset) for dataset in opened.values()]
    if any(each is None for each in labels):
        count = config.options.get("num_classes")
        if not isinstance(count, int):
            raise ZooError(f"{config.dataset} does not say which classes it has")
        return [str(i) for i in range(count)]
    return [str(i) for i in range(1 + max(int(np.max(each)) for each in labels if each is not None))]


def _labels(dataset: Any) -> np.ndarray | None:
    """The classes of all examples, where they can be had without decoding the images."""
    for name in ("targets", "labels", "_labels"):
        found = getattr(dataset, name, None)
        if found is not None and len(found) == len(dataset):
            return np.asarray(found)
    return None


def _divided(opened: dict[int, Any], config: TorchvisionConfig) -> Sequence[tuple[Give, np.ndarray]]:
    """For each part the dataset and the numbers of its examples; what is not stated is drawn from train."""
    train = opened[TRAIN]
    labels = _labels(train)
    val, test = (config.val if VAL not in opened else 0.0), (config.test if TEST not in opened else 0.0)
    if labels is not None:
        parts = stratified(labels, val=val, test=test, seed=config.seed)
    else:
        parts = draw(len(train), val=val, test=test, seed=config.seed)
    return [
        (opened[part].__getitem__, np.arange(len(opened[part])))
        if part != TRAIN and part in opened
        else (train.__getitem__, np.flatnonzero(parts == part))
        for part in (TRAIN, VAL, TEST)
    ]
