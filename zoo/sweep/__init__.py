"""Many points of one recipe: `zoo sweep`. Torch-free but for the workers that train."""

from zoo.sweep.arguments import combine, parse_axes, read_rows
from zoo.sweep.points import Point, check_points
from zoo.sweep.sampling import Search, Trial, make_search, reached
from zoo.sweep.sweep import RECORD, Sweep, make_sweep

__all__ = [
    "RECORD",
    "Point",
    "Search",
    "Sweep",
    "Trial",
    "check_points",
    "combine",
    "make_search",
    "make_sweep",
    "parse_axes",
    "reached",
    "read_rows",
]
