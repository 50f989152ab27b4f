"""The built-in datasets: each is what its spec says, the same every time, and its splits share nothing."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo.data
from zoo.config import ConfigError
from zoo.data.bundled import read_arrays, read_bytes, read_rows
from zoo.data.config import SOTU_ALPHABET, SotuConfig
from zoo.data.specs import SPECS
from zoo.data.text import Bytes, Characters, load_sotu_small, sotu_texts
from zoo.errors import ZooError
from zoo.kinds import (
    IGNORE,
    Classes,
    Forecast,
    Ids,
    Image,
    Labels,
    Maps,
    Multi,
    NextId,
    Series,
    Values,
    Vector,
)

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "zoo" / "data" / "bundled"
BY_NAME = {spec.name: spec for spec in SPECS}
each_dataset = pytest.mark.parametrize("name", BY_NAME)


def load(name):
    spec = BY_NAME[name]
    config_class = spec.config_class()
    return spec.load()(config_class() if config_class else None)


def whole(split):
    return split.__getitems__(range(len(split)))


def check_input(x, kind):
    if isinstance(kind, Image):
        assert x.shape == (kind.channels, kind.height, kind.width) and x.dtype == torch.float32
    elif isinstance(kind, Vector):
        assert x.shape == (kind.features,) and x.dtype == torch.float32
    elif isinstance(kind, Series):
        assert x.shape[1] == kind.channels and x.dtype == torch.float32
        assert 1 <= len(x) <= kind.length and (kind.ragged or len(x) == kind.length)
    elif isinstance(kind, Ids):
        assert x.dtype == torch.int64 and x.min() >= 0 and x.max() < kind.vocab
        assert len(x) == kind.length and x.ndim == 1
    else:
        raise AssertionError(f"no check for {kind}")
    assert x.isfinite().all()


def check_target(y, kind, x):
    if isinstance(kind, Classes):
        assert y.dtype == torch.int64 and y.shape == () and 0 <= y < kind.count
    elif isinstance(kind, Values):
        assert y.dtype == torch.float32 and y.shape == (kind.count,)
        assert y.isfinite().all() or (kind.missing and not y.isinf().any() and not y.isnan().all())
    elif isinstance(kind, Forecast):
        assert y.dtype == torch.float32 and y.shape == (kind.horizon, kind.channels) and y.isfinite().all()
    elif isinstance(kind, Labels):
        assert y.dtype == torch.int64 and y.shape == x.shape[:1] and y.min() >= 0 and y.max() < kind.count
    elif isinstance(kind, Multi):
        assert list(y) == list(kind.parts)
        for name, part in kind.parts.items():
            check_target(y[name], part, x)
    elif isinstance(kind, Maps):
        assert list(y) == list(kind.parts)
        for name, part in kind.parts.items():
            check_map(y[name], part, x.shape[1:])
    elif isinstance(kind, NextId):
        assert y.dtype == torch.int64 and y.shape == x.shape
        asked = y[y != IGNORE]
        assert len(asked) and asked.min() >= 0 and asked.max() < kind.vocab
    else:
        raise AssertionError(f"no check for {kind}")


def check_map(y, part, size):
    if isinstance(part, Classes):
        asked = y[y != IGNORE]
        assert y.dtype == torch.int64 and y.shape == size
        assert len(asked) and asked.min() >= 0 and asked.max() < part.count
    else:
        assert y.dtype == torch.float32 and y.shape == (part.count, *size)
        assert not y.isinf().any() and not y.isnan().all() and (part.missing or y.isfinite().all())


@each_dataset
def test_kinds_of_the_spec_are_those_of_the_config(name):
    spec = BY_NAME[name]
    if spec.config:
        assert (spec.inputs, spec.targets) == spec.config_class()().kinds()
    else:
        assert spec.targets.kind != "next_id" or name == "digits_pixels"  # whole images, no parameters


@each_dataset
def test_examples_are_of_the_declared_kinds(name):
    spec, splits = BY_NAME[name], load(name)
    for split in (splits.train, splits.val, splits.test):
        for index in {0, len(split) // 2, len(split) - 1} | set(range(0, len(split), 37)):
            example = split[index]
            check_input(example["input"], spec.inputs)
            check_target(example["target"], spec.targets, example["input"])


@each_dataset
def test_every_class_is_in_every_split(name):
    spec, splits = BY_NAME[name], load(name)
    if isinstance(spec.targets, Classes):
        for split in (splits.train, splits.val, splits.test):
            assert set(split.targets.tolist()) == set(range(spec.targets.count))
            assert len(spec.targets.names) == spec.targets.count


@each_dataset
def test_the_longest_ragged_example_has_the_declared_length(name):
    spec, splits = BY_NAME[name], load(name)
    if getattr(spec.inputs, "ragged", False):
        lengths = torch.cat([s.lengths for s in (splits.train, splits.val, splits.test)])
        assert lengths.max() == spec.inputs.length and lengths.min() < spec.inputs.length


@each_dataset
def test_loading_twice_is_identical(name):
    a, b = load(name), load(name)
    for split in ("train", "val", "test"):
        first, second = whole(getattr(a, split)), whole(getattr(b, split))
        assert first.keys() == second.keys()
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


@each_dataset
def test_splits_share_no_example(name):
    splits = load(name)
    seen = [
        {example["input"].numpy().tobytes() for example in split}
        for split in (splits.train, splits.val, splits.test)
    ]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


@pytest.mark.parametrize("name", [n for n, s in BY_NAME.items() if isinstance(s.inputs, (Vector, Series))])
def test_inputs_are_standardised_on_train_only(name):
    splits = load(name)
    batch = whole(splits.train)
    # Of windows, the series they are cut from: its middle is in more of them than its ends.
    x = splits.train.values if hasattr(splits.train, "values") else batch["input"]
    if "length" in batch:
        x = x[torch.arange(x.shape[1]) < batch["length"][:, None]]
    x = x.flatten(0, -2)
    assert x.mean(dim=0).abs().max() < 1e-5
    varies = x.std(dim=0, correction=0) > 0  # all but two elements that no alloy of train has
    assert (x.std(dim=0, correction=0)[varies] - 1).abs().max() < 1e-5
    assert (~varies).sum() == (2 if name == "hea_strength" else 0)
    assert whole(splits.test)["input"].flatten(0, -2).mean(dim=0).abs().max() > 1e-3


def test_pixels_are_standardised_on_train_only():
    splits = load("digits")
    assert abs(splits.train.inputs.mean()) < 1e-5 and abs(splits.train.inputs.std(correction=0) - 1) < 1e-5
    blank = splits.encode(torch.zeros(1, 8, 8))
    assert torch.equal(blank, splits.train.inputs.min().expand(1, 8, 8))


def test_pixels_in_a_row_are_the_digits():
    splits = load("digits_pixels")
    arrays = read_arrays("digits.npz")
    pixels = torch.from_numpy(arrays["pixels"][arrays["split"] == 2]).long().flatten(1)
    assert torch.equal(splits.test.targets, pixels)  # every pixel is asked
    assert splits.test.inputs[:, 0].eq(17).all() and torch.equal(splits.test.inputs[:, 1:], pixels[:, :-1])
    assert torch.equal(splits.encode(pixels[3]), splits.test.inputs[3])
    with pytest.raises(ZooError, match=r"within 0\.\.16, got 17"):
        splits.encode([0] * 63 + [17])


def test_encode_is_what_made_the_inputs():
    rows = [row for row in read_rows("wine.csv") if row["split"] == "test"]
    raw = [float(cell) for cell in list(rows[5].values())[1:-1]]
    assert torch.equal(load("wine").encode(raw), load("wine").test[5]["input"])
    arrays = read_arrays("digits.npz")
    raw = torch.from_numpy(arrays["pixels"][arrays["split"] == 2][7]).float()[None] / 16
    assert torch.equal(load("digits").encode(raw), load("digits").test[7]["input"])


def test_decode_gives_natural_units():
    splits = load("diabetes")
    rows = [row for row in read_rows("diabetes.csv") if row["split"] == "test"]
    natural = torch.tensor([float(row["progression"]) for row in rows])
    assert torch.allclose(splits.decode(splits.test.targets).squeeze(1), natural, rtol=1e-5)


def test_the_vowels_are_the_official_split():
    arrays = read_arrays("japanese_vowels.npz")
    assert (arrays["split"] == 2).sum() == 370 and (arrays["split"][-370:] == 2).all()
    assert np.bincount(arrays["label"][arrays["split"] == 2]).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert np.bincount(arrays["label"][arrays["split"] == 1]).tolist() == [6] * 9
    assert arrays["length"].sum() == len(arrays["millionths"])
    # The first value of the first utterance as it stands in the source, and its standardised form.
    assert arrays["millionths"][0, 0] == 1860936


def test_text_codecs_are_inverse():
    texts = sotu_texts()
    assert "".join(sorted(set(texts["train"]))) == SOTU_ALPHABET
    characters, octets = Characters(SOTU_ALPHABET), Bytes()
    assert characters.decode(characters.encode(texts["train"])) == texts["train"]
    assert octets.decode(octets.encode(texts["test"])) == texts["test"]
    assert len(octets.encode("é")) == 2
    assert characters.encode("aé").tolist() == [SOTU_ALPHABET.index("a") + 1, 0]
    assert characters.decode(torch.tensor([0])) == "\N{REPLACEMENT CHARACTER}"
    assert characters.encode("").shape == octets.encode("").shape == (0,)
    assert octets.decode(torch.tensor([255])) == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_text_blocks_follow_their_parameters(unit):
    config = SotuConfig(unit=unit, length=200, stride=50)
    ids, target = config.kinds()
    splits = load_sotu_small(config)
    assert target.unit == unit and splits.text
    first, second = splits.train[0], splits.train[1]
    check_input(first["input"], ids)
    assert torch.equal(first["input"][50:], second["input"][:150])
    text = sotu_texts()["test"]
    expected = len(text.encode() if unit == "byte" else text) - 1
    assert sum(int((example["target"] != IGNORE).sum()) for example in splits.test) == expected
    assert torch.equal(splits.encode(text[:200])[:200], splits.test[0]["input"])


def test_passages_can_be_read_several_times():
    once, twice = (load_sotu_small(SotuConfig(length=n, readings=n // 16)).test for n in (16, 32))
    assert len(once) == len(twice)
    torch.testing.assert_close(twice[3]["input"], once[3]["input"].repeat(2))
    for options, message in (
        ({"length": 32, "readings": 5}, "must divide length 32 into passages"),
        ({"length": 32, "readings": 32}, "passages of at least 2 symbols"),
        ({"length": 32, "readings": 2, "stride": 20}, r"must be at most 16 \(length / readings\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            SotuConfig(**options)


def test_addresses_are_whole_and_in_one_split_only():
    lines = read_bytes("sotu_small.txt").decode().splitlines()
    names = [line.split("\t")[1] for line in lines]
    assert len(names) == len(set(names)) == 20
    years = [int(name[:4]) for name in names]
    assert years == sorted(years) and years[0] < 1800 and years[-1] > 2010
    assert all(len(line.split("\t")) == 3 for line in lines)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"stride": 129}, "stride"),
        ({"length": 1}, "length"),
        ({"unit": "word"}, "unit"),
        ({"stride": 0}, "stride"),
    ],
)
def test_bad_text_parameters_name_the_field(params, field):
    with pytest.raises(ConfigError) as error:
        SotuConfig(**params)
    assert [problem.path for problem in error.value.problems] == [field]


def test_a_missing_file_is_named():
    with pytest.raises(ZooError, match=r"no bundled data file 'digit.npz'.*'digits.npz'"):
        read_bytes("digit.npz")


def test_bundled_files_are_small_named_in_the_licences_and_free_of_pickles():
    files = [path for path in FOLDER.iterdir() if path.name != "DATA_LICENSES"]
    licences = (FOLDER / "DATA_LICENSES").read_text()
    assert files and all(f"\n{path.name}\n" in licences for path in files)
    assert sum(path.stat().st_size for path in files) < 1_500_000
    assert all(
        array.dtype.kind in "iu"
        for p in files
        if p.suffix == ".npz"
        for array in read_arrays(p.name).values()
    )


def make_bundled():
    spec = importlib.util.spec_from_file_location("make_bundled", ROOT / "tools" / "make_bundled.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_writing_a_file_again_gives_the_same_bytes(monkeypatch):
    maker = make_bundled()
    arrays = read_arrays("digits.npz")
    first = maker.npz(**arrays)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert maker.npz(**arrays) == first
    labels = arrays["label"]
    assert np.array_equal(maker.draw_splits(labels, val=0.1, test=0.2), arrays["split"])


@pytest.mark.skipif("ZOO_ARCHIVES" not in os.environ, reason="needs the archives of tools/make_bundled.py")
def test_the_bundled_files_are_made_from_the_archives():
    made = make_bundled().make(Path(os.environ["ZOO_ARCHIVES"]))
    assert {name: content == read_bytes(name) for name, content in made.items()} == dict.fromkeys(made, True)


def test_a_wrong_archive_is_refused(tmp_path):
    maker = make_bundled()
    with pytest.raises(SystemExit, match="missing"):
        maker.archive(tmp_path, "sotu")
    (tmp_path / maker.ARCHIVES["sotu"][0]).write_bytes(b"something else")
    with pytest.raises(SystemExit, match=maker.ARCHIVES["sotu"][1]):
        maker.archive(tmp_path, "sotu")


def test_specs_and_configs_load_without_torch_or_numpy():
    code = "import sys, zoo.data.specs, zoo.data.config; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_package_names_what_it_offers():
    assert set(zoo.data._MODULE_OF) == set(zoo.data.__all__)
    for name in zoo.data.__all__:
        assert getattr(zoo.data, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        zoo.data.nothing_of_the_kind  # noqa: B018
