"""`core/text_files`: a user's text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.catalogue import catalogue
from zoo.contract import kinds_of
from zoo.data.own import text_study
from zoo.data.own.samples import text_files as write_sample
from zoo.data.own.text_config import TextFilesConfig
from zoo.data.own.text_study import Stretch, divide, texts
from zoo.data.tokens import TokenFile
from zoo.errors import ZooError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(path: Any, length: int = 8, **params: Any) -> Any:
    return zoo.create_dataset("core/text_files", path=str(path), length=length, **params)


def part(path: Any, **params: Any) -> Any:
    return catalogue().part("dataset", "text_files", {"path": str(path), **params})


def kinds(path: Any, **params: Any) -> Any:
    return kinds_of(catalogue(), part(path, **params))


def lines(count: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    return "".join("".join(draw.choices("abcdé ", k=draw.randint(1, 30))) + "\n" for _ in range(count))


def text_of(splits: Any, name: str) -> str:
    ids = getattr(splits, name).ids
    return splits.decode(ids[torch.arange(len(ids))])


@pytest.mark.parametrize("unit", ["character", "byte", "bpe"])
def test_the_parts_of_a_file_are_the_file(tmp_path: Path, unit: str) -> None:
    if unit == "bpe":
        pytest.importorskip("tokenizers")
    text = lines(400)
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    splits = load(tmp_path / "t.txt", unit=unit, **({"vocab": 300} if unit == "bpe" else {}))
    parts = [text_of(splits, name) for name in ("train", "val", "test")]
    assert "".join(parts) == text and all(part.endswith("\n") for part in parts)
    assert 0.85 < len(parts[0]) / len(text) < 0.95
    assert isinstance(splits.train.ids, TokenFile)  # a memory map: the text need not fit into memory
    inputs, targets = kinds(tmp_path / "t.txt", unit=unit)
    assert inputs.vocab == {"character": 8, "byte": 256, "bpe": 4096}[unit]
    assert targets.unit == {"bpe": "token"}.get(unit, unit)
    assert splits.text and splits.decode(splits.encode("abba é")) == "abba é"


def test_a_folder_of_parts_of_many_files_and_of_few(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / "parts" / name).mkdir(parents=True)
        (tmp_path / "parts" / name / "1.txt").write_text(name + lines(50), encoding="utf-8")
    splits = load(tmp_path / "parts")
    assert all(
        text_of(splits, name).startswith(name[:2] if name != "val" else "\N{REPLACEMENT CHARACTER}a")
        for name in ("train", "val")
    )
    (tmp_path / "many").mkdir()
    for i in range(40):
        (tmp_path / "many" / f"{i:02}.txt").write_text(f"{i:02}" + lines(20, seed=i), encoding="utf-8")
    splits = load(tmp_path / "many", val=0.1, test=0.1)
    whole = {(tmp_path / "many" / f"{i:02}.txt").read_text(encoding="utf-8") for i in range(40)}
    sizes = [len(text_of(splits, name)) for name in ("train", "val", "test")]
    assert sum(sizes) == sum(map(len, whole)) and min(sizes) > 0.03 * sum(sizes)
    assert "whole files, drawn with seed 0" in "".join(part(tmp_path / "many").config.notes())
    (tmp_path / "few").mkdir()
    for i in range(3):
        (tmp_path / "few" / f"{i}.txt").write_text(f"{i}" + lines(60, seed=i), encoding="utf-8")
    splits = load(tmp_path / "few")
    assert all(f"{i}" in text_of(splits, "train") for i in range(3))


def test_only_characters_of_train_have_a_symbol(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("ab\n" * 300 + "Ω\n" * 40, encoding="utf-8")
    config = part(tmp_path / "t.txt", val=0.1, test=0.1).config
    assert config.kinds()[0].vocab == 4 and "share one symbol: 'Ω'" in " ".join(config.notes())


def test_pieces_do_not_change_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = lines(60) + "é" * 400 + "\r\nx"
    path = tmp_path / "t.txt"
    path.write_bytes(text.encode())
    for size in (1, 7, 64, 10**6):
        monkeypatch.setattr(text_study, "PIECE", size)
        found = list(texts([Stretch(path, 0, path.stat().st_size)], "utf-8"))
        assert "".join(found) == text.replace("\r\n", "\n")


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=30, max_size=400), val=st.floats(0.05, 0.4), test=st.floats(0.05, 0.4))
def test_however_a_text_is_cut_nothing_is_lost(
    tmp_path_factory: Any, text: str, val: float, test: float
) -> None:
    path = tmp_path_factory.mktemp("cut") / "t.txt"
    path.write_bytes(text.encode("utf-8", "replace"))
    found = divide(path, TextFilesConfig(path=str(path), val=val, test=test))
    whole = b"".join(path.read_bytes()[s.start : s.end] for stretches in found.parts for s in stretches)
    assert whole == path.read_bytes()
    for stretches in found.parts:
        list(texts(stretches, "utf-8"))  # no character is torn apart


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("ab\n" * 300, encoding="utf-8")
    assert text_of(load(path), "train").startswith("ab\nab")
    path.write_text("ba\n" * 300 + "c", encoding="utf-8")
    assert text_of(load(path), "train").startswith("ba\nba")


@pytest.mark.parametrize(
    ("content", "params", "words"),
    [
        (b"", {}, "is empty: there is no text in it"),
        (
            b"abc\n" * 300 + b"\xff\xfe\n",
            {},
            r"is no utf-8 text \(near byte 1200\); `encoding` names another",
        ),
        (b"abc\n" * 30, {"length": 64}, "symbols for val, but a block needs 65: lower `length`"),
        (b"abc\n" * 300, {"encoding": "utf-16"}, "encoding: utf-16 is not read; save the files as utf-8"),
        (b"abc\n" * 300, {"encoding": "utf-9"}, "there is no text encoding 'utf-9'"),
        (b"abc\n" * 300, {"vocab": 500}, "vocab: is for unit: bpe"),
        (b"abc\n" * 300, {"val": 0.6, "test": 0.5}, "val: and test together are 1.1"),
        (b"abc\n" * 300, {"stride": 500}, "stride: must be at most length 8"),
    ],
)
def test_bad_texts(tmp_path: Path, content: bytes, params: dict[str, Any], words: str) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(ZooError, match=words):
        load(tmp_path / "t.txt", **params)


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "d" / "train").mkdir(parents=True)
    with pytest.raises(ZooError, match=r"pattern: no file in d is called '\*.txt'"):
        kinds(tmp_path / "d")
    (tmp_path / "d" / "train" / "a.txt").write_text(lines(50), encoding="utf-8")
    (tmp_path / "d" / "loose.txt").write_text(lines(50), encoding="utf-8")
    with pytest.raises(
        ZooError, match=r"has files for train, but loose.txt is in no folder train, val or test"
    ):
        kinds(tmp_path / "d")


def test_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(lines(300).encode("latin-1"))
    assert "é" in text_of(load(tmp_path / "t.txt", encoding="latin-1"), "train")


def test_the_sample_loads_with_its_record(tmp_path: Path) -> None:
    params = write_sample(tmp_path)
    splits = zoo.create_dataset("core/text_files", **params)
    assert list(splits.source["files"]) == ["notes.txt"] and splits.train[0]["input"].shape == (64,)
