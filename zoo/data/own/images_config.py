"""Parameters of `core/image_folder`, and what they mean for the contract (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from zoo.config import param
from zoo.data.own.config import DrawnConfig, PathConfig
from zoo.data.own.facts import cached_facts, existing
from zoo.kinds import Classes, Image

Fit = Literal["crop", "pad", "stretch"]
Augment = Literal["none", "flip", "crop", "crop_and_flip"]


@dataclass(frozen=True, kw_only=True)
class PictureConfig(DrawnConfig):
    """How pictures become images of one size."""

    size: int | tuple[int, int] | None = param(
        None, "height and width of all images, or one number for both; null: theirs, where all have the same"
    )
    fit: Fit = param(
        "crop", "how a picture of another shape is fitted: crop the middle, pad with black, stretch"
    )
    channels: Literal[1, 3] | None = param(None, "1: grey, 3: colour; null: as the first images are")
    augment: Augment = param(
        "none", "what is changed at random in train: mirrored, shifted by up to an eighth"
    )

    def check(self) -> Any:
        yield from super().check()
        for side in (self.size,) if isinstance(self.size, int) else self.size or ():
            if side < 1:
                yield "size", f"must be at least 1, got {side}"

    @property
    def wanted(self) -> tuple[int, int] | None:
        """Height and width, where they are given."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


@dataclass(frozen=True, kw_only=True)
class ImageFolderConfig(PictureConfig, PathConfig):
    """Your own images: a folder with a folder for each class."""

    path: str = param(
        help="the folder: CLASS/*.png, or train/CLASS/*.png, val/CLASS/*.png, test/CLASS/*.png", path=True
    )
    corrupt: Literal["error", "skip"] = param(
        "error",
        "an image that cannot be read is an error when it is met; or all are tried once, and it is skipped",
    )

    def kinds(self) -> tuple[Image, Classes]:
        """Inputs and targets, as the folder has them."""
        found = self.facts()
        image = Image(channels=found["channels"], height=found["height"], width=found["width"])
        return image, Classes(count=len(found["classes"]), names=tuple(found["classes"]))

    def notes(self) -> Iterable[str]:
        """How many images there are, and which were skipped."""
        return tuple(self.facts()["notes"])

    def facts(self) -> dict[str, Any]:
        """What a look at the folder finds: once, until a folder's list of files changes."""
        root = existing(self.path, folder=True)

        def compute() -> tuple[dict[str, Any], list[Path]]:
            from zoo.data.own.images_study import study

            return study(root, self)

        return cached_facts("images", {**asdict(self), "path": str(root)}, compute)
