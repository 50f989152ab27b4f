"""Runs side by side, over seeds: `zoo compare`."""

from zoo.comparison.collect import Collection, Group, collect, collect_each, find_runs
from zoo.comparison.page import page
from zoo.comparison.table import Comparison, Row, compare, read_comparisons

__all__ = [
    "Collection",
    "Comparison",
    "Group",
    "Row",
    "collect",
    "collect_each",
    "compare",
    "find_runs",
    "page",
    "read_comparisons",
]
