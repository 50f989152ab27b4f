"""What benchmarks share: a steady allocator, the cost of one more token, tables as the README shows them."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.bench import in_turns, laps

Row = dict[str, Any]
#: Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Let what is freed stay with this process, where glibc is its allocator.

    Otherwise large tensors are given back and taken anew at every step, and the page faults of it, which
    depend on sizes and on what ran before, can take longer than the arithmetic. For times only, never where
    peak memory is read.
    """
    with suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(_MMAP_MAX, 0)
        glibc.mallopt(_TOP_PAD, 2**26)
        glibc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def show_machine() -> None:
    """Print how fast this machine moves and multiplies at the moment, which other tenants may change.

    What is bound by memory suffers when others use it, products much less: ratios between the two move.
    """
    source, square = torch.zeros(2**24), torch.rand(1024, 1024)
    copied = torch.empty_like(source)
    times = in_turns({"copy": partial(copied.copy_, source), "product": partial(torch.mm, square, square)}, 5)
    rates = 2 * source.nbytes / times["copy"].wall / 1e6, 2 * 1024**3 / times["product"].wall / 1e6
    print(f"\nThis machine, now: copies at {rates[0]:.1f} GB/s (read and written), {rates[1]:.0f} GFLOP/s.")


#: A step, and what it starts from.
Step = tuple[Callable[[], object], Iterable[Tensor | None]]


@torch.inference_mode()
def one_more_token(steps: Mapping[int, Mapping[str, Step]], repeats: int) -> list[Row]:
    """What a step costs, in `repeats` turns or more: by the tokens seen before, by layer.

    A layer's lengths take turns, so that ups and downs of the machine meet all alike, and the second of two
    steps counts: the other lengths' states have pushed its own out of the CPU's cache.
    """
    rows: list[Row] = []
    for name in next(iter(steps.values())):
        turns = laps({str(seen): partial(_warmed, layers[name][0]) for seen, layers in steps.items()})
        turn, end = 0, time.perf_counter() + _LEAST_SECONDS
        while turn < repeats or time.perf_counter() < end:
            times, turn = next(turns), turn + 1
        rows += [
            {
                "layer": name,
                "seen": seen,
                "wall_us": round(1e3 * times[str(seen)][_SECOND].wall, 1),
                "state_kib": round(sum(p.nbytes for p in layers[name][1] if p is not None) / 1024, 2),
            }
            for seen, layers in steps.items()
        ]
    return rows


_SECOND = "second"
#: A hundred turns of 50 µs would all fall into one bad moment of the machine.
_LEAST_SECONDS = 2.0


def _warmed(step: Callable[[], object]) -> Iterator[str]:
    step()
    yield "first"
    step()
    yield _SECOND


def resident(which: str) -> float:
    """MiB of this process now (VmRSS) or at most (VmHWM), as Linux tells it.

    What getrusage tells counts the process that started this one as well.
    """
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def decoded(row: Row) -> str:
    """A cell of the table of `one_more_token`."""
    return f"{row['wall_us']:,} µs, {row['state_kib']:,} KiB"


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """Rows as a table, a line for each; all have the keys of the first, or fewer."""
    return [list(rows[0]), *([str(row.get(key, "")) for key in rows[0]] for row in rows)]


def pivot(rows: Sequence[Row], by: str, column: str, cell: Callable[[Row], str]) -> list[list[str]]:
    """Rows as a table: a line for each `by`, a column for each `column`."""
    names, columns = (list(dict.fromkeys(row[key] for row in rows)) for key in (by, column))
    cells = {(row[by], row[column]): cell(row) for row in rows}
    body = [[str(name), *(cells[name, column] for column in columns)] for name in names]
    return [[by, *(f"{value:,}" if isinstance(value, int) else str(value) for value in columns)], *body]


def show(title: str, table: Sequence[Sequence[str]]) -> None:
    """Print a table as Markdown; its first line is the header."""
    print(f"\n{title}\n")
    for index, line in enumerate(table):
        print("| " + " | ".join(line) + " |")
        if not index:
            print("|" + " --- |" * len(line), flush=True)
