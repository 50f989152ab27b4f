"""Marked event sequences: checked, cut into windows, each event asked for its successor.

B batch, N events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.batch import Batch, Example
from zoo.errors import ZooError
from zoo.kinds import Events

#: Times and marks of one sequence, each (n,).
EventSequence = tuple[np.ndarray, np.ndarray]


class BadEvents(ZooError, ValueError):
    """Times or marks that make no sequence of events: which, and what would be right."""


class EventWindows:
    """Windows of event sequences: input (N, 3) as in `Events`, target (N, 2) as in `NextEvent`.

    A window is up to `kind.length` events, each asked for the one after it; what lies before it is not seen.
    Where the kind is not ragged, what is left of a sequence and fills no window is left out.

    Args:
        sequences: times and marks of each; times are float64, in the unit of the kind.
        stride: events from the start of one window to that of the next; by default `kind.length`: each event
            but the first is asked for once.

    Raises:
        ValueError: a stride below 1, or longer than a window: events between would be lost.
        BadEvents: a sequence is empty, its times go backwards or are no numbers, or a mark is none of the
            kind's; or no sequence is long enough for a window.
    """

    def __init__(
        self, sequences: Sequence[EventSequence], kind: Events, *, stride: int | None = None
    ) -> None:
        stride = kind.length if stride is None else stride
        if not 1 <= stride <= kind.length:
            raise ValueError(f"stride must lie within 1..{kind.length} (length), got {stride}")
        checked = [
            check_events(times, marks, kind, where=f"sequence {number}")
            for number, (times, marks) in enumerate(sequences)
        ]
        starts, sizes, first = [], [], 0
        for times, _ in checked:
            asked = len(times) - 1
            at = np.arange(0, asked, stride)
            size = np.minimum(asked - at, kind.length)
            kept = size >= (1 if kind.ragged else kind.length)
            starts.append(first + at[kept])
            sizes.append(size[kept])
            first += len(times)
        if not sum(map(len, starts)):
            least = 2 if kind.ragged else kind.length + 1
            raise BadEvents(f"no sequence has the {least} events that a window needs; lower `length`")
        self.kind = kind
        self.times = np.concatenate([times for times, _ in checked])
        self.marks = np.concatenate([marks for _, marks in checked])
        self.starts, self.sizes = np.concatenate(starts), np.concatenate(sizes)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        batch = self.__getitems__([index])
        return {name: batch[name][0] for name in ("input", "target")}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: input (B, N, 3), target (B, N, 2), and where windows are ragged their length (B,)."""
        chosen = np.asarray(indices)
        start, size = self.starts[chosen, None], self.sizes[chosen, None]
        steps = np.arange(size.max() + 1)
        at = start + np.minimum(steps, size)  # (B, N + 1): beyond its end a window stands still
        events = encode(self.times[at], self.marks[at], period=self.kind.period)  # (B, N + 1, 3)
        real = torch.from_numpy(steps[:-1] < size)[..., None]  # (B, N, 1)
        batch: Batch = {
            "input": events[:, :-1].where(real, 0.0),
            "target": events[:, 1:, 1:].where(real, torch.nan),  # gap and mark
        }
        if self.kind.ragged:
            batch["length"] = torch.from_numpy(size[:, 0])
        return batch


class EncodeEvents:
    """Times and marks as they stand in a file, (N, 2) -> the input of a window, float32 (N, 3)."""

    def __init__(self, kind: Events) -> None:
        self.kind = kind

    def __call__(self, raw: Any) -> Tensor:
        """Rows of a time and a mark.

        Raises:
            BadEvents: there is no row, times go backwards or are no numbers, or a mark is none of the kind's.
        """
        rows = np.asarray(raw, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != 2:
            raise BadEvents(f"expected rows of a time and a mark, got shape {rows.shape}")
        times, marks = check_events(rows[:, 0], rows[:, 1], self.kind)
        return encode(times[None], marks[None], period=self.kind.period)[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: a time and a mark become time (since the first, or in the period), gap, mark."""
        return {"kind": "events", "marks": self.kind.marks, "period": self.kind.period}


def check_events(times: Any, marks: Any, kind: Events, *, where: str = "") -> EventSequence:
    """Times as float64 and marks as int64.

    Raises:
        BadEvents: as `EventWindows`; events are counted from 1.
    """
    where = f"{where}: " if where else ""
    times, marks = np.asarray(times, dtype=np.float64), np.asarray(marks)
    if times.ndim != 1 or times.shape != marks.shape:
        raise BadEvents(
            f"{where}times {times.shape} and marks {marks.shape} must be two equally long columns"
        )
    if not len(times):
        raise BadEvents(f"{where}there is no event in it")
    if not np.isfinite(times).all():
        at = int(np.flatnonzero(~np.isfinite(times))[0])
        raise BadEvents(f"{where}event {at + 1} has the time {times[at]}; times must be finite numbers")
    backwards = np.flatnonzero(np.diff(times) < 0)
    if len(backwards):
        at = int(backwards[0]) + 1
        raise BadEvents(
            f"{where}event {at + 1} is at time {times[at]:.10g}, before event {at} at {times[at - 1]:.10g}; "
            "times must not go backwards: sort the events by time"
        )
    wrong = ~((marks >= 0) & (marks < kind.marks) & (marks == np.floor(marks)))  # NaN is wrong too
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise BadEvents(
            f"{where}event {at + 1} has the mark {marks[at]}; marks are whole numbers in 0..{kind.marks - 1}"
        )
    return times, marks.astype(np.int64)


def encode(times: np.ndarray, marks: np.ndarray, *, period: float | None) -> Tensor:
    """Times and marks (B, N) -> float32 (B, N, 3): time, gap, mark.

    Time counts from the first event, or from the start of its period (its day), where there is one: as a
    difference of float64 it is exact enough, however late the first event is.
    """
    first = times[:, :1]
    origin = first if period is None else first - first % period
    gaps = np.diff(times, axis=1, prepend=first)
    return torch.from_numpy(np.stack([times - origin, gaps, marks], axis=-1)).float()
