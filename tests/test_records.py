"""Records of what recipes reached: how they are made, when they are out of date, and what they contradict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from zoo.cli import main
from zoo.errors import ZooError
from zoo.recipe import list_recipes, load_recipe
from zoo.recipe.schema import Expect
from zoo.records import SUFFIX, Record, make_record, path_of, read_record
from zoo.runs import list_runs

RECIPE = """\
schema: 1
model: {name: core/mlp_net, width: 8, params: {depth: 1}}
data: {name: core/wine, batch_size: 16}
trainer: {max_steps: 3}
"""


@pytest.fixture(autouse=True)
def in_a_folder_with_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(RECIPE, encoding="utf-8")


def train(*overrides: str) -> None:
    assert main(["train", "tiny.yaml", "--quiet", *overrides]) == 0


def recorded() -> Record:
    record = read_record(Path("tiny.record.json"))
    assert record is not None
    return record


def test_no_shipped_recipe_contradicts_its_record() -> None:
    """Renew a record with `zoo record RECIPE`, or correct what the recipe expects."""
    found = []
    records = {file.path.parent for file in list_recipes()}
    stray = {path for folder in records for path in folder.glob(f"*{SUFFIX}")}
    for file in list_recipes():
        record = read_record(path_of(file.path))
        if record is None:
            continue
        stray.discard(path_of(file.path))
        expect = load_recipe(file.name).recipe.expect
        found += [f"{file.name} {sentence}" for sentence in (record.contradictions(expect) if expect else ())]
        assert record.recipe == file.name and record.values()
    assert found == [] and stray == set()


def test_from_runs_to_a_record_and_on(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 0):
        train(f"seed={seed}")
    train("seed=0", "model.width=16")
    capsys.readouterr()
    assert main(["record", "tiny.yaml"]) == 0
    printed = capsys.readouterr().out
    record = recorded()
    by_seed = {
        run.info["seed"]: run.info["metrics"]["test/accuracy"]
        for run in list_runs("runs")
        if not any("width" in text for text in run.info["overrides"])
    }
    assert record.values("test/accuracy") == by_seed and list(record.seeds) == [0, 1]
    assert record.metric == "test/accuracy" and record.mode == "max" and record.metric in printed
    assert record.seeds[0].steps == 3 and record.seeds[0].seconds is not None
    assert "settings" not in printed and record.state(load_recipe("tiny.yaml")) == "current"

    shutil.rmtree("runs")  # what is recorded stays, one more seed is added
    train("seed=2")
    assert main(["record", "tiny.yaml", "--json"]) == 0
    assert list(recorded().seeds) == [0, 1, 2] and recorded().seeds[1] == record.seeds[1]

    Path("tiny.yaml").write_text(RECIPE.replace("max_steps: 3", "max_steps: 4"), encoding="utf-8")
    assert recorded().state(load_recipe("tiny.yaml")) == "changed"
    assert main(["record", "tiny.yaml"]) == 2  # no run of the recipe as it is now
    error = capsys.readouterr().err
    assert "no run of 'tiny' as it stands is finished; 1 finished with other settings" in error
    train("seed=5")
    assert main(["record", "tiny.yaml"]) == 0 and list(recorded().seeds) == [5]


def test_a_setting_that_is_new_in_the_zoo_changes_nothing() -> None:
    train()
    assert main(["record", "tiny.yaml"]) == 0
    path, loaded = Path("tiny.record.json"), load_recipe("tiny.yaml")
    data = json.loads(path.read_text(encoding="utf-8"))
    del data["settings"]["trainer"]["compile"]
    path.write_text(json.dumps(data), encoding="utf-8")
    assert recorded().state(loaded) == "current"
    data["settings"]["trainer"]["gone"] = 1
    path.write_text(json.dumps(data), encoding="utf-8")
    assert recorded().state(loaded) == "changed"
    data["revisions"] = {**data["revisions"], "model core/mlp_net": 99}
    del data["settings"]["trainer"]["gone"]
    path.write_text(json.dumps(data), encoding="utf-8")
    assert recorded().state(loaded) == "changed"


def test_what_contradicts_an_expectation(capsys: pytest.CaptureFixture[str]) -> None:
    train()
    record = make_record(load_recipe("tiny.yaml"), list_runs("runs"))
    (loss,) = record.values("test/loss").values()
    below, above = loss - 0.1, loss + 0.1

    def told(**expect: object) -> str:
        return "; ".join(record.contradictions(Expect(measured_on="now", **expect)))  # type: ignore[arg-type]

    assert told(metric="test/loss", at_most=above) == told(metric="test/loss", at_least=below) == ""
    assert "at most" in told(metric="test/loss", at_most=below) and "seed 0 has" in told(
        metric="test/loss", at_most=below
    )
    assert "at least" in told(metric="test/loss", at_least=above)
    assert "3 seeds, 1 are recorded" in told(metric="test/loss", at_most=above, seeds=3)
    assert "not recorded" in told(metric="test/nll", at_most=1)

    expects = f"expect: {{metric: test/loss, at_most: {below}, measured_on: now}}\n"
    Path("tiny.yaml").write_text(RECIPE + expects, encoding="utf-8")
    assert main(["record", "tiny.yaml"]) == 1  # written all the same
    assert "the recipe expects test/loss of at most" in capsys.readouterr().out
    assert recorded().metric == "test/loss" and recorded().mode == "min"


def test_what_is_no_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "tiny.yaml"]) == 2
    assert "zoo sweep tiny seed=0..2" in capsys.readouterr().err
    for text in ("{", "[]", "{}", '{"seeds": {"x": {}}}'):
        Path("tiny.record.json").write_text(text, encoding="utf-8")
        with pytest.raises(ZooError, match=r"tiny\.record\.json' cannot be read"):
            recorded()


def test_the_list_shows_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["recipe"] for row in rows] == [file.name for file in list_recipes()]
    assert {row["state"] for row in rows} <= {"current", "changed", "not recorded"}
