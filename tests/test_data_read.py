"""A user's file becomes inputs, or a sentence that says what was expected."""

import numpy as np
import pytest
import torch
from PIL import Image as Pictures

from zoo.data import read_examples, read_inputs
from zoo.data.batch import collate, mask_of
from zoo.data.images import load_digits
from zoo.data.series import load_japanese_vowels
from zoo.data.specs import SPECS
from zoo.data.text import Bytes, Characters
from zoo.errors import ZooError
from zoo.kinds import Ids, Image, Series, Vector

KINDS = {spec.name: spec.inputs for spec in SPECS}
GREY, COLOUR = Image(channels=1, height=2, width=3), Image(channels=3, height=2, width=3)
VECTOR, IDS = Vector(features=3), Ids(vocab=10, length=4)
SERIES, RAGGED = Series(channels=2, length=3), Series(channels=2, length=3, ragged=True)


def save(path, content):
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf-8")
    return path


def picture(path, array, mode=None):
    image = Pictures.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_a_grey_picture_in_any_common_mode(tmp_path, mode):
    pixels = np.array([[0, 51, 102], [153, 204, 255]], dtype=np.uint8)
    (x,) = read_examples(picture(tmp_path / "x.png", pixels, mode), GREY)
    assert torch.allclose(x, torch.tensor([[[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]]]))


def test_a_colour_picture(tmp_path):
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
    (x,) = read_examples(picture(tmp_path / "x.png", pixels), COLOUR)
    assert torch.equal(x, torch.from_numpy(pixels).permute(2, 0, 1) / 255)


def test_a_digit_from_a_picture_is_the_digit(tmp_path):
    splits = load_digits()
    example = splits.test[3]["input"]
    raw = example * splits.encode.deviation + splits.encode.mean  # 0, 1/16, ... 1
    path = picture(tmp_path / "x.png", (raw[0] * 255).round().numpy().astype(np.uint8))
    (x,) = read_inputs(path, KINDS["digits"], encode=splits.encode)
    assert (x - example).abs().max() < 0.01


def test_arrays_of_one_or_many(tmp_path):
    one = np.random.default_rng(0).random((2, 3)).astype(np.float32)
    for array in (one, one[None]):
        (x,) = read_examples(save(tmp_path / "x.npy", array), GREY)
        assert torch.equal(x[0], torch.from_numpy(one))
    assert len(read_examples(save(tmp_path / "x.npy", np.stack([one[None]] * 4)), GREY)) == 4
    (x,) = read_examples(save(tmp_path / "x.npy", np.full((2, 3), 255, dtype=np.uint8)), GREY)
    assert (x == 1).all()
    assert [x.tolist() for x in read_examples(save(tmp_path / "x.npy", np.eye(3)), VECTOR)] == np.eye(
        3
    ).tolist()
    assert len(read_examples(save(tmp_path / "x.npy", np.zeros(3)), VECTOR)) == 1
    assert [x.shape for x in read_examples(save(tmp_path / "x.npy", np.zeros((5, 3, 2))), SERIES)] == [
        (3, 2)
    ] * 5


@pytest.mark.parametrize("header", ["", "age,height,weight\n"])
def test_rows_of_a_table(tmp_path, header):
    path = save(tmp_path / "x.csv", header + "1,2.5, 3\n\n-4,5e1,6\n")
    assert [x.tolist() for x in read_examples(path, VECTOR)] == [[1, 2.5, 3], [-4, 50, 6]]


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path):
    path = save(tmp_path / "x.csv", b"\xef\xbb\xbf1,2,3\r\n4,5,6\r\n")
    assert [x.tolist() for x in read_examples(path, VECTOR)] == [[1, 2, 3], [4, 5, 6]]


def test_a_series_from_csv_and_npy(tmp_path):
    (a,) = read_examples(save(tmp_path / "x.csv", "left,right\n1,2\n3,4\n"), RAGGED)
    (b,) = read_examples(save(tmp_path / "x.npy", np.array([[1, 2], [3, 4]])), RAGGED)
    assert torch.equal(a, b) and a.shape == (2, 2)


def test_an_utterance_from_csv_is_the_utterance(tmp_path):
    splits = load_japanese_vowels()
    example = splits.test[0]["input"]
    raw = splits.encode.inverse(example)
    path = save(tmp_path / "x.csv", "\n".join(",".join(f"{v:.6f}" for v in row) for row in raw.tolist()))
    (x,) = read_inputs(path, KINDS["japanese_vowels"], encode=splits.encode)
    assert torch.allclose(x, example, atol=1e-4)


def test_ids_by_commas_or_spaces(tmp_path):
    path = save(tmp_path / "x.txt", "1,2,3\n\n4 5\t6 9\n")
    found = read_inputs(path, IDS, encode=lambda x: x)
    assert [x.tolist() for x in found] == [[1, 2, 3], [4, 5, 6, 9]]
    batch = collate([{"input": x} for x in found])
    assert mask_of(batch).tolist() == [[True, True, True, False], [True] * 4]


