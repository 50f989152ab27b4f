"""`core/image_folder`: a user's images on disk."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import zoo
from zoo.catalogue import catalogue
from zoo.contract import kinds_of
from zoo.data import collate, read_inputs
from zoo.data.own.images import augmented
from zoo.data.own.pictures import UnreadableImage
from zoo.data.own.samples import image_folder as write_sample
from zoo.errors import ZooError
from zoo.kinds import Classes
from zoo.kinds import Image as ImageKind


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(path: Any, **params: Any) -> Any:
    return zoo.create_dataset("core/image_folder", path=str(path), **params)


def part(path: Any, **params: Any) -> Any:
    return catalogue().part("dataset", "image_folder", {"path": str(path), **params})


def kinds(path: Any, **params: Any) -> Any:
    return kinds_of(catalogue(), part(path, **params))


def notes(path: Any, **params: Any) -> str:
    return "\n".join(part(path, **params).config.notes())


def picture(path: Path, *, size: tuple[int, int] = (6, 4), value: Any = 100, mode: str = "L") -> None:
    """Write a plain picture; size: width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def folder(root: Path, counts: dict[str, int], **form: Any) -> Path:
    """A folder `root/CLASS/n.png`, each picture of another grey."""
    for number, (name, count) in enumerate(counts.items()):
        for i in range(count):
            picture(root / name / f"{i:03}.png", value=(40 + 50 * number + i) % 256, **form)
    return root


def test_classes_parts_and_values(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"cat": 20, "dog": 10})
    assert kinds(root) == (ImageKind(channels=1, height=4, width=6), Classes(count=2, names=("cat", "dog")))
    splits = load(root)
    assert splits.sizes == {"train": 21, "val": 3, "test": 6}
    example = splits.train[0]
    assert example["input"].shape == (1, 4, 6) and example["input"].dtype == torch.float32
    pixels = torch.stack([splits.train[i]["input"] for i in range(21)])
    assert abs(pixels.mean()) < 1e-5 and abs(pixels.std() - 1) < 0.05
    assert "30 images, train / val / test 21 / 3 / 6" in notes(root) and "cat 20, dog 10" in notes(root)


def test_folders_of_parts(tmp_path: Path) -> None:
    root = tmp_path / "d"
    for name, count in (("train", 12), ("valid", 3), ("test", 4)):
        folder(root / name, {"a": count, "b": count})
    assert load(root).sizes == {"train": 24, "val": 6, "test": 8} and "by folder" in notes(root)
    shutil.rmtree(root / "valid")
    assert load(root).sizes == {"train": 22, "val": 2, "test": 8}  # validation is drawn from train
    folder(root / "test", {"c": 2})
    with pytest.raises(ZooError, match="test has images of the class 'c', train has none"):
        kinds(root)
    (root / "extra").mkdir()
    with pytest.raises(ZooError, match="holds the folders test, train and 'extra'"):
        kinds(root)


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.data.own import images

    root = folder(tmp_path / "d", {"a": 400, "b": 400})
    expected = load(root).train[5]["input"]
    read = []
    original = images.read_picture
    monkeypatch.setattr(images, "read_picture", lambda p, **form: read.append(p) or original(p, **form))
    again = load(root)  # mean and deviation are known from the first time
    assert read == []
    assert torch.equal(again.train[5]["input"], expected) and len(read) == 1
    assert len(pickle.dumps(again.train)) < 60_000  # what a worker is handed: names and labels


def test_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    train = load(write_sample(tmp_path)["path"]).train
    alone = DataLoader(train, batch_size=8, collate_fn=collate)
    worked = DataLoader(train, batch_size=8, collate_fn=collate, num_workers=2)
    for one, other in zip(alone, worked, strict=True):
        assert torch.equal(one["input"], other["input"]) and torch.equal(one["target"], other["target"])


