"""`core/table`: a user's table as vectors, standardised and encoded as its train split says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.own.facts import existing, record
from zoo.data.own.table_columns import Encoder, encode, numbers
from zoo.data.own.table_config import TableConfig
from zoo.data.own.table_file import read_table
from zoo.data.own.table_study import Study, Target, identifier, study
from zoo.data.split import Splits, TensorSplit
from zoo.kinds import Multi


class RowEncoder:
    """Rows of a file with the same columns -> inputs; the columns may stand in any order, with others."""

    def __init__(self, encoders: Sequence[Encoder], *, delimiter: str | None, encoding: str) -> None:
        self.encoders = encoders
        self.delimiter = delimiter
        self.encoding = encoding

    def read(self, path: Path) -> list[Tensor]:
        """The rows of a file, encoded: float (F,) each."""
        table = read_table(path, delimiter=self.delimiter, encoding=self.encoding)
        return list(torch.from_numpy(encode(table, self.encoders)))

    def __call__(self, raw: Any) -> Tensor:
        """Features that are encoded already, float (F,)."""
        return torch.as_tensor(raw, dtype=torch.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: how each column is encoded, in the order of the features."""
        return {"kind": "row", "columns": [dict(encoder) for encoder in self.encoders]}


class TargetScale:
    """Outputs (B, K) back in natural units: values are scaled, classes stay as they are."""

    def __init__(self, targets: Sequence[Target]) -> None:
        mean, deviation = [], []
        for target in targets:
            width = len(target.names) or 1
            mean += [target.mean] * width
            deviation += [target.deviation] * width
        self.mean, self.deviation = torch.tensor(mean), torch.tensor(deviation)

    def __call__(self, outputs: Tensor) -> Tensor:
        return outputs * self.deviation + self.mean

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `outputs * deviation + mean` are natural units."""
        return {"kind": "standardise", "mean": self.mean.tolist(), "deviation": self.deviation.tolist()}


def load_table(config: TableConfig) -> Splits:
    """Rows, input float (F,); target a class, float (K,) values, or a dict of both.

    Values are standardised on train, NaN where they are missing; `decode` gives natural units.
    """
    path = existing(config.path, folder=False)
    found = study(read_table(path, delimiter=config.delimiter, encoding=config.encoding), config)
    return splits_of(
        found,
        read=RowEncoder(found.encoders, delimiter=config.delimiter, encoding=config.encoding),
        source=record([path]),
    )


def splits_of(found: Study, *, read: RowEncoder, source: dict[str, Any]) -> Splits:
    """A table that was looked at, as splits."""
    inputs = torch.from_numpy(encode(found.table, found.encoders))
    each = {target.column: _answers(found, target) for target in found.targets}

    def split(part: int) -> TensorSplit:
        at = torch.from_numpy(found.rows[found.parts == part])
        if isinstance(found.kind, Multi):
            targets: Any = {identifier(name): answers[at] for name, answers in each.items()}
        elif len(each) == 1:
            targets = next(iter(each.values()))[at]
        else:
            targets = torch.cat([answers[at] for answers in each.values()], dim=1)
        return TensorSplit(inputs[at], targets)

    scaled = any(not target.names for target in found.targets)
    return Splits(
        train=split(0),
        val=split(1),
        test=split(2),
        encode=read,
        decode=TargetScale(found.targets) if scaled else None,
        source=source,
    )


def _answers(found: Study, target: Target) -> Tensor:
    """A target column of all rows: int64 (rows,) classes, or float (rows, 1) values."""
    if target.names:
        index = {name: i for i, name in enumerate(target.names)}
        cells = found.table.column(target.column)
        return torch.from_numpy(
            np.array([index.get(cell, 0) for cell in cells])
        )  # 0 in rows that are not used
    values = (numbers(found.table, target.column) - target.mean) / target.deviation
    return torch.from_numpy(values.astype(np.float32))[:, None]
