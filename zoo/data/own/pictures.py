"""One picture file read: decoded, fitted to a size, as an array of bytes (torch-free)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from zoo.data.own.images_config import Fit
from zoo.errors import ZooError

_GREY, _COLOUR = ("1", "L", "LA"), ("P", "RGB", "RGBA", "CMYK", "YCbCr", "PA")
#: What Pillow raises for files that are no images, cut off, or absurdly large.
_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class UnreadableImage(ZooError):
    """A picture file that cannot be used; the message names it."""

    def __init__(self, message: str) -> None:
        # A worker process hands an error on as its traceback in text; what it said stands at its end.
        super().__init__(message.strip().rpartition(f"{type(self).__name__}: ")[2])


class Header(NamedTuple):
    """size: height, width. grey: it has no colours."""

    size: tuple[int, int]
    grey: bool


def header(path: Path) -> Header:
    """What the first bytes of a picture say of it.

    Raises:
        UnreadableImage: it is none.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if picture.getexif().get(0x0112) in (5, 6, 7, 8):  # taken with the camera on its side
                width, height = height, width
            return Header((height, width), is_grey(picture))
    except _BROKEN as error:
        raise _unreadable(path, error) from None


def read_picture(
    path: Path, *, channels: int, size: tuple[int, int] | None, fit: Fit | None = "crop"
) -> np.ndarray:
    """A picture as uint8 (H, W) or (H, W, 3).

    Args:
        size: height and width; `None`: its own.
        fit: how it is brought to that size; `None`: it must have it.

    Raises:
        UnreadableImage: it is no image that can be read, or not of this size.
    """
    try:
        with Image.open(path) as opened:
            _check_mode(opened, str(path))
            if size is not None and fit is not None:
                opened.draft(None, (size[1], size[0]))  # a JPEG can be decoded small, which is faster
            picture: Image.Image = ImageOps.exif_transpose(opened)
            picture.load()
    except _BROKEN as error:
        raise _unreadable(path, error) from None
    return pixels_of(picture, channels=channels, size=size, fit=fit, what=str(path))


def pixels_of(
    picture: Image.Image, *, channels: int, size: tuple[int, int] | None, fit: Fit | None, what: str
) -> np.ndarray:
    """A decoded picture as uint8 (H, W) or (H, W, 3); arguments as `read_picture`, `what` names it."""
    _check_mode(picture, what)
    picture = picture.convert({1: "L", 3: "RGB"}[channels])
    if size is not None and picture.size != (size[1], size[0]):
        picture = _fitted(picture, size, fit, what)
    return np.asarray(picture)


def is_grey(picture: Image.Image) -> bool:
    """Whether a picture has no colours."""
    return picture.mode in _GREY


def _check_mode(picture: Image.Image, what: str) -> None:
    if picture.mode not in _GREY + _COLOUR:
        raise UnreadableImage(f"{what}: pixels of mode {picture.mode!r} are not read; save 8 bits each")


def _fitted(picture: Image.Image, size: tuple[int, int], fit: Fit | None, what: str) -> Image.Image:
    height, width = size
    bilinear = Image.Resampling.BILINEAR
    if fit == "crop":
        return ImageOps.fit(picture, (width, height), bilinear)
    if fit == "pad":
        return ImageOps.pad(picture, (width, height), bilinear)
    if fit == "stretch":
        return picture.resize((width, height), bilinear)
    raise UnreadableImage(
        f"{what}: the image has {picture.height} x {picture.width} pixels (height x width), the others "
        f"{height} x {width}; `size` brings all to one size"
    )


def _unreadable(path: Path, error: BaseException) -> UnreadableImage:
    what = (
        "an empty file"
        if path.is_file() and path.stat().st_size == 0
        else str(error).replace(str(path), "it")
    )
    return UnreadableImage(f"{path}: this is no image that can be read ({what})")
