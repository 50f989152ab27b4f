"""How much memory a piece of work needs at most."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> bool:
    """Forget the peak so far; False where the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    gc.collect()
    with suppress(OSError, AttributeError):  # what lies freed in the process would count, or be used unseen
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _RESET.write_text("5")  # Linux: the peak is that from now on
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int:
    """The most memory at a time: of tensors on a GPU, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return _of_process("VmHWM")
    except (OSError, StopIteration):
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_of(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `work` needs at most beyond those in use before it; `None` where the system cannot tell."""
    gc.collect()
    if not reset_peak(device):
        return None
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else _of_process("VmRSS")
    work()
    return max(0, peak_bytes(device) - before)


def _of_process(entry: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) * 1024
