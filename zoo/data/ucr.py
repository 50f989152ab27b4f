"""Sets of the UCR/UEA archive of time series classification, fetched by name.

One dataset `ucr` with the parameter `problem`, not a hundred datasets: names of components have one slash
(`plugin/name`), `zoo list datasets` stays readable, and a new set is a row of ucr.csv.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zoo.data.batch import pad
from zoo.data.fetch import fetch
from zoo.data.fetched_config import UcrConfig, ucr_sets
from zoo.data.formats import filled, read_ts, read_tsv, valid_length
from zoo.data.parts import hold_out
from zoo.data.scale import Standardise
from zoo.data.split import Splits, TensorSplit

#: The share of train that becomes validation, by class.
VALIDATION = 0.2


def load_ucr(config: UcrConfig) -> Splits:
    """One set: input float (N, C), class in the order of its labels; each channel standardised on train.

    The official test split. A fifth of each class of train (at least one of two) is for validation; where
    no class has two examples (Fungi), validation is train. Values that are missing within a series are
    filled on a line between their neighbours.
    """
    found = ucr_sets()[config.problem]
    fetched = fetch(config.files())
    read = read_ts if found.format == "ts" else read_tsv
    examples = [read(fetched[file]) for file in found.file_names]
    labels = [np.array([found.labels.index(label) for _, label in part]) for part in examples]
    raw = [[_clean(x, ragged=found.ragged) for x, _ in part] for part in examples]
    held = hold_out(labels[0], fraction=VALIDATION, seed=0)
    train, val = np.flatnonzero(~held), np.flatnonzero(held)
    if config.validation == "train" or len(val) == 0:
        train = val = np.arange(len(held))
    encode = Standardise.fit(torch.cat([raw[0][i] for i in train]))

    def split(series: Sequence[Tensor], classes: np.ndarray) -> TensorSplit:
        lengths = torch.tensor([len(x) for x in series]) if found.ragged else None
        return TensorSplit(
            pad([encode(x) for x in series], value=0), torch.from_numpy(classes), lengths=lengths
        )

    return Splits(
        train=split([raw[0][i] for i in train], labels[0][train]),
        val=split([raw[0][i] for i in val], labels[0][val]),
        test=split(raw[1], labels[1]),
        encode=encode,
        source=fetched.record,
    )


def _clean(x: np.ndarray, *, ragged: bool) -> Tensor:
    """A series without padding and missing values: float64 (N, C)."""
    return torch.from_numpy(filled(x[: valid_length(x)] if ragged else x))
