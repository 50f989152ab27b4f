"""Fetched series to forecast: a house in Belgium, one in France, electricity, the air of Beijing."""

from __future__ import annotations

import csv
import io
import itertools
import lzma
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from zoo.data.archive import readable
from zoo.data.fetch import Fetched, atomic, fetch, locked
from zoo.data.forecast import split_by_time
from zoo.data.origins import APPLIANCE_ENERGY, BEIJING_PM, ELECTRICITY, HOUSEHOLD_POWER
from zoo.data.split import Splits
from zoo.data.targets_config import (
    ApplianceEnergyConfig,
    BeijingPmConfig,
    ElectricityConfig,
    HouseholdPowerConfig,
    WindowsConfig,
)
from zoo.errors import ZooError
from zoo.sources import Files


def load_appliance_energy(config: ApplianceEnergyConfig) -> Splits:
    """19735 times ten minutes of a house, float (N, 26): power, temperatures, humidities, weather."""
    return _load(APPLIANCE_ENERGY, config, config.names)


def load_electricity(config: ElectricityConfig) -> Splits:
    """26304 hours, float (N, 1): kilowatt that a client used, the mean of 321."""
    return _load(ELECTRICITY, config, ("y",))


def load_beijing_pm(config: BeijingPmConfig) -> Splits:
    """43824 hours, float (N, 7): fine dust (of 2067 hours not known), dew point, temperature, pressure, wind,
    snow and rain.
    """
    return _load(BEIJING_PM, config, config.names)


def load_household_power(config: HouseholdPowerConfig) -> Splits:
    """34589 hours of a house, float (N, 7): means of the minutes that were measured; 421 hours have none.

    The two million minutes are read once; their hourly means are kept beside them in the cache.
    """
    fetched = fetch(HOUSEHOLD_POWER)
    (file,) = HOUSEHOLD_POWER.sha256
    means = fetched.folder / f"hourly-{HOUSEHOLD_POWER.sha256[file][:16]}.npy"
    with locked(f"{HOUSEHOLD_POWER.folder}/hourly"):
        if not means.is_file():
            with atomic(means) as path, open(path, "wb") as out:
                np.save(out, hourly(fetched[file], config.names))
    return _split(np.load(means), config, fetched)


def hourly(path: Path, names: Sequence[str]) -> np.ndarray:
    """The mean of each clock hour, float64 (hours, columns), of a CSV with a row per minute."""
    means = []
    with _rows(path, ("Date", "Time", *names)) as rows:
        for _, minutes in itertools.groupby(rows, key=lambda row: (row[0], row[1][:2])):
            table = np.array([[_number(cell) for cell in cells] for _, _, *cells in minutes])
            known = ~np.isnan(table)
            count = known.sum(axis=0)
            means.append(np.where(count > 0, table.sum(axis=0, where=known) / np.maximum(count, 1), np.nan))
    return np.stack(means)


def read_columns(path: Path, names: Sequence[str]) -> np.ndarray:
    """Columns of a CSV (`.xz` too) as float64 (rows, columns); NaN where it says NA, ? or nothing.

    Raises:
        ZooError: it cannot be read, lacks a column, or holds something else than numbers.
    """
    with _rows(path, names) as rows:
        return np.array([[_number(cell) for cell in row] for row in rows])


def _load(files: Files, config: WindowsConfig, columns: Sequence[str]) -> Splits:
    fetched = fetch(files)
    (file,) = files.sha256
    return _split(read_columns(fetched[file], columns), config, fetched)


def _split(values: np.ndarray, config: WindowsConfig, fetched: Fetched) -> Splits:
    return replace(split_by_time(torch.from_numpy(values), config), source=fetched.record)


@contextmanager
def _rows(path: Path, names: Sequence[str]) -> Iterator[Iterable[list[str]]]:
    """The cells of these columns, row by row."""
    with readable(path), (lzma.open if path.suffix == ".xz" else open)(path, "rb") as binary:
        reader = csv.reader(io.TextIOWrapper(binary, encoding="utf-8", newline=""))  # type: ignore[arg-type]
        header = next(reader, [])
        if missing := [name for name in names if name not in header]:
            raise ZooError(f"{path}: there is no column {', '.join(missing)}; there is: {', '.join(header)}")
        at = [header.index(name) for name in names]
        try:
            yield ([row[i] for i in at] for row in reader)
        except (ValueError, IndexError) as error:
            raise ZooError(f"{path}: line {reader.line_num}: {error}") from None


def _number(cell: str) -> float:
    return math.nan if cell.strip() in ("", "?", "NA") else float(cell)
