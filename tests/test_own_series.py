"""`core/series_files`: a user's time series to classify."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.catalogue import catalogue
from zoo.contract import kinds_of
from zoo.data import read_inputs
from zoo.data.own.samples import series_files as write_moves
from zoo.data.own.samples import write_csv
from zoo.errors import ZooError
from zoo.kinds import Series


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


def test_a_pair_of_ts_files(tmp_path: Path) -> None:
    folder = Path(write_moves(tmp_path)["path"])
    splits = load("series_files", folder)
    assert splits.sizes == {"train": 36, "val": 4, "test": 20}
    frames = torch.cat([splits.train[i]["input"] for i in range(36)])
    assert (
        frames.shape[1] == 2 and frames.mean(0).abs().max() < 1e-5 and (frames.std(0) - 1).abs().max() < 0.01
    )
    by_name = load("series_files", folder / "moves_TRAIN.ts", test_path=str(folder / "moves_TEST.ts"))
    assert torch.equal(by_name.test.inputs, splits.test.inputs)
    one = load("series_files", folder / "moves_TRAIN.ts")
    assert sum(one.sizes.values()) == 40 and one.sizes["test"] == 8
    assert "40 series" in " ".join(part("series_files", folder / "moves_TRAIN.ts").config.notes())


def test_csv_forms_agree(tmp_path: Path) -> None:
    series = [([math.sin(i + 0.3 * t) for t in range(5 + i % 3)], "ab"[i % 2]) for i in range(20)]
    wide = [[*(f"{x:.6f}" for x in values), *[""] * (7 - len(values)), label] for values, label in series]
    write_csv(tmp_path / "wide.csv", [*(f"t{i}" for i in range(7)), "label"], wide)
    steps = [[i, f"{x:.6f}", label] for i, (values, label) in enumerate(series) for x in values]
    write_csv(tmp_path / "long.csv", ["id", "x", "label"], steps)
    one, other = (
        load("series_files", tmp_path / "wide.csv"),
        load("series_files", tmp_path / "long.csv", id="id"),
    )
    assert kinds("series_files", tmp_path / "wide.csv")[0] == Series(channels=1, length=7, ragged=True)
    for name in ("train", "val", "test"):
        first, second = getattr(one, name), getattr(other, name)
        assert len(first) == len(second)
        assert all(torch.equal(first[i]["input"], second[i]["input"]) for i in range(len(first)))
    ts = "\n".join(",".join(f"{x:.6f}" for x in values) + f":{label}" for values, label in series)
    third = load("series_files", write(tmp_path / "s.ts", f"@data\n{ts}\n"))
    assert torch.equal(third.train.inputs, one.train.inputs)


def test_new_series_need_no_label(tmp_path: Path) -> None:
    rows = [[f"{math.sin(i * t):.4f}" for t in range(6)] + ["ab"[i % 2]] for i in range(20)]
    write_csv(tmp_path / "s.csv", [*"uvwxyz", "label"], rows)
    splits, (inputs, _) = load("series_files", tmp_path / "s.csv"), kinds("series_files", tmp_path / "s.csv")
    write_csv(tmp_path / "new.csv", list("uvwxyz"), [row[:-1] for row in rows[:2]])
    found = read_inputs(tmp_path / "new.csv", inputs, encode=splits.encode)
    assert len(found) == 2 and found[0].shape == (6, 1)
    write_csv(tmp_path / "short.csv", list("uvw"), [row[:3] for row in rows[:2]])
    with pytest.raises(ZooError, match="expected 6 time steps of 1 channels, got 3 x 1"):
        read_inputs(tmp_path / "short.csv", inputs, encode=splits.encode)


def test_gaps_within_series_are_filled_on_a_line(tmp_path: Path) -> None:
    rows = [[i, "" if i % 5 == 0 else i + 2, i + 4, i + 6, "ab"[i % 2]] for i in range(20)]
    write_csv(tmp_path / "s.csv", ["a", "b", "c", "d", "label"], rows)
    splits = load("series_files", tmp_path / "s.csv")
    steps = torch.cat([split.inputs for split in (splits.train, splits.val, splits.test)])[..., 0].diff(dim=1)
    assert torch.allclose(steps, steps[0, 0].expand_as(steps), atol=1e-5)
    assert "4 series have missing values" in " ".join(part("series_files", tmp_path / "s.csv").config.notes())


@pytest.mark.parametrize(
    ("text", "params", "words"),
    [
        (
            "a,b,label\n1,2,x\n",
            {"label": "lable"},
            "label: s.csv has no column 'lable'. Did you mean 'label'",
        ),
        ("a,b,label\n1,2,x\n", {"id": "who"}, "id: s.csv has no column 'who'"),
        ("a,b,label\n1,two,x\n", {}, "line 2: column 'b' must hold numbers, got 'two'"),
        ("a,b,label\n,,x\n", {}, "line 2: a series without a value"),
        (
            "id,a,label\n1,2,x\n1,3,y\n",
            {"id": "id"},
            "line 3: series '1' is of the class 'x' before, and 'y' here",
        ),
        ("id,a,w,label\n1,2,hot,x\n", {"id": "id"}, "column 'w' holds texts"),
        ("a,b,label\n" + "".join(f"{i},2,x\n" for i in range(9)), {}, "all series are of the class 'x'"),
        ("a,b,label\n1,2,x\n2,3,y\n", {}, "no series is for val"),
    ],
)
def test_bad_series(tmp_path: Path, text: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        kinds("series_files", write(tmp_path / "s.csv", text), **params)


def test_bad_files_of_series(tmp_path: Path) -> None:
    folder = Path(write_moves(tmp_path)["path"])
    text = (folder / "moves_TEST.ts").read_text()
    (folder / "moves_TEST.ts").write_text(text.replace("line", "zigzag"))
    with pytest.raises(
        ZooError, match=r"classes occur in moves_TEST.ts but not in moves_TRAIN.ts.*'zigzag' \(10\)"
    ):
        kinds("series_files", folder)
    (folder / "moves_TEST.ts").write_text("@data\n1,2:3:circle\n")
    with pytest.raises(ZooError, match="line 2: the channels must be of one length"):
        kinds("series_files", folder)
    (folder / "moves_TEST.ts").write_text("@data\n1,2:circle\n")
    with pytest.raises(ZooError, match="series must have the same channels, but have 1, 2"):
        kinds("series_files", folder)
    (folder / "moves_TEST.ts").write_text("@data\n")
    with pytest.raises(ZooError, match=r"moves_TEST.ts holds no series"):
        kinds("series_files", folder)
    (folder / "moves_TEST.ts").unlink()
    with pytest.raises(ZooError, match=r"path: moves must hold one file NAME_TRAIN.ts and one NAME_TEST.ts"):
        kinds("series_files", folder)