@pytest.mark.parametrize("form", ["crop", "pad", "stretch"])
def test_sizes(tmp_path: Path, form: str) -> None:
    root = folder(
        tmp_path / "d",
        {"a": 8, "b": 8},
        size=(20, 10),
        mode="RGB",
    )
    assert kinds(root)[0] == ImageKind(channels=3, height=10, width=20)
    assert kinds(root, size=8, channels=1)[0] == ImageKind(channels=1, height=8, width=8)
    splits = load(root, size=[12, 8], fit=form)
    assert splits.train[0]["input"].shape == (3, 12, 8)
    flat = splits.train.pixels(0)
    rows = [bool((flat[:, y] == flat[:, 6]).all()) for y in range(12)]
    assert all(rows) == (form != "pad")  # padding adds black above and below


def test_the_middle_is_kept(tmp_path: Path) -> None:
    left_to_right = np.repeat(np.array([[0, 0, 255, 255, 0, 0]], dtype=np.uint8), 2, axis=0)
    for name in "ab":
        for i in range(6):
            (tmp_path / "d" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(left_to_right).save(tmp_path / "d" / name / f"{i}.png")
    assert (load(tmp_path / "d", size=2).train.pixels(0) == 255).all()


def test_images_of_different_sizes(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"a": 6, "b": 6})
    picture(root / "b" / "odd.png", size=(7, 4))
    with pytest.raises(
        ZooError, match=r"size: must be given, since the images differ: a/000.png has 4 x 6 .*odd.png 4 x 7"
    ):
        kinds(root)
    assert kinds(root, size=4)[0].height == 4


def test_a_corrupt_image_is_named_and_skipped_only_if_asked(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"a": 600, "b": 600})
    whole = (root / "a" / "300.png").read_bytes()
    (root / "a" / "333.png").write_bytes(whole[: len(whole) // 2])  # cut off: only decoding shows it
    (root / "b" / "444.png").write_bytes(b"")
    with pytest.raises(ZooError, match=r"b/444.png: .* \(an empty file\); .*corrupt: skip to leave such out"):
        load(root)
    (root / "b" / "444.png").write_bytes(whole)
    splits = load(root)
    with pytest.raises(ZooError, match=r"a/333.png: this is no image that can be read \("):
        for split in (splits.train, splits.val, splits.test):
            for i in np.flatnonzero(split.names == b"a/333.png"):
                split[int(i)]
    assert sum(splits.sizes.values()) == 1200
    (root / "b" / "444.png").write_bytes(b"")
    skipping = load(root, corrupt="skip")
    assert sum(skipping.sizes.values()) == 1198
    assert "skipped, since they cannot be read: 2 of 1200: a/333.png, b/444.png" in notes(
        root, corrupt="skip"
    )
    for split in (skipping.train, skipping.val, skipping.test):
        assert all(split[i]["input"].isfinite().all() for i in range(0, len(split), 50))


def test_an_error_in_a_worker_says_only_what_is_wrong(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"a": 6, "b": 6})
    train = load(root).train
    for name in train.names:
        (root / name.decode()).write_bytes(b"")
    loader = DataLoader(train, batch_size=4, collate_fn=collate, num_workers=1)
    with pytest.raises(
        UnreadableImage, match=r"^\S*\.png: this is no image that can be read \(an empty file\); [^\n]*$"
    ):
        list(loader)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no image in a folder of its class; expected e.g. d/cat/1.png"),
        ({"1.png": 1}, "holds no image in a folder of its class"),
        ({"a/1.txt": 1}, "holds no image in a folder of its class"),
        ({"a/1.png": 1, "b/1.png": 1}, "no image is for val"),
    ],
)
def test_bad_folders(tmp_path: Path, files: dict[str, int], words: str) -> None:
    (tmp_path / "d").mkdir()
    for name in files:
        picture(tmp_path / "d" / name.replace(".txt", ".png"))
        if name.endswith(".txt"):
            (tmp_path / "d" / name).with_suffix(".png").rename(tmp_path / "d" / name)
    with pytest.raises(ZooError, match=words):
        kinds(tmp_path / "d")