def test_text_line_by_line(tmp_path):
    path = save(tmp_path / "x.txt", "abé\n\nba\n")
    assert read_examples(path, IDS, text=True) == ["abé", "ba"]
    found = read_inputs(path, IDS, encode=Characters("ab").encode, text=True)
    assert [x.tolist() for x in found] == [[1, 2, 0], [2, 1]]
    assert len(read_inputs(path, Ids(vocab=256, length=4), encode=Bytes().encode, text=True)[0]) == 4


class Trap:
    def __reduce__(self):
        return (open, ("trapped", "w"))


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        (VECTOR, "x.csv", "", "file is empty; expected 3 numbers per example"),
        (VECTOR, "x.csv", "\n\n", "no row of numbers; expected 3 columns"),
        (VECTOR, "x.csv", "a,b,c\n", "no row of numbers"),
        (VECTOR, "x.csv", "1,2,3\n4,5\n", r"row 2 has 2 columns, expected 3 \(features\)"),
        (VECTOR, "x.csv", "a,b,c\n1,2,3\n4,x,6\n", "row 3, column 2: expected a number, got 'x'"),
        (VECTOR, "x.csv", "1,,3\n", "row 1, column 2: expected a number, got ''"),
        (VECTOR, "x.csv", "1,nan,3\n", "row 1, column 2: expected a number, got 'nan'"),
        (VECTOR, "x.csv", "1,2,inf\n", "row 1, column 3"),
        (VECTOR, "x.csv", b"\xff\xfe\x00", "no UTF-8 text"),
        (VECTOR, "x.npy", np.zeros((2, 4)), "expected 3 numbers per example, got 4 of them"),
        (VECTOR, "x.npy", np.zeros((0, 3)), "no example in it"),
        (VECTOR, "x.npy", np.array(1.0), "got a single number"),
        (VECTOR, "x.npy", np.array([1, np.nan, 3]), "nan or infinite"),
        (VECTOR, "x.npy", np.array(["a", "b", "c"]), "array of numbers"),
        (VECTOR, "x.npy", np.array([Trap()]), "no npy file of plain numbers"),
        (VECTOR, "x.npy", b"not an array", "no npy file of plain numbers"),
        (VECTOR, "x.npy", b"\x93NUMPY\x01\x00", "no npy file of plain numbers"),
        (SERIES, "x.csv", "1,2\n3,4\n", "expected 3 time steps of 2 channels, got 2 x 2"),
        (RAGGED, "x.csv", "1,2\n" * 4, "expected 1 to 3 time steps of 2 channels, got 4 x 2"),
        (RAGGED, "x.csv", "1,2,3\n", r"row 1 has 3 columns, expected 2 \(channels\)"),
        (RAGGED, "x.npy", np.zeros(4), "expected 1 to 3 time steps"),
        (IDS, "x.txt", "1 2\n3 10", r"row 2, column 2: expected a whole number in 0\.\.9, got '10'"),
        (IDS, "x.txt", "1 -2", "column 2"),
        (IDS, "x.txt", "1 2.0", "got '2.0'"),
        (IDS, "x.txt", "1 ²", "got '²'"),
        (IDS, "x.txt", "1 2 3 4 5", "expected 1 to 4 symbols per line, got 5 of them"),
        (IDS, "x.txt", " \n", "no example in it"),
        (GREY, "x.png", b"no picture", "no image that can be read"),
        (GREY, "x.png", b"\x89PNG\r\n\x1a\n", "no image that can be read"),
        (GREY, "x.npy", np.full((2, 3), 16.0), r"uint8, or numbers in \[0, 1\]; got 16 to 16"),
        (GREY, "x.npy", np.zeros((3, 2)), r"expected an image of 1 x 2 x 3 .*, got 1 x 3 x 2"),
        (Image(channels=2, height=2, width=3), "x.png", b"...", "npy files only"),
    ],
)
def test_what_does_not_fit_is_explained(tmp_path, monkeypatch, kind, name, content, message):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / name, content)
    with pytest.raises(ZooError, match=message) as error:
        read_examples(path, kind)
    assert str(path) in str(error.value)
    assert not (tmp_path / "trapped").exists()


def test_a_picture_of_another_size_or_depth_is_explained(tmp_path):
    path = picture(tmp_path / "x.png", np.zeros((4, 3), dtype=np.uint8))
    with pytest.raises(ZooError, match=r"3 x 4 pixels \(width x height\), expected 3 x 2"):
        read_examples(path, GREY)
    path = picture(tmp_path / "x.png", np.zeros((2, 3), dtype=np.uint16))
    with pytest.raises(ZooError, match="I;16"):
        read_examples(path, GREY)


def test_a_truncated_picture_is_explained(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = picture(tmp_path / "x.png", noise)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ZooError, match="no image that can be read"):
        read_examples(path, Image(channels=1, height=64, width=64))


def test_a_missing_file_and_a_folder_are_explained(tmp_path):
    for path in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(ZooError, match="no such file"):
            read_examples(path, VECTOR)


def test_a_text_that_is_too_long_is_explained(tmp_path):
    path = save(tmp_path / "x.txt", "aaaa\naaaaa\n")
    with pytest.raises(ZooError, match=r"example 2: expected 1 to 4 symbols per line, got 5"):
        read_inputs(path, IDS, encode=Characters("a").encode, text=True)
