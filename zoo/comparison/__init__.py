"""Runs side by side, over seeds: `zoo compare`."""

from zoo.comparison.collect import Collection, Group, collect, find_runs
from zoo.comparison.page import page
from zoo.comparison.table import Comparison, Row, compare

__all__ = ["Collection", "Comparison", "Group", "Row", "collect", "compare", "find_runs", "page"]
