"""Many points of one recipe: `zoo sweep`. Torch-free but for the workers that train."""

from zoo.sweep.arguments import combine, parse_axes, read_rows
from zoo.sweep.points import Point, check_points
from zoo.sweep.sweep import RECORD, Sweep, make_sweep

__all__ = ["RECORD", "Point", "Sweep", "check_points", "combine", "make_sweep", "parse_axes", "read_rows"]
