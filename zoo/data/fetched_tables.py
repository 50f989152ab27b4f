"""Fetched tables: the strength of concrete (a value), the phases of high-entropy alloys (classes)."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from zoo.data.fetch import fetch
from zoo.data.fetched_config import ConcreteConfig, HeaPhaseConfig
from zoo.data.formats import read_xlsx
from zoo.data.origins import CONCRETE, HEA_PHASE
from zoo.data.parts import by_group
from zoo.data.scale import Standardise
from zoo.data.split import Splits, TensorSplit

VALIDATION, TEST = 0.1, 0.2


def load_concrete(config: ConcreteConfig) -> Splits:
    """1030 samples, input float (8,): seven ingredients and the age; target float (1,): strength.

    The target is standardised, as that of `diabetes`; `decode` gives MPa. Rows that repeat (25 do) lie in
    one part.
    """
    fetched = fetch(CONCRETE)
    table = read_xlsx(fetched["Concrete_Data.xlsx"])  # (1030, 9)
    group = table[:, :7] if config.split == "grouped" else table
    part_of = by_group([tuple(row) for row in group], val=VALIDATION, test=TEST, seed=config.seed)
    raw, targets = torch.from_numpy(table[:, :8]), torch.from_numpy(table[:, 8:])
    fitted = torch.from_numpy(part_of == 0)
    encode, scale = Standardise.fit(raw[fitted]), Standardise.fit(targets[fitted])
    train, val, test = _parts(encode(raw), scale(targets), part_of)
    return Splits(train=train, val=val, test=test, encode=encode, decode=scale.inverse, source=fetched.record)


def load_hea_phase(config: HeaPhaseConfig) -> Splits:
    """11252 alloys, input float (77,), class: the phases that form.

    Features: the number of elements, 62 fractions of elements, 14 descriptors; each standardised on train.
    Five values of the descriptor Geo are infinite in the source and become the mean of train.
    """
    fetched = fetch(HEA_PHASE)
    with open(fetched["dataset11252_79.csv"], encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Phase"] in config.names]
    features = [name for name in rows[0] if name not in ("", "index", "Phase")]
    elements = features[1:63]
    table = np.array([[float(row[name]) for name in features] for row in rows])
    table[~np.isfinite(table)] = np.nan
    groups: Sequence[Hashable] = range(len(rows))
    if config.split == "grouped":
        groups = [tuple(name for name in elements if float(row[name]) > 0) for row in rows]
    part_of = by_group(groups, val=VALIDATION, test=TEST, seed=config.seed)
    means = np.nanmean(table[part_of == 0], axis=0)
    raw = torch.from_numpy(np.where(np.isnan(table), means, table))
    encode = Standardise.fit(raw[torch.from_numpy(part_of == 0)])
    labels = torch.tensor([config.names.index(row["Phase"]) for row in rows])
    train, val, test = _parts(encode(raw), labels, part_of)
    return Splits(train=train, val=val, test=test, encode=encode, source=fetched.record)


def _parts(inputs: Tensor, targets: Tensor, part_of: np.ndarray) -> tuple[TensorSplit, ...]:
    """Train, validation, test."""
    chosen = [torch.from_numpy(part_of == part) for part in range(3)]
    return tuple(TensorSplit(inputs[at], targets[at]) for at in chosen)
