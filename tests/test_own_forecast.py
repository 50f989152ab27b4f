"""`core/forecast_table`: a user's time series to forecast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.catalogue import catalogue
from zoo.contract import kinds_of
from zoo.data import read_inputs
from zoo.data.own.samples import forecast_table as write_room
from zoo.data.own.samples import write_csv
from zoo.errors import ZooError
from zoo.kinds import Forecast, Series
from zoo.testing import conformance_cases


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def part(name: str, path: Any, **params: Any) -> Any:
    return catalogue().part("dataset", name, {"path": str(path), **params})


def kinds(name: str, path: Any, **params: Any) -> Any:
    return kinds_of(catalogue(), part(name, path, **params))


def load(name: str, path: Any, **params: Any) -> Any:
    return zoo.create_dataset(f"core/{name}", path=str(path), **params)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_windows_lie_within_their_part_and_ask_the_target(tmp_path: Path) -> None:
    params = write_room(tmp_path)
    splits = zoo.create_dataset("core/forecast_table", **params)
    inputs, targets = kinds("forecast_table", **params)
    assert (inputs, targets) == (
        Series(channels=2, length=24),
        Forecast(channels=1, horizon=6, names=("warmth",)),
    )
    assert splits.sizes == {"train": 280 - 29, "val": 40 - 29, "test": 80 - 29}
    example = splits.test[0]
    assert example["input"].shape == (24, 2) and example["target"].shape == (6, 1)
    assert example["input"][-1].abs().max() == 0  # relative to the last step
    batch = splits.test.__getitems__([0, 3])
    assert torch.equal(batch["target"][0], example["target"])


def test_a_step_that_was_not_measured_is_a_target_all_the_same(tmp_path: Path) -> None:
    rows = [[i, "" if i % 40 == 30 else 100 + i] for i in range(400)]
    write_csv(tmp_path / "gaps.csv", ["people", "warmth"], rows)
    params = {"path": str(tmp_path / "gaps.csv"), "target": "warmth", "length": 24, "horizon": 6}
    splits = zoo.create_dataset("core/forecast_table", **params)
    assert any(splits.train[i]["target"].isnan().any() for i in range(len(splits.train)))
    cases = conformance_cases("core/forecast_table", params=params)
    (case,) = (each.values[0] for each in cases if each.values[0].check.name == "data_kinds")
    case()


def test_forecasts_come_back_in_natural_units(tmp_path: Path) -> None:
    write_csv(tmp_path / "s.csv", ["a", "b"], [[i, 100 + 2 * i] for i in range(200)])
    splits = load("forecast_table", tmp_path / "s.csv", target="b", length=10, horizon=3, relative=False)
    assert torch.allclose(splits.decode(splits.train[0]["target"])[:, 0], torch.tensor([120.0, 122.0, 124.0]))
    notes = part("forecast_table", tmp_path / "s.csv", target="b", length=10, horizon=3).config.notes()
    assert "forecast: b" in notes and "given only: a" in notes
    inputs = kinds("forecast_table", tmp_path / "s.csv", target="b", length=10, horizon=3)[0]
    write_csv(tmp_path / "new.csv", ["b", "other", "a"], [[100 + 2 * i, "x", i] for i in range(30)])
    (x,) = read_inputs(tmp_path / "new.csv", inputs, encode=splits.encode)
    assert torch.allclose(
        x, splits.train[20]["input"]
    )  # its last 10 steps, whatever the order of the columns
    write_csv(tmp_path / "short.csv", ["a", "b"], [[1, 2]] * 4)
    with pytest.raises(ZooError, match=r"short.csv has 4 steps, but 10 must be given"):
        read_inputs(tmp_path / "short.csv", inputs, encode=splits.encode)


def test_what_is_missing_is_given_as_before_and_not_asked(tmp_path: Path) -> None:
    write_csv(tmp_path / "s.csv", ["a"], [["NA" if i % 10 == 7 else i] for i in range(200)])
    splits = load("forecast_table", tmp_path / "s.csv", length=10, horizon=3, relative=False)
    assert splits.train[0]["input"].isfinite().all() and splits.train[5]["target"].isnan().sum() == 1
    natural = splits.decode(splits.train[0]["input"])
    assert natural[7, 0].item() == pytest.approx(6, abs=1e-3)
    notes = " ".join(part("forecast_table", tmp_path / "s.csv", length=10, horizon=3).config.notes())
    assert "not asked: a (20)" in notes


@pytest.mark.parametrize(
    ("text", "params", "words"),
    [
        (
            "a\n" + "1\n2\n" * 50,
            {},
            "length: and horizon together are 120 steps, but the shortest part of 100 has 10",
        ),
        ("a,b\n" + "1,2\n2,3\n" * 100, {"target": "c"}, "target: s.csv has no column 'c'"),
        (
            "a,b\n" + "1,2\n2,3\n" * 100,
            {"target": "a", "columns": ["b"]},
            "columns: must hold the target 'a' too",
        ),
        ("a,b\n" + "1,2\n2,3\n" * 100, {"columns": ["bb"]}, "columns: s.csv has no column 'bb'"),
        ("a,b\n" + "1,2\n1,3\n" * 100, {"target": "a"}, "column 'a' is always 1 in train"),
        ("a\n" + "x\n" * 100, {}, "has no column of numbers: a"),
        ("a\n" + "1\n2\nx\n" * 100, {"target": "a"}, "line 4: column 'a' must hold numbers, got 'x'"),
        ("t,a\n1,2\n3,4\n2,5\n", {"time": "t"}, "line 4: the time '2' is not after that of the row before"),
        (
            "t,a\nMonday,2\n",
            {"time": "t"},
            "time: column 't' must hold numbers or dates .* line 2 says 'Monday'",
        ),
        ("t,a\n1,2\n", {"time": "when"}, "time: s.csv has no column 'when'"),
    ],
)
def test_bad_tables_of_steps(tmp_path: Path, text: str, params: dict[str, Any], words: str) -> None:
    small = {} if "length" in words else {"length": 4, "horizon": 2}
    with pytest.raises(ZooError, match=words):
        kinds("forecast_table", write(tmp_path / "s.csv", text), **params, **small)
