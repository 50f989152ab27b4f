"""Read a user's file to predict on, by the data kind the model was trained on.

| kind   | file                                                   | examples in it                     |
|--------|--------------------------------------------------------|------------------------------------|
| image  | png, jpg, ...; npy (H, W), (C, H, W) or (B, C, H, W)   | one; one per leading index         |
| vector | csv, a header is optional; npy (F,) or (B, F)          | one per row                        |
| series | csv of time steps x channels; npy (N, C) or (B, N, C)  | one; one per leading index         |
| events | csv of a time and a mark per row, in order of time;     | one; one per leading index         |
|        | npy (N, 2) or (B, N, 2)                                |                                    |
| ids    | text; or whole numbers split by commas or white space  | one per line that is not empty     |

Nothing is resized, cut or filled in: what does not fit is an error that says what would. A dataset whose
`encode` has a method `read` (people's own tables and images) reads such a file as it read its own.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.kinds import DataKind, Episodes, Events, Ids, Image, Series, Vector

_GREY, _COLOUR = ("1", "L", "LA", "P"), ("RGB", "RGBA")


def read_inputs(
    path: str | Path, inputs: DataKind, *, encode: Callable[[Any], Tensor], text: bool = False
) -> list[Tensor]:
    """The examples in a file as a model wants them: read, encoded (`Splits.encode`) and checked.

    Each is (C, H, W), (F,), (N, C), (N, 3) or (N,); `collate([{"input": x}, ...])` makes a batch of them.

    Raises:
        ZooError: the file cannot be read as this kind, or holds what does not fit it.
    """
    path = Path(path)
    if hasattr(encode, "read"):
        if not path.exists():
            raise ZooError(f"{path}: there is no such file")
        try:
            own: list[Tensor] = encode.read(path)
        except OSError as error:
            raise ZooError(f"{path}: cannot be read: {error.strerror or error}") from None
        for number, x in enumerate(own, start=1):
            _check(x, inputs, f"{path}: example {number}")
        return own
    found = read_examples(path, inputs, text=text)
    encoded = []
    for number, raw in enumerate(found, start=1):
        where = f"{path}: example {number}" if len(found) > 1 else str(path)
        try:
            encoded.append(encode(raw))
        except ZooError as error:
            raise ZooError(f"{where}: {error}") from None
        _check(encoded[-1], inputs, where)
    return encoded


def read_examples(path: str | Path, inputs: DataKind, *, text: bool = False) -> list[Any]:
    """The examples in a file, raw: tensors, or with `text` (for ids) strings.

    Raises:
        ZooError: as `read_inputs`.
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise ZooError(f"{path}: the file is empty; expected {_wanted(inputs)}")
    if isinstance(inputs, Episodes):
        raise ZooError(f"{path}: episodes are not read from files; a model that acts is scored by playing")
    if isinstance(inputs, Ids):
        found: list[Any] = list(_lines(path)) if text else list(_id_rows(path, inputs))
    elif path.suffix.lower() == ".npy":
        found = _array_examples(path, inputs)
    elif isinstance(inputs, Image):
        found = [_picture(path, inputs)]
    elif isinstance(inputs, Series):
        found = [torch.tensor(_number_rows(path, inputs.channels, "channels"))]
    elif isinstance(inputs, Events):
        found = [torch.tensor(_number_rows(path, 2, "a time and a mark"), dtype=torch.float64)]
    else:
        found = list(torch.tensor(_number_rows(path, inputs.features, "features")))
    if not found:
        raise ZooError(f"{path}: there is no example in it; expected {_wanted(inputs)}")
    if not text:
        for x in found:
            _check(x, inputs, str(path), raw=True)
    return found


def _picture(path: Path, inputs: Image) -> Tensor:
    """A picture file as float (C, H, W) in [0, 1]; colour becomes grey, or grey colour, as `inputs` says."""
    from PIL import Image as Pictures

    modes = {1: "L", 3: "RGB"}
    if inputs.channels not in modes:
        raise ZooError(f"{path}: images of {inputs.channels} channels are read from npy files only")
    try:
        with Pictures.open(path) as picture:
            if picture.mode not in _GREY + _COLOUR:
                raise ZooError(f"{path}: pixels of mode {picture.mode!r} are not read; save 8 bits each")
            if picture.size != (inputs.width, inputs.height):
                raise ZooError(
                    f"{path}: the image has {picture.width} x {picture.height} pixels (width x height), "
                    f"expected {inputs.width} x {inputs.height}"
                )
            pixels = np.asarray(picture.convert(modes[inputs.channels]), dtype=np.float32)
    except OSError as error:  # Pillow's own errors are OSErrors
        raise ZooError(f"{path}: this is no image that can be read ({error})") from None
    x = torch.from_numpy(pixels / 255)
    return x[None] if x.ndim == 2 else x.permute(2, 0, 1).contiguous()  # (C, H, W)


