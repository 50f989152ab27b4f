"""A small example of each sort of data that people bring, written into a folder (torch-free).

For the conformance checks, the docs, and whoever wants to see what such a file looks like. The same each
time.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def table(folder: Path) -> dict[str, Any]:
    """120 visitors: age (some missing), city, hours; do they come back?"""
    draw = random.Random(0)
    rows = []
    for _ in range(120):
        age, city, hours = draw.randint(18, 80), draw.choice(("Bern", "Oslo", "Rome")), draw.random() * 9
        back = "yes" if hours + (city == "Rome") * 3 - age / 30 + draw.gauss(0, 1) > 2 else "no"
        rows.append(["" if draw.random() < 0.1 else age, city, f"{hours:.2f}", back])
    write_csv(folder / "visitors.csv", ["age", "city", "hours", "comes_back"], rows)
    return {"path": str(folder / "visitors.csv"), "target": "comes_back"}


def image_folder(folder: Path) -> dict[str, Any]:
    """36 pictures of 12 x 16 pixels, of two classes: more red at the left, or at the right."""
    from PIL import Image

    draw = random.Random(0)
    for name in ("left", "right"):
        (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
        for number in range(18):
            pixels = bytearray(draw.randrange(160) for _ in range(12 * 16 * 3))
            for y in range(12):
                for x in range(8):
                    pixels[(16 * y + x + 8 * (name == "right")) * 3] += 90
            Image.frombytes("RGB", (16, 12), bytes(pixels)).save(
                folder / "photos" / name / f"{number:02}.png"
            )
    return {"path": str(folder / "photos")}


def text_files(folder: Path) -> dict[str, Any]:
    """600 lines of a small grammar."""
    draw = random.Random(0)
    who, what, where = (
        ("the cat", "a bird", "my aunt"),
        ("sings", "sleeps", "waits"),
        ("here", "at home", "by the sea"),
    )
    lines = [
        f"{draw.choice(who)} {draw.choice(what)} {draw.choice(where)} {draw.randint(1, 99)}."
        for _ in range(600)
    ]
    (folder / "notes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"path": str(folder / "notes.txt"), "length": 64}


def series_files(folder: Path) -> dict[str, Any]:
    """Movements in two channels, 12 to 18 steps: 40 to train on, 20 for test; a circle or a line?"""
    draw = random.Random(0)
    (folder / "moves").mkdir(exist_ok=True)
    for part, count in (("TRAIN", 40), ("TEST", 20)):
        lines = ["@problemName moves", "@classLabel true circle line", "@data"]
        for number in range(count):
            label, steps, start = ("circle", "line")[number % 2], draw.randint(12, 18), draw.random() * 6
            angles = [start + 0.5 * step for step in range(steps)]
            x = [math.cos(a) + draw.gauss(0, 0.2) for a in angles]
            y = [(math.sin(a) if label == "circle" else math.cos(a)) + draw.gauss(0, 0.2) for a in angles]
            channels = (",".join(f"{value:.3f}" for value in channel) for channel in (x, y))
            lines.append(f"{':'.join(channels)}:{label}")
        (folder / "moves" / f"moves_{part}.ts").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"path": str(folder / "moves")}


def forecast_table(folder: Path) -> dict[str, Any]:
    """400 hours of a room: temperature and people in it. How warm will it be?"""
    draw = random.Random(0)
    rows, warmth = [], 20.0
    for hour in range(400):
        people = max(0, round(8 * math.sin(hour / 24 * 2 * math.pi) + draw.gauss(0, 1)))
        warmth += 0.1 * people - 0.15 * (warmth - 18) + draw.gauss(0, 0.1)
        rows.append([f"2026-01-{1 + hour // 24:02} {hour % 24:02}:00", f"{warmth:.2f}", people])
    write_csv(folder / "room.csv", ["time", "warmth", "people"], rows)
    given = {"path": str(folder / "room.csv"), "target": "warmth", "time": "time"}
    return {**given, "length": 24, "horizon": 6}


def torchvision(folder: Path) -> dict[str, Any]:
    """60 pictures of noise, which torchvision makes itself."""
    return {"dataset": "FakeData", "options": {"size": 60, "image_size": [3, 12, 16], "num_classes": 3}}


def hugging_face(folder: Path) -> dict[str, Any]:
    """The visitors of `table`, through Hugging Face's builder for CSV."""
    return {"dataset": "csv", **table(folder)}


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV with a header."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
