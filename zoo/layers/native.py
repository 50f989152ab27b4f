"""Loops in C beside a plugin's Python, compiled by the machine's own compiler when first wanted.

A scan over tokens, or many small products with little work between them, spends its time on what tensor
operations write to memory and read again; in a loop in C it stays in the caches of a CPU. Such a source is
plain C, without headers of Python or torch (those beside this file have vectors, and products that stay in
the cache), and never the only way to an answer: where there is no compiler, or `ZOO_KERNELS=0` is set, tensor
operations compute the same.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from zoo.sources import cache_folder

#: What the compiler may use, by what torch finds on this machine; anything else is the compiler's default.
INSTRUCTIONS = {
    "AVX512": ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}
#: `omp simd` alone needs no library; a NaN or an infinity must stay one, hence no -ffast-math.
OPTIONS = ("-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp-simd", "-fPIC", "-shared")
#: Where headers are that a source may include, besides those that lie beside it.
HEADERS = Path(__file__).parent
#: Numbers that a thread reads or writes at least: waking one takes as long as that.
PER_THREAD = 2**19
#: The C name of the numbers, `REAL` in a source.
REALS = {torch.float32: "float", torch.float64: "double"}
NEEDED = "needs a C compiler (cc, gcc, clang or $CC) and ZOO_KERNELS unset"


class Kernels:
    """The functions of one compiled source.

    Each takes the first and the last row (exclusive) that it computes, as int64_t, then its arguments:
    int64_t for whole numbers, pointers for tensors (NULL for `None`). Rows must not depend on each other:
    threads share them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def run(self, name: str, rows: int, *arguments: Tensor | int | None) -> None:
        """Call the function for all rows, on at most as many threads as torch uses.

        Tensors must be contiguous and on CPU: what is written into them is seen by nobody else.

        Raises:
            ValueError: a tensor that is not.
        """
        function = getattr(self._library, name)
        given = [_in_c(a) for a in arguments]
        numbers = sum(a.numel() for a in arguments if isinstance(a, Tensor))
        parts = max(1, min(torch.get_num_threads(), rows, numbers // PER_THREAD))
        bounds = [ctypes.c_int64(rows * i // parts) for i in range(parts + 1)]
        if parts == 1:
            function(*bounds, *given)
            return
        calls = [_workers().submit(function, bounds[i], bounds[i + 1], *given) for i in range(1, parts)]
        function(bounds[0], bounds[1], *given)
        for call in calls:
            call.result()


def kernels(source: Path, dtype: torch.dtype) -> Kernels | None:
    """The functions of a C file for numbers of this type, or `None` where they cannot be had.

    They are compiled once (a second or two) and kept in the cache folder. A compiler that fails is told
    once, as a warning.
    """
    if dtype not in REALS or os.environ.get("ZOO_KERNELS", "1") == "0":
        return None
    return _compiled(source, REALS[dtype])


def obstacle(source: Path, x: Tensor, dtype: torch.dtype | None = None, *, graphs: bool = False) -> str:
    """Why the functions of a C file cannot compute on tensors like x, "needs ..."; empty where they can.

    dtype: of the numbers, that of x if not given. graphs: whether `torch.compile` may capture what calls
    them, which takes custom operators throughout; an exported graph never holds them.
    """
    if x.device.type != "cpu":
        return f"needs tensors on CPU, these are on {x.device.type}"
    if torch.compiler.is_exporting() or (torch.compiler.is_compiling() and not graphs):
        return "needs code that is not captured as a graph"
    return "" if _found(source, x.dtype if dtype is None else dtype) else NEEDED


def loops(source: Path, dtype: torch.dtype) -> Kernels:
    """The functions of a C file for numbers of this type, where `obstacle` found none.

    Raises:
        RuntimeError: they cannot be had after all, as by a compiled graph that moved to another machine.
    """
    found = kernels(source, dtype)
    if found is None:
        raise RuntimeError(f"{source.name} {NEEDED}, and numbers in float32 or float64, not {dtype}")
    return found


@torch.compiler.assume_constant_result
def _found(source: Path, dtype: torch.dtype) -> bool:
    return kernels(source, dtype) is not None


@functools.cache
def _compiled(source: Path, real: str) -> Kernels | None:
    compiler = _compiler()
    if compiler is None:
        return None
    options = (*OPTIONS, *INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), ()), f"-DREAL={real}")
    told = " ".join((compiler, *options, sys.platform)).encode()
    headers = (*sorted(HEADERS.glob("*.h")), *sorted(source.parent.glob("*.h")))
    key = hashlib.sha256(b"".join(file.read_bytes() for file in (source, *headers)) + told)
    library = cache_folder() / "kernels" / f"{source.stem}-{real}-{key.hexdigest()[:16]}.so"
    try:
        if not library.exists():
            _compile([compiler, *options, f"-I{HEADERS}"], source, library)
        return Kernels(ctypes.CDLL(str(library)))
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        warnings.warn(
            f"{source.name} cannot be compiled with {compiler}; tensor operations compute the same, slower "
            f"(ZOO_KERNELS=0 does not try): {said.strip()[-500:]}",
            stacklevel=2,
        )
        return None


def _compile(command: list[str], source: Path, library: Path) -> None:
    """Whole or not at all, also when several processes compile at once."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        arguments = [*command, "-o", str(made), str(source), "-lm"]
        subprocess.run(arguments, check=True, capture_output=True, text=True)
        made.replace(library)


def _compiler() -> str | None:
    """`$CC`, or the first usual one that is there; none on Windows, whose compilers take other options."""
    if sys.platform == "win32":
        return None
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _in_c(argument: Tensor | int | None) -> ctypes.c_int64 | ctypes.c_void_p:
    if argument is None:
        return ctypes.c_void_p()
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if argument.device.type != "cpu" or not argument.is_contiguous():
        raise ValueError(
            f"a kernel takes contiguous tensors on CPU, got {tuple(argument.shape)} "
            f"with strides {argument.stride()} on {argument.device}"
        )
    return ctypes.c_void_p(argument.data_ptr())


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="zoo-kernels")


if hasattr(os, "register_at_fork"):  # a forked process has no threads but its own
    os.register_at_fork(after_in_child=_workers.cache_clear)
