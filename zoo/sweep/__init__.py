"""Many points of recipes: `zoo sweep`. Torch-free but for the workers that train."""

from zoo.sweep.arguments import combine, parse_axes
from zoo.sweep.points import Point, check_points
from zoo.sweep.pool import ending_in_order
from zoo.sweep.sampling import SamplerName, Search, Trial, make_search, reached
from zoo.sweep.settings import Settings, find_sweep, read_points, read_sweep
from zoo.sweep.sweep import RECORD, Sweep, make_sweep

__all__ = [
    "RECORD",
    "Point",
    "SamplerName",
    "Search",
    "Settings",
    "Sweep",
    "Trial",
    "check_points",
    "combine",
    "ending_in_order",
    "find_sweep",
    "make_search",
    "make_sweep",
    "parse_axes",
    "reached",
    "read_points",
    "read_sweep",
]
