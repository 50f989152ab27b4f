"""How long a step takes and how much memory the run needs at most: for `zoo compare`."""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from zoo.training.lightning import pl

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Pace(pl.Callback):
    """Times every training step. The median counts; evaluations and saves lie between steps."""

    def __init__(self) -> None:
        self._began = 0.0
        self._seconds: list[float] = []

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        reset_peak(trainer.strategy.root_device)

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._began = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._seconds.append(time.perf_counter() - self._began)

    @property
    def seconds(self) -> float | None:
        """Of one batch; `None` before the first. On a GPU, what it takes to hand out the work of a step."""
        return statistics.median(self._seconds) if self._seconds else None


def reset_peak(device: torch.device) -> None:
    """Forget the peak so far, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        _RESET.write_text("5")  # Linux: the peak is that from now on


def peak_bytes(device: torch.device) -> int:
    """The most memory at a time: of tensors on a GPU, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
