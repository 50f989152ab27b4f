"""Simple answers that every model must beat: `measure(catalogue, dataset) -> list[Score]`."""

from zoo.baselines.measure import Score, measure
from zoo.baselines.stored import baselines_of

__all__ = ["Score", "baselines_of", "measure"]
