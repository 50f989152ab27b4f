"""`core/table`: a user's CSV or Parquet file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.catalogue import catalogue
from zoo.contract import kinds_of, resolve
from zoo.data import read_inputs
from zoo.data.own.samples import table as write_sample
from zoo.data.own.samples import write_csv
from zoo.data.own.table_columns import encode, fit_encoder
from zoo.data.own.table_file import read_table, table_of
from zoo.errors import ZooError
from zoo.kinds import Classes, Multi, Values
from zoo.recipe import RecipeError, load_recipe, validate
from zoo.training import evaluate, predict


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows(n: int = 40, *, label: str = "abab") -> str:
    """A CSV of n rows: x (numbers), kind (two texts), y (a class), z (a value)."""
    lines = [f"{i},{'uv'[i % 3 == 0]},{label[i % len(label)]},{i / 7}" for i in range(n)]
    return "x,kind,y,z\n" + "\n".join(lines) + "\n"


def load(path: str, target: Any = "y", **params: Any) -> Any:
    return zoo.create_dataset("core/table", path=path, target=target, **params)


def kinds(path: str, target: Any = "y", **params: Any) -> Any:
    return kinds_of(
        catalogue(), catalogue().part("dataset", "table", {"path": path, "target": target, **params})
    )


def notes(path: str, target: Any = "y", **params: Any) -> str:
    part = catalogue().part("dataset", "table", {"path": path, "target": target, **params})
    return "\n".join(resolve(catalogue(), model=catalogue().part("model", "mlp_net"), dataset=part).notes)


def test_columns_become_features_fitted_on_train(tmp_path: Path) -> None:
    params = write_sample(tmp_path)
    splits = zoo.create_dataset("core/table", **params)
    x, table = splits.train.inputs, read_table(Path(params["path"]))
    assert splits.sizes == {"train": 84, "val": 12, "test": 24}
    assert x.shape[1] == 6  # age, is age missing, three cities, hours
    assert x[:, 0].mean().abs() < 1e-6 and x[:, 0][x[:, 1] == 1].abs().max() == 0  # filled with the mean
    assert set(x[:, 2:5].sum(1).tolist()) == {1.0}
    assert (x[:, 1].sum() + splits.val.inputs[:, 1].sum() + splits.test.inputs[:, 1].sum()) == sum(
        cell == "" for cell in table.column("age")
    )


def test_what_was_found_is_shown(tmp_path: Path) -> None:
    params = write_sample(tmp_path)
    text = notes(**params)
    for words in (
        "120 rows, train / val / test 84 / 12 / 24",
        "2 classes (no 39, yes 81)",
        "city (3)",
        "flagged: age",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("target", "columns", "expected"),
    [
        ("y", {}, Classes(count=2, names=("a", "b"))),
        ("z", {}, Values(count=1, names=("z",))),
        ("x", {}, Values(count=1, names=("x",))),
        ("kind", {}, Classes(count=2, names=("u", "v"))),
        (["x", "z"], {}, Values(count=2, names=("x", "z"))),
        (
            ["y", "z"],
            {},
            Multi(parts={"y": Classes(count=2, names=("a", "b")), "z": Values(count=1, names=("z",))}),
        ),
    ],
)
def test_targets_are_recognised(tmp_path: Path, target: Any, columns: Any, expected: Any) -> None:
    assert kinds(write(tmp_path / "t.csv", rows()), target, columns=columns)[1] == expected


def test_few_whole_numbers_are_classes_unless_one_says_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "x,grade\n" + "".join(f"{i},{i % 11}\n" for i in range(220)))
    kind = kinds(path, "grade")[1]
    assert isinstance(kind, Classes) and kind.names == tuple(map(str, range(11)))  # in the order of numbers
    assert "`columns: {grade: number}` makes it a value" in notes(path, "grade")
    assert kinds(path, "grade", columns={"grade": "number"})[1] == Values(count=1, names=("grade",))
    many = write(tmp_path / "u.csv", "x,y\n" + "".join(f"{i},{i * 3}\n" for i in range(220)))
    assert kinds(many)[1] == Values(count=1, names=("y",))


def test_several_targets_with_missing_values(tmp_path: Path) -> None:
    text = "x,yield (MPa),hv\n" + "".join(
        f"{i},{i * 2 if i % 3 else ''},{i if i % 2 else 'NA'}\n" for i in range(60)
    )
    splits = load(write(tmp_path / "t.csv", text), ["yield (MPa)", "hv"])
    kind = kinds(str(tmp_path / "t.csv"), ["yield (MPa)", "hv"])[1]
    assert kind == Values(count=2, names=("yield_MPa", "hv"), missing=True)
    target = splits.train.targets
    assert (
        target.isnan().any(dim=0).all() and not target.isnan().all(dim=1).any()
    )  # rows of no target are gone
    assert target.nanmean(dim=0).abs().max() < 1e-5
    assert "10 rows without a target are left out" in notes(str(tmp_path / "t.csv"), ["yield (MPa)", "hv"])
    x = splits.train.inputs[:, 0]
    natural = splits.decode(target)
    known = ~target.isnan().any(dim=1)
    assert torch.allclose(natural[known][:, 0], 2 * natural[known][:, 1], atol=1e-3)
    assert x.shape[0] == len(target)


def test_a_dict_of_targets_and_its_decoding(tmp_path: Path) -> None:
    splits = load(write(tmp_path / "t.csv", rows()), ["y", "z"])
    example = splits.train[0]
    assert example["target"]["y"].dtype == torch.int64 and example["target"]["z"].shape == (1,)
    outputs = torch.tensor([[0.5, -0.5, 0.0]])
    decoded = splits.decode(outputs)
    assert decoded[0, :2].tolist() == [0.5, -0.5] and decoded[0, 2] > 1  # the mean of z


def test_parts_by_column_and_by_group(tmp_path: Path) -> None:
    text = "x,y,part\n" + "".join(
        f"{i},{'ab'[i % 2]},{('train', 'dev', 'test')[i // 10]}\n" for i in range(30)
    )
    splits = load(write(tmp_path / "t.csv", text), split="part")
    assert splits.sizes == {"train": 10, "val": 10, "test": 10} and splits.train.inputs.shape[1] == 1
    no_val = write(tmp_path / "u.csv", text.replace("dev", "train"))
    assert load(no_val, split="part").sizes == {"train": 18, "val": 2, "test": 10}
    grouped = "x,y,who\n" + "".join(f"{i},{'ab'[i % 2]},{i // 5}\n" for i in range(100))
    splits = load(write(tmp_path / "g.csv", grouped), group="who")
    parts = [split.inputs[:, 0].tolist() for split in (splits.train, splits.val, splits.test)]
    rank = {
        value: i for i, value in enumerate(sorted(value for part in parts for value in part))
    }  # x is 0 to 99
    groups = [{rank[value] // 5 for value in part} for part in parts]
    assert [len(group) for group in groups] == [14, 2, 4] and len(set.union(*groups)) == 20


def test_rows_that_repeat_lie_in_one_part(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{i % 20},{'ab'[i % 2]}\n" for i in range(200))
    splits = load(write(tmp_path / "t.csv", text))
    values = [set(split.inputs[:, 0].tolist()) for split in (splits.train, splits.val, splits.test)]
    assert not values[0] & values[1] and not values[0] & values[2] and not values[1] & values[2]


def test_an_unseen_class(tmp_path: Path) -> None:
    text = "x,y,part\n" + "".join(f"{i},{'ab'[i % 2]},{('train', 'val', 'test')[i % 3]}\n" for i in range(30))
    path = write(tmp_path / "t.csv", text + "31,new,test\n32,new,test\n")
    with pytest.raises(
        ZooError, match=r"occur in test but not in train.*'new' \(2\), first in line 32.*unseen: drop"
    ):
        kinds(path, split="part")
    assert load(path, split="part", unseen="drop").sizes == {"train": 10, "val": 10, "test": 10}
    assert "left out: 'new' (2)" in notes(path, split="part", unseen="drop")


def test_constant_infinite_and_naming_columns(tmp_path: Path) -> None:
    lines = "".join(f"row {i},{i},3,{'inf' if i == 7 else i * i},{'ab'[i % 2]}\n" for i in range(80))
    path = write(tmp_path / "t.csv", "id,x,same,square,y\n" + lines)
    text = notes(path)
    assert "id (56 different texts in 56 rows)" in text and "same (always 3)" in text
    assert "square: 1 infinite values count as missing" in text
    assert load(path).train.inputs.isfinite().all() and kinds(path)[0].features == 3  # x, square, its flag


def test_rare_values_share_a_row_of_zeros(tmp_path: Path) -> None:
    cells = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
    table = table_of(Path("t"), {"k": cells, "y": [0] * 100})
    encoder, _ = fit_encoder(table, "k", np.ones(100, dtype=bool), kind=None, most=2)
    assert encoder is not None and encoder["values"] == ["a", "b"]
    assert encode(table, [encoder]).sum() == 80


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; expected a first line that names the columns"),
        ("x,y\n", "has a header, but no row below it"),
        ("x,y\n1,a\n2\n", "line 3: 1 cells, but the header names 2 columns"),
        ("x,y\n1,a\n2,b,c\n", "line 3: 3 cells, but the header names 2 columns"),
        ("1,2\n3,4\n", "the first line must name the columns, but holds numbers: 1, 2"),
        ("x,x,y\n1,2,a\n", "two columns are called 'x'"),
        ("x,,y\n1,2,a\n", "a column has no name"),
        ('x,y\n"1,a\n', "this is no CSV"),
        ("x,label\n1,a\n2,b\n", "no column 'y'"),
        ("x,y\n1,\n2,\n", "column 'y' is empty in every row"),
        ("x,y\n1,a\n2,b\n", "no row is for"),
        ("x,y\n" + "".join(f"{i},a\n" for i in range(30)), "y is always 'a': there is nothing to learn"),
        ("x,y\n" + "5,a\n" * 9, "no row is for"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ZooError, match=re.escape(words)):
        kinds(write(tmp_path / "t.csv", text))


def test_a_table_without_features(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "x,z,y\n" + "".join(f"{i},1,{'ab'[i % 2]}\n" for i in range(40)))
    with pytest.raises(ZooError, match=r"no column to predict from. Left out: z \(always 1\)"):
        kinds(path, columns={"x": "ignore"})


def test_bad_bytes_and_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(rows().replace("x,kind", "größe,kind").encode("latin-1"))
    with pytest.raises(ZooError, match=r"is no utf-8 text \(byte 2\); `encoding` names another"):
        kinds(str(path))
    assert kinds(str(path), encoding="latin-1")[0].features == 4
    with pytest.raises(ZooError, match="no text encoding 'latin-0'"):
        kinds(str(path), encoding="latin-0")


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_delimiters_are_found(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path / "t.csv", rows().replace(",", delimiter))
    assert kinds(path) == kinds(write(tmp_path / "u.csv", rows()))


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    params = write_sample(tmp_path)
    table = read_table(Path(params["path"]))
    numbers = {"age": int, "hours": float}
    columns = {
        name: [(numbers[name](cell) if cell else None) if name in numbers else cell for cell in cells]
        for name, cells in table.columns.items()
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "v.parquet")
    one, other = (load(str(path), "comes_back") for path in (params["path"], tmp_path / "v.parquet"))
    # The draw depends on the rows' order alone, so that both are split alike.
    assert torch.equal(one.train.inputs, other.train.inputs) and torch.equal(
        one.test.targets, other.test.targets
    )
    (tmp_path / "w.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(ZooError, match="no Parquet file"):
        kinds(str(tmp_path / "w.parquet"))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ZooError, match=r"pip install 'archzoo\[parquet\]'"):
        kinds(str(tmp_path / "t.parquet"))


def test_new_rows_are_read_by_the_names_of_their_columns(tmp_path: Path) -> None:
    params = write_sample(tmp_path)
    splits = zoo.create_dataset("core/table", **params)
    kind = kinds(**params)[0]
    table = read_table(Path(params["path"]))
    names = ["hours", "extra", "city", "age"]  # another order, another column, no target
    new = [[table.column(n)[i] if n != "extra" else "z" for n in names] for i in range(3)]
    new.append(["1.0", "", "Paris", ""])
    write_csv(tmp_path / "new.csv", names, new)
    found = read_inputs(tmp_path / "new.csv", kind, encode=splits.encode)
    whole = [tuple(x.tolist()) for s in (splits.train, splits.val, splits.test) for x in s.inputs]
    assert all(tuple(x.tolist()) in whole for x in found[:3])
    assert found[3][2:5].sum() == 0 and found[3][1] == 1  # an unknown city is none of the three
    write_csv(tmp_path / "bad.csv", ["hour", "city", "age"], [["1", "Oslo", "3"]])
    with pytest.raises(
        ZooError, match=r"lacks the column 'hours', on which the model was trained. Did you mean 'hour'"
    ):
        read_inputs(tmp_path / "bad.csv", kind, encode=splits.encode)
    write_csv(tmp_path / "bad.csv", ["hours", "city", "age"], [["1", "Oslo", "3"], ["1", "Oslo", "old"]])
    with pytest.raises(ZooError, match="line 3: column 'age' must hold numbers, got 'old'"):
        read_inputs(tmp_path / "bad.csv", kind, encode=splits.encode)


RECIPE = """\
schema: 1
model: {name: core/mlp_net, width: 16, params: {depth: 1}}
data:
  name: core/table
  params:
    path: visitors.csv
    target: comes_back
