"""What architectures cost beside softmax attention as sequences grow: `zoo bench`."""

from zoo.bench.measure import Settings, bench
from zoo.bench.report import BASELINE, QUANTITIES, Bench, Cell
from zoo.bench.subjects import Subject, baseline, find_subjects
from zoo.bench.turns import Time, in_turns, laps

__all__ = [
    "BASELINE",
    "QUANTITIES",
    "Bench",
    "Cell",
    "Settings",
    "Subject",
    "Time",
    "baseline",
    "bench",
    "find_subjects",
    "in_turns",
    "laps",
]
