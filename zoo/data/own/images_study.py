"""A user's folder of images looked at: classes, parts, sizes, and which files cannot be read (torch-free)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.own.config import sizes
from zoo.data.own.facts import SLOW_FILES, mistake, named, say
from zoo.data.own.parts import NAMES, TEST, TRAIN, VAL, check_parts, draw, part_called, stratified
from zoo.data.own.pictures import UnreadableImage, header, read_picture
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.data.own.images_config import ImageFolderConfig

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))
#: Images whose headers say how large and how colourful all are.
LOOKED_AT = 64


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Every image of a folder: its path below the folder, its class, its part; sorted by path.

    folders: all that were walked through, the folder itself first. others: files that are no images.
    """

    files: Sequence[str]
    labels: Sequence[str]
    stated: Sequence[int | None]
    folders: Sequence[str]
    others: int

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.labels))


def list_images(root: Path) -> Listing:
    """Walk through a folder of classes, or of parts with classes.

    Raises:
        ZooError: there is no folder of a class, or no image.
    """
    inside = sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")
    )
    parts = {name: part for name in inside if (part := part_called(name)) is not None}
    by_part = TRAIN in parts.values()
    if by_part and len(parts) < len(inside):
        strange = next(name for name in inside if name not in parts)
        raise ZooError(
            f"{root.name} holds the folders {named(parts)} and {strange!r}: either all are parts "
            "(train, val, test) or all are classes"
        )
    files, labels, stated, folders, others = [], [], [], [str(root)], 0
    tops = [(name, parts[name]) for name in inside] if by_part else [("", None)]
    for top, part in tops:
        base = root / top
        folders += [str(base)] if top else []
        for name in sorted(entry.name for entry in os.scandir(base) if entry.is_dir()):
            if name.startswith("."):
                continue
            for folder, below, names in os.walk(base / name):
                below.sort()
                folders.append(folder)
                for file in sorted(names):
                    if os.path.splitext(file)[1].lower() in SUFFIXES:
                        files.append(os.path.relpath(os.path.join(folder, file), root))
                        labels.append(name)
                        stated.append(part)
                    else:
                        others += 1
    if not files:
        raise ZooError(
            f"{root.name} holds no image in a folder of its class; expected e.g. {root.name}/cat/1.png"
        )
    return Listing(files=files, labels=labels, stated=stated, folders=folders, others=others)


def parts_of(found: Listing, config: ImageFolderConfig, root: Path) -> np.ndarray:
    """The part of each image: that of its folder; what no folder states is drawn from train, by class.

    Raises:
        ZooError: a part stays empty, or val or test has a class that train does not have.
    """
    labels = np.array(found.labels)
    if found.stated[0] is None:
        parts = draw(len(labels), val=config.val, test=config.test, seed=config.seed, labels=found.labels)
    else:
        parts = np.array(found.stated)
        train = np.flatnonzero(parts == TRAIN)
        lacking = {
            part: share for part, share in ((VAL, config.val), (TEST, config.test)) if part not in parts
        }
        drawn = stratified(
            labels[train], val=lacking.get(VAL, 0.0), test=lacking.get(TEST, 0.0), seed=config.seed
        )
        parts[train] = drawn
    check_parts(
        parts, what="image", hint=f"{root.name} has {len(labels)}; a class needs three to be drawn from"
    )
    known = set(labels[parts == TRAIN].tolist())
    for part in (VAL, TEST):
        strange = sorted(set(labels[parts == part].tolist()) - known)
        if strange:
            raise ZooError(
                f"{NAMES[part]} has images of the class {strange[0]!r}, train has none, so no model can know "
                f"it: move some there, or take {strange[0]!r} out of {NAMES[part]}"
            )
    return parts


def study(root: Path, config: ImageFolderConfig) -> tuple[dict[str, Any], list[Path]]:
    """Facts on the folder, and the folders that they depend on.

    Raises:
        ConfigError, ZooError: images differ in size and `size` is not given, or one cannot be read.
    """
    found = list_images(root)
    if len(found.files) > SLOW_FILES:
        say(f"looking at {root.name} ({len(found.files):,} images), once")
    broken = _broken(found, root) if config.corrupt == "skip" else []
    left = without(found, broken)
    if not left.files:
        raise ZooError(f"{root.name}: none of its {len(found.files)} images can be read")
    parts = parts_of(left, config, root)
    height, width, channels = _shape(left, root, config)
    counts = [int((parts == part).sum()) for part in range(3)]
    each = Counter(left.labels)
    how = (
        "by folder"
        if found.stated[0] is not None and VAL in found.stated and TEST in found.stated
        else (f"drawn with seed {config.seed}")
    )
    notes = [
        f"{root.name}: {len(left.files):,} images, {sizes(counts)}, {how}",
        f"{len(each)} classes: {named(f'{name} {each[name]}' for name in left.classes)}",
    ]
    if found.others:
        notes.append(f"{found.others} files that are no images are passed over")
    if broken:
        notes.append(
            f"skipped, since they cannot be read: {len(broken)} of {len(found.files)}: {named(broken)}"
        )
    facts = {
        "classes": left.classes,
        "height": height,
        "width": width,
        "channels": channels,
        "broken": broken,
        "notes": notes,
    }
    return facts, [Path(folder) for folder in found.folders]


def without(found: Listing, broken: Sequence[str]) -> Listing:
    """The listing without some files."""
    if not broken:
        return found
    gone = set(broken)
    keep = [i for i, file in enumerate(found.files) if file not in gone]
    return Listing(
        files=[found.files[i] for i in keep],
        labels=[found.labels[i] for i in keep],
        stated=[found.stated[i] for i in keep],
        folders=found.folders,
        others=found.others,
    )


@contextmanager
def blamed_on_folder() -> Iterator[None]:
    """What to do about an image of a folder that cannot be read."""
    try:
        yield
    except UnreadableImage as error:
        raise UnreadableImage(
            f"{error}; mend or remove it, or write corrupt: skip to leave such out"
        ) from None


def _broken(found: Listing, root: Path) -> list[str]:
    """The images that cannot be read, each tried in full."""

    def fails(file: str) -> bool:
        try:
            read_picture(root / file, channels=1, size=None)
        except UnreadableImage:
            return True
        return False

    with ThreadPoolExecutor() as pool:  # Pillow lets other threads work while it decodes
        return [file for file, bad in zip(found.files, pool.map(fails, found.files), strict=True) if bad]


def _shape(found: Listing, root: Path, config: ImageFolderConfig) -> tuple[int, int, int]:
    """Height, width, channels: as given, else as those of images from everywhere in the folder."""
    step = max(1, len(found.files) // LOOKED_AT)
    with blamed_on_folder():
        heads = {file: header(root / file) for file in found.files[::step]}
    first = found.files[0]
    grey = all(head.grey for head in heads.values())
    channels = config.channels or (1 if grey else 3)
    if config.wanted is not None:
        return (*config.wanted, channels)
    height, width = heads[first].size
    for file, head in heads.items():
        if head.size != (height, width):
            raise mistake(
                "size",
                f"must be given, since the images differ: {first} has {height} x {width} pixels "
                f"(height x width), {file} {head.size[0]} x {head.size[1]}",
            )
    return height, width, channels