def test_other_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="path: there is nothing at"):
        kinds(tmp_path / "nowhere")
    picture(tmp_path / "one.png")
    with pytest.raises(ZooError, match="path: must be a folder, but"):
        kinds(tmp_path / "one.png")
    root = folder(tmp_path / "d", {"a": 6, "b": 6})
    with pytest.raises(ZooError, match="size: must be at least 1, got 0"):
        part(root, size=0)
    Image.new("I;16", (6, 4)).save(root / "a" / "deep.png")
    with pytest.raises(ZooError, match=r"deep.png: pixels of mode 'I;16' are not read; save 8 bits each"):
        splits = load(root)
        for split in (splits.train, splits.val, splits.test):
            [split[i] for i in range(len(split))]


def test_a_new_picture_of_any_size_and_a_folder_of_them(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"a": 8, "b": 8})
    splits, kind = load(root), kinds(root)[0]
    (x,) = read_inputs(root / "a" / "001.png", kind, encode=splits.encode)
    values = [
        split[i]["input"] for split in (splits.train, splits.val, splits.test) for i in range(len(split))
    ]
    assert any(torch.equal(x, value) for value in values)
    picture(tmp_path / "new.jpg", size=(600, 300), mode="RGB", value=(9, 9, 9))
    assert read_inputs(tmp_path / "new.jpg", kind, encode=splits.encode)[0].shape == (1, 4, 6)
    assert len(read_inputs(root / "a", kind, encode=splits.encode)) == 8
    with pytest.raises(ZooError, match="no image in this folder"):
        read_inputs(tmp_path / "cache", kind, encode=splits.encode)


def test_augmentation_is_random_seeded_and_for_train_alone(tmp_path: Path) -> None:
    x = torch.arange(3 * 16 * 16, dtype=torch.uint8).reshape(3, 16, 16)
    torch.manual_seed(0)
    found = [augmented(x, "crop_and_flip") for _ in range(20)]
    assert len({tuple(f.flatten().tolist()) for f in found}) > 10 and all(f.shape == x.shape for f in found)
    torch.manual_seed(0)
    assert all(torch.equal(f, augmented(x, "crop_and_flip")) for f in found)
    assert torch.equal(augmented(x, "none"), x)
    flips = {tuple(augmented(x, "flip").flatten().tolist()) for _ in range(20)}
    assert flips == {tuple(x.flatten().tolist()), tuple(x.flip(-1).flatten().tolist())}
    splits = load(write_sample(tmp_path)["path"], augment="crop_and_flip")
    assert torch.equal(splits.test[0]["input"], splits.test[0]["input"])
    assert any(not torch.equal(splits.train[0]["input"], splits.train[0]["input"]) for _ in range(10))


def test_new_images_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "d", {"a": 8, "b": 8})
    assert kinds(root)[1].count == 2
    folder(root, {"c": 8})
    assert kinds(root)[1].count == 3
    assert capsys.readouterr().err == ""


def test_a_first_look_at_many_images_announces_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.data.own import images_study

    monkeypatch.setattr(images_study, "SLOW_FILES", 10)
    root = folder(tmp_path / "d", {"a": 8, "b": 8})
    kinds(root), kinds(root)
    assert capsys.readouterr().err == "zoo: looking at d (16 images), once\n"


def test_the_record_names_what_was_read(tmp_path: Path) -> None:
    few, many = folder(tmp_path / "few", {"a": 4, "b": 4}), folder(tmp_path / "many", {"a": 10, "b": 10})
    assert set(load(few).source["files"]) == {f"{c}/{i:03}.png" for c in "ab" for i in range(4)}
    source = load(many).source
    assert source["count"] == 20 and str(tmp_path) not in str(source)
    picture(many / "a" / "000.png", value=77)
    assert load(many).source != source
