"""Simple answers that every model must beat: `measure(catalogue, dataset) -> list[Score]`."""

from zoo.baselines.measure import Score, measure

__all__ = ["Score", "measure"]
