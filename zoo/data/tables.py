"""Bundled tables: breast_cancer and wine (classes), diabetes (one value)."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.data.bundled import read_rows
from zoo.data.scale import Standardise
from zoo.data.split import Splits, TensorSplit


def load_breast_cancer(config: None = None) -> Splits:
    """569 tumours, input float (30,), class 0 malignant, 1 benign."""
    return _classes("breast_cancer.csv")


def load_wine(config: None = None) -> Splits:
    """178 wines, input float (13,), class: one of three cultivars."""
    return _classes("wine.csv")


def load_diabetes(config: None = None) -> Splits:
    """442 patients, input float (10,), target float (1,): progression of the disease after a year.

    The target is standardised too, so that the mean of train has a squared error of 1 there; `decode`
    brings it back to the natural scale of 25 to 346.
    """
    inputs, targets, part_of, encode = _read("diabetes.csv")
    scale = Standardise.fit(targets[part_of == 0])
    return _splits(inputs, scale(targets), part_of, encode=encode, decode=scale)


def _classes(name: str) -> Splits:
    inputs, targets, part_of, encode = _read(name)
    return _splits(inputs, targets.squeeze(1).long(), part_of, encode=encode)


def _read(name: str) -> tuple[Tensor, Tensor, Tensor, Standardise]:
    """Inputs (rows, features) standardised on train, targets (rows, 1), the split of each row, the scale."""
    rows = [list(row.values()) for row in read_rows(name)]  # split, features ..., target
    numbers = torch.tensor([[float(cell) for cell in row[1:]] for row in rows], dtype=torch.float64)
    part_of = torch.tensor([("train", "val", "test").index(row[0]) for row in rows])
    raw, targets = numbers[:, :-1], numbers[:, -1:]
    encode = Standardise.fit(raw[part_of == 0])
    return encode(raw), targets, part_of, encode


def _splits(
    inputs: Tensor,
    targets: Tensor,
    part_of: Tensor,
    *,
    encode: Standardise,
    decode: Standardise | None = None,
) -> Splits:
    train, val, test = (TensorSplit(inputs[part_of == part], targets[part_of == part]) for part in range(3))
    return Splits(
        train=train, val=val, test=test, encode=encode, decode=decode.inverse if decode is not None else None
    )
