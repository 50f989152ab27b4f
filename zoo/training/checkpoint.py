"""Checkpoint files: written whole or not at all, read as plain data only.

A checkpoint is a file from anywhere: `weights_only=True` refuses every pickle that would run code.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ZooError
from zoo.runs import replacing, writing
from zoo.training.lightning import CheckpointIO

#: What torch.load raises for a file that is cut short or no checkpoint at all.
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError)


def read_checkpoint(path: str | Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """The plain dictionary in a checkpoint file.

    Raises:
        ZooError: no such file, a damaged one, or one that holds more than plain data; nothing is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"there is no checkpoint {str(path)!r}")
    try:
        with warnings.catch_warnings():  # torch's remarks on old formats, and its advice to trust the file
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        raise ZooError(
            f"checkpoint {str(path)!r} is refused: it is damaged or holds more than tensors and plain data, "
            "and loading such a file could run code; nothing was executed"
        ) from None
    except _DAMAGE as error:
        raise ZooError(f"checkpoint {str(path)!r} is damaged or incomplete ({_first_line(error)})") from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ZooError(f"{str(path)!r} is not a checkpoint of a training run: it has no weights")
    return content


def model_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the model in a checkpoint, averaged ones where the run averaged them."""
    prefix = "model."
    return {
        name.removeprefix(prefix): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write beside `path`, then rename: a kill at any moment leaves the old file or the new one."""
    with writing(path.parent), replacing(path) as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:  # torch's, on closing an archive that was left half written
            cause = error.__context__  # the disk would not take it, or Ctrl-C came
            ours = isinstance(cause, OSError) or not isinstance(cause, Exception)
            raise (cause if cause is not None and ours else error) from None


class PlainCheckpointIO(CheckpointIO):
    """How Lightning reads and writes its checkpoints here."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """As `write_checkpoint`."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Plain data only, whatever `weights_only` says."""
        return read_checkpoint(path, map_location=map_location)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