trainer: {max_epochs: 2}
"""


def test_a_path_is_relative_to_the_recipe_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab").mkdir()
    write_sample(tmp_path / "lab")
    recipe = write(tmp_path / "lab" / "r.yaml", RECIPE)
    monkeypatch.chdir(tmp_path)
    loaded = load_recipe(recipe)
    assert loaded.recipe.data.params["path"] == "visitors.csv" and loaded.plan.dataset is not None
    assert loaded.plan.dataset.config.path == str(tmp_path / "lab" / "visitors.csv")
    again = load_recipe(write(tmp_path / "resolved.yaml", loaded.render()))  # from another folder
    assert again.plan == loaded.plan
    override = load_recipe(recipe, ["data.params.path=lab/visitors.csv"])  # counts from the working folder
    assert override.plan == loaded.plan
    assert str(tmp_path) not in json.dumps(loaded.plan.to_dict())  # what is passed on with the weights


def test_mistakes_stand_at_their_parameters(tmp_path: Path) -> None:
    write_sample(tmp_path)
    recipe = write(tmp_path / "r.yaml", RECIPE.replace("comes_back", "come_back"))
    report = validate(recipe)
    assert [m.path for m in report.mistakes] == ["data.params.target"] and report.mistakes[0].origin.line == 7
    assert "Did you mean 'comes_back'?" in report.mistakes[0].message
    missing = validate(write(tmp_path / "r.yaml", RECIPE.replace("visitors", "vistors")))
    assert (
        "Did you mean 'visitors.csv'?" in missing.mistakes[0].message and missing.mistakes[0].origin.line == 6
    )
    (tmp_path / "visitors.csv").write_text("a,b\n1\n", encoding="utf-8")
    broken = validate(write(tmp_path / "r.yaml", RECIPE))
    assert [m.path for m in broken.mistakes] == ["data.params.path"] and "line 2: 1 cells" in broken.mistakes[
        0
    ].message


def test_a_run_says_which_file_and_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    params = write_sample(tmp_path)
    recipe = write(tmp_path / "r.yaml", RECIPE)
    monkeypatch.chdir(tmp_path)
    result = zoo.train(recipe, ["callbacks.progress=null"], quiet=True)
    info = json.loads((result.run.path / "run.json").read_text())
    sha256 = hashlib.sha256(Path(params["path"]).read_bytes()).hexdigest()
    assert sha256 in json.dumps(info)
    public = {name: value for name, value in info.items() if name not in ("command", "settings")}
    assert str(tmp_path) not in json.dumps(public)  # the settings are those of resolved.yaml
    from zoo.training import predict

    write_csv(tmp_path / "new.csv", ["city", "age", "hours"], [["Rome", 30, 9], ["Oslo", "", 0.1]])
    answers = predict(result.run, tmp_path / "new.csv")
    assert [set(answer) for answer in answers] == [{"class", "probability"}] * 2
    assert {answer["class"] for answer in answers} <= {"yes", "no"}


def test_the_second_look_reads_no_rows_and_no_torch(tmp_path: Path, cache: Path) -> None:
    params = write_sample(tmp_path)
    first = kinds(**params)
    assert len(list((cache / "own").glob("table-*.json"))) == 1
    code = (
        "import sys, zoo.data.own.table_config as c\n"
        f"found = c.TableConfig(**{params!r}).kinds()\n"
        "print(found[0].features, [n for n in ('torch', 'numpy', 'csv', 'omegaconf') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ.copy())
    assert done.stdout.strip() == f"{first[0].features} []", done.stderr
    text = Path(params["path"]).read_text()
    Path(params["path"]).write_text(text.replace("Oslo", "Riga", 1))
    assert kinds(**params)[0].features == first[0].features + 1  # a change is seen
    next((cache / "own").glob("table-*.json")).write_text("{broken")
    assert kinds(**params)[0].features == first[0].features + 1


@settings(max_examples=40, deadline=None)
@given(
    cells=st.lists(
        st.one_of(
            st.just(""), st.floats(-1e6, 1e6).map(lambda x: f"{x:.3f}"), st.sampled_from(["a", "b", "inf"])
        ),
        min_size=3,
        max_size=30,
    )
)
def test_whatever_a_column_holds_its_code_is_finite(cells: list[str]) -> None:
    table = table_of(Path("t"), {"c": cells})
    train = np.arange(len(cells)) % 3 != 0
    encoder, why = fit_encoder(table, "c", train, kind=None, most=5)
    if encoder is None:
        assert why
        return
    code = encode(table, [encoder])
    assert code.shape[0] == len(cells) and np.isfinite(code).all()


def test_a_run_whose_data_was_moved_says_how_to_name_the_new_place(tmp_path: Path) -> None:
    before = Path(write(tmp_path / "rows.csv", rows()))
    recipe = {
        "schema": 1,
        "model": {"name": "core/mlp_net", "width": 8, "params": {"depth": 1}},
        "data": {"name": "core/table", "params": {"path": str(before), "target": "y"}},
        "trainer": {"max_steps": 1},
        "output": {"dir": str(tmp_path / "runs")},
    }
    result = zoo.train(recipe, quiet=True)
    run, after = result.run, before.rename(tmp_path / "moved.csv")
    assert run is not None
    hint = "If it lies elsewhere now, add data.params.path=PLACE"
    with pytest.raises(RecipeError, match=hint):
        evaluate(run)
    with pytest.raises(RecipeError, match=hint):
        predict(run, after)
    with pytest.raises(RecipeError, match="nothing at") as wrong:
        evaluate(run, overrides=["data.params.path=nowhere.csv"])
    assert hint not in str(wrong.value)
    there = [f"data.params.path={after}"]
    assert evaluate(run, overrides=there).metrics == pytest.approx(dict(result.metrics))
    assert len(predict(run, after, overrides=there)) == 40
