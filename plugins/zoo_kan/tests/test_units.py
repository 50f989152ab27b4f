"""What features and values are called, and their natural units, from what a dataset says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from zoo_kan.units import features_of, values_of

from zoo.data import Standardise


class Columns:
    """As a table's encoder says what its columns became."""

    def __call__(self, raw: Any) -> torch.Tensor:
        return torch.as_tensor(raw)

    def to_dict(self) -> dict[str, Any]:
        number = {"name": "petal length (cm)", "as": "number", "mean": 4.0, "deviation": 2.0, "flag": True}
        clash = {"name": "petal length/cm", "as": "number", "mean": 0.0, "deviation": 0.0, "flag": False}
        colour = {"name": "2nd", "as": "category", "values": ["red", "deep blue"], "of": 2, "flag": False}
        return {"kind": "row", "columns": [number, clash, colour]}


def test_a_scale_and_a_shift_are_found_also_of_large_numbers() -> None:
    scale = Standardise(
        mean=torch.tensor([2000.0, -0.5]).double(), deviation=torch.tensor([0.25, 3.0]).double()
    )
    for found in (features_of(scale, 2), values_of(scale.inverse, (), 2)):
        assert [each.mean for each in found] == pytest.approx([2000, -0.5], rel=1e-4)
        assert [each.deviation for each in found] == pytest.approx([0.25, 3], rel=1e-3)
        assert not any(each.says for each in found)
    assert [each.name for each in features_of(scale, 2)] == ["x1", "x2"]
    assert [each.name for each in values_of(scale.inverse, (), 2)] == ["y1", "y2"]
    assert [each.name for each in values_of(None, ("yield strength", "HV"), 2)] == ["yield_strength", "HV"]
    assert values_of(None, (), 1)[0].name == "y" and features_of(None, 1)[0].mean == 0


@pytest.mark.parametrize(
    "f", [torch.exp, torch.tanh, lambda x: x**3, lambda x: x.abs(), lambda x: 0 * x, list]
)
def test_other_maps_are_called_what_they_are(f: Any) -> None:
    assert all("not in natural units" in each.says for each in features_of(f, 3))
    if f is not list and f(torch.ones(1)) != 0:
        assert all("not in natural units" in each.says for each in values_of(f, (), 3))


def test_columns_of_a_table_have_names_that_stand_in_a_formula() -> None:
    length, missing, clash, red, blue = features_of(Columns(), 5)
    assert (length.name, length.mean, length.deviation) == ("petal_length_cm", 4.0, 2.0)
    assert length.says == "the column 'petal length (cm)'"
    assert (missing.name, missing.says) == (
        "petal_length_cm_missing",
        "1 where petal length (cm) is missing, else 0",
    )
    assert clash.name != length.name and clash.name.isidentifier() and clash.deviation == 1
    assert (red.name, blue.name) == ("x_2nd_red", "x_2nd_deep_blue")
    assert blue.says == "1 where 2nd is 'deep blue', else 0" and blue.mean == 0
    assert all("not in natural units" in each.says for each in features_of(Columns(), 4))