def _array_examples(path: Path, inputs: Image | Series | Events | Vector) -> list[Tensor]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ZooError(f"{path}: this is no npy file of plain numbers ({error})") from None
    if array.dtype.kind not in "fiu":
        raise ZooError(f"{path}: expected an array of numbers, got {array.dtype}")
    # Times may be large and far more exact than float32, e.g. seconds since 1970.
    x = torch.from_numpy(array.astype(np.float64 if isinstance(inputs, Events) else np.float32))
    if not x.isfinite().all():
        raise ZooError(f"{path}: a value is nan or infinite; there must be a number everywhere")
    if isinstance(inputs, Image):
        x = x / 255 if array.dtype == np.uint8 else x
        if x.numel() and not (x.min() >= 0 and x.max() <= 1):
            raise ZooError(
                f"{path}: pixels must be uint8, or numbers in [0, 1]; got {x.min():g} to {x.max():g}"
            )
        x = x[None] if x.ndim == 2 else x  # a grey image without its channel
    one = {Image: 3, Series: 2, Events: 2, Vector: 1}[type(inputs)]
    return [x] if x.ndim == one else list(x) if x.ndim == one + 1 else [x]


def _number_rows(path: Path, columns: int, what: str) -> list[list[float]]:
    """The numbers of a CSV; a first row without any number is its header."""
    rows = [(number, cells) for number, cells in enumerate(_csv_rows(path), start=1) if any(cells)]
    if rows and not any(map(_is_number, rows[0][1])):
        rows = rows[1:]
    numbers = []
    for number, cells in rows:
        if len(cells) != columns:
            raise ZooError(f"{path}: row {number} has {len(cells)} columns, expected {columns} ({what})")
        for column, cell in enumerate(cells, start=1):
            if not _is_number(cell) or not math.isfinite(float(cell)):
                raise ZooError(f"{path}: row {number}, column {column}: expected a number, got {cell!r}")
        numbers.append([float(cell) for cell in cells])
    if not numbers:
        raise ZooError(f"{path}: there is no row of numbers; expected {columns} columns ({what})")
    return numbers


def _csv_rows(path: Path) -> Iterator[list[str]]:
    try:
        for row in csv.reader(_text(path).splitlines()):
            yield [cell.strip() for cell in row]
    except csv.Error as error:
        raise ZooError(f"{path}: this is no CSV ({error})") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _id_rows(path: Path, inputs: Ids) -> Iterator[Tensor]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        cells = line.replace(",", " ").split()
        for column, cell in enumerate(cells, start=1):
            if not (cell.isascii() and cell.isdigit() and int(cell) < inputs.vocab):
                raise ZooError(
                    f"{path}: row {number}, column {column}: expected a whole number "
                    f"in 0..{inputs.vocab - 1}, got {cell!r}"
                )
        if cells:
            yield torch.tensor([int(cell) for cell in cells])


def _lines(path: Path) -> Iterator[str]:
    return (line for line in _text(path).splitlines() if line.strip())


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ZooError(f"{path}: this is no UTF-8 text (byte {error.start})") from None


def _check(x: Tensor, inputs: DataKind, where: str, *, raw: bool = False) -> None:
    """Whether it has the shape of an example, before (`raw`) or after it is encoded."""
    shape = tuple(x.shape)
    if isinstance(inputs, Image):
        fits = shape == (inputs.channels, inputs.height, inputs.width)
    elif isinstance(inputs, Vector):
        fits = shape == (inputs.features,)
    elif isinstance(inputs, Series):
        fits = x.ndim == 2 and shape[1] == inputs.channels and 1 <= shape[0] <= inputs.length
        fits = fits and (inputs.ragged or shape[0] == inputs.length)
    elif isinstance(inputs, Events):
        fits = x.ndim == 2 and shape[1] == (2 if raw else 3) and 1 <= shape[0] <= inputs.length
    else:
        fits = x.ndim == 1 and 1 <= shape[0] <= inputs.length
    if not fits:
        raise ZooError(f"{where}: expected {_wanted(inputs)}, got {_sizes(shape)}")


def _sizes(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} of them" if len(shape) == 1 else " x ".join(map(str, shape)) or "a single number"


def _wanted(inputs: DataKind) -> str:
    if isinstance(inputs, Image):
        return f"an image of {inputs.channels} x {inputs.height} x {inputs.width} (channels, height, width)"
    if isinstance(inputs, Vector):
        return f"{inputs.features} numbers per example"
    if isinstance(inputs, Series):
        steps = f"1 to {inputs.length}" if inputs.ragged else str(inputs.length)
        return f"{steps} time steps of {inputs.channels} channels"
    if isinstance(inputs, Events):
        return f"1 to {inputs.length} events, each a time and a mark"
    return f"1 to {inputs.length} symbols per line"
