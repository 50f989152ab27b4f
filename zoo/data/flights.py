"""Bundled events: when did each plane leave New York in 2013, and from which airport?"""

from __future__ import annotations

import numpy as np

from zoo.data.bundled import read_arrays
from zoo.data.events import EncodeEvents, EventSequence, EventWindows
from zoo.data.events_config import NycFlightsConfig
from zoo.data.split import Splits

#: The first hours of the year of validation and of test: 70 % and 80 % of the days lie before.
VALIDATION, TEST = 24 * 255, 24 * 292


def load_nyc_flights(config: NycFlightsConfig) -> Splits:
    """39762 departures of 120 planes; times in hours since midnight of the first day, mark: the airport.

    Cut by time: train is the year up to 12 September, validation the next 37 days, test the rest. No window
    reaches from one part into another.
    """
    arrays = read_arrays("nyc_flights.npz")
    counts = arrays["count"].astype(np.int64)
    ends = counts.cumsum()
    origins = np.split(arrays["origin"], ends[:-1])
    gaps = np.split(arrays["gap"].astype(np.int64), (counts - 1).cumsum()[:-1])
    minutes = [
        first + np.concatenate([[0], gap.cumsum()]) for first, gap in zip(arrays["first"], gaps, strict=True)
    ]
    planes = [(m / 60, origin) for m, origin in zip(minutes, origins, strict=True)]
    inputs, _ = config.kinds()

    def part(low: float, high: float, stride: int | None = None) -> EventWindows:
        cut = [_between(plane, low, high) for plane in planes]
        return EventWindows([plane for plane in cut if len(plane[0]) > 1], inputs, stride=stride)

    return Splits(
        train=part(-np.inf, VALIDATION, config.stride),
        val=part(VALIDATION, TEST),
        test=part(TEST, np.inf),
        encode=EncodeEvents(inputs),
    )


def _between(plane: EventSequence, low: float, high: float) -> EventSequence:
    times, marks = plane
    kept = (times >= low) & (times < high)
    return times[kept], marks[kept]
