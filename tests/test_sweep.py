"""Sweeps: what is to be trained, what is finished, what survives a kill, and comparing it all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.cli import main
from zoo.comparison import collect
from zoo.errors import ZooError
from zoo.recipe import RecipeError, load_recipe
from zoo.recipe.fingerprint import fingerprint, fingerprint_of
from zoo.runs import Run, list_runs
from zoo.sweep import check_points, combine, find_sweep, make_sweep, parse_axes, read_points, read_sweep
from zoo.sweep.worker import Job, carry_out

RECIPE = """\
schema: 1
model: {name: core/mlp_net, width: 8, params: {depth: 1}}
data: {name: core/wine, batch_size: 16}
trainer: {max_steps: 3, log_every_steps: 1}
"""


@pytest.fixture(autouse=True)
def in_a_folder_with_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE, encoding="utf-8")


# -- what is to be trained -----------------------------------------------------------------------


def test_axes_are_combined_with_the_last_one_fastest() -> None:
    axes = parse_axes(["optim.lr=1e-3,3e-3", "seed=0..2"])
    points = combine(axes)
    assert points[:2] == [("optim.lr=1e-3", "seed=0"), ("optim.lr=1e-3", "seed=1")]
    assert len(points) == len(set(points)) == 6


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("k=1", ["1"]),
        ("k=-1..1", ["-1", "0", "1"]),
        ("k={betas: [0.9, 0.95]}", ["{betas: [0.9, 0.95]}"]),
        ("k=[a, b],[c]", ["[a, b]", "[c]"]),
        ("k='a,b',c", ["'a,b'", "c"]),
        ("k=", [""]),
    ],
)
def test_commas_and_ranges(text: str, values: list[str]) -> None:
    assert list(parse_axes([text])[0].values) == values


@given(
    st.lists(st.text("abc019._-", min_size=1).filter(lambda text: ".." not in text), min_size=1, unique=True)
)
def test_any_plain_values_come_back(values: list[str]) -> None:
    assert list(parse_axes([f"key={','.join(values)}"])[0].values) == values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed"], "'seed' is no override; a sweep takes key=v1,v2 or key=0..4"),
        (["seed=1", "seed=2"], "seed is given twice"),
        (["seed=3..1"], "seed=3..1 runs backwards; write seed=1..3"),
        (["seed=0..99999"], "seed=0..99999 has 100,000 values, the most is 10,000"),
        (["seed=1,1"], "seed=1,1 names a value twice"),
        (["seed=1,,2"], "an empty value between its commas"),
    ],
)
def test_mistakes_in_the_arguments(arguments: list[str], message: str) -> None:
    with pytest.raises(ZooError, match=re.escape(message)):
        parse_axes(arguments)


def test_listed_points_are_fragments_of_the_recipe(tmp_path: Path) -> None:
    listed = tmp_path / "points.yaml"
    listed.write_text("- {model: {width: 16, params: {depth: 2}}}\n- optim: {lr: 0.01}\n", encoding="utf-8")
    rows, places = read_points(listed)
    assert list(rows) == [{"model.width": "16", "model.params.depth": "2"}, {"optim.lr": "0.01"}]
    assert str(places["optim.lr=0.01"]).endswith("points.yaml:2:11")
    points = check_points("tiny.yaml", combine(parse_axes(["seed=0,1"]), rows))
    assert [point.loaded.recipe.model.width for point in points] == [16, 16, 8, 8]
    assert [point.loaded.recipe.seed for point in points] == [0, 1, 0, 1]


@pytest.mark.parametrize("text", ["", "a: 1\n", "- 3\n", "[]\n", "- {a: [}\n"])
def test_a_list_of_points_that_is_none(text: str, tmp_path: Path) -> None:
    listed = tmp_path / "points.yaml"
    listed.write_text(text, encoding="utf-8")
    with pytest.raises(ZooError, match=r"points\.yaml"):
        read_points(listed)


def test_a_key_from_both_sides_is_refused() -> None:
    with pytest.raises(ZooError, match="seed is given by the list of points and by an argument"):
        combine(parse_axes(["seed=0,1"]), [{"seed": "3"}])


def test_nothing_is_trained_where_a_point_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "tiny.yaml", "optim.rl=1e-3,1e-2", "seed=0,x"]) == 2
    error = capsys.readouterr().err
    assert "there is no key 'rl' here" in error and "expected a whole number, got the text 'x'" in error
    assert error.count("no key 'rl'") == 1
    assert not Path("runs").exists()


# -- fingerprints --------------------------------------------------------------------------------


def test_a_fingerprint_is_of_what_decides_the_result() -> None:
    own = fingerprint(load_recipe("tiny.yaml"))
    same = [["output.dir=elsewhere"], ["title=other"], ["seed=0"], ["model.params.depth=1"]]
    other = [
        ["seed=1"],
        ["optim.lr=0.1"],
        ["model.width=16"],
        ["trainer.max_steps=4"],
    ]
    assert {fingerprint(load_recipe("tiny.yaml", each)) for each in same} == {own}
    assert len({own, *(fingerprint(load_recipe("tiny.yaml", each)) for each in other)}) == 1 + len(other)


def test_a_revision_changes_the_fingerprint() -> None:
    assert fingerprint_of({"a": 1}, {"model x/y": 1}) != fingerprint_of({"a": 1}, {"model x/y": 2})


# -- training ------------------------------------------------------------------------------------


def job(*overrides: str) -> Job:
    point = check_points("tiny.yaml", [overrides])[0]
    return Job(
        recipe=point.recipe, overrides=point.overrides, id=point.id, log="log", lock=f"{point.id}.lock"
    )


def test_a_point_is_trained_once_and_a_broken_one_goes_on() -> None:
    first = carry_out(job("seed=1"))
    assert first.ending == "finished" and first == carry_out(job("seed=1"))
    (run,) = list_runs("runs")
    as_trained = run.info["metrics"]
    run.update(status="running")  # what a kill leaves
    again = carry_out(job("seed=1"))
    (run,) = list_runs("runs")
    assert again == first and run.status == "finished" and run.info["metrics"] == as_trained


def test_a_point_that_another_process_has_is_left_to_it() -> None:
    from filelock import FileLock

    wanted = job("seed=2")
    with FileLock(wanted.lock):
        assert carry_out(wanted).ending == "taken"
    assert not list(list_runs("runs"))


def test_what_fails_is_told_and_kept() -> None:
    outcome = carry_out(job("optim.params.no_such=1"))  # what timm's optimisers take is told when one is made
    assert outcome.ending == "failed" and "no_such" in outcome.error


def sweep(*arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "zoo", "sweep", "tiny.yaml", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


def test_a_sweep_from_beginning_to_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    """Two workers, one point that fails, a retry that trains nothing else, and the table with its page."""
    arguments = ["optim.lr=1e-3,1e-2", "seed=0,1"]
    process = sweep(*arguments, "--jobs", "2", "--html", "page.html")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    runs = {run.path: run.info["ended"] for run in list_runs("runs")}
    assert len(runs) == 4 and "4 points, 4 new" in err
    assert "against the first" in out and out.count("optim.lr=1e-") == 2
    text = Path("page.html").read_text(encoding="utf-8")
    assert text.count("<svg") >= 4 and "http" not in text.replace("http://www.w3.org", "")
    assert not any(word in text for word in ("<script", "src=", "@import", "url(http"))

    folder = next(Path("runs/sweeps/tiny").glob("*/sweep.json")).parent
    record = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    assert len(record["points"]) == 4 and record["arguments"] == ["tiny.yaml", *arguments]

    assert main(["sweep", "tiny.yaml", *reversed(arguments), "--json"]) == 0  # the same sweep
    shown = json.loads(capsys.readouterr().out)
    assert {point["state"] for point in shown} == {"finished"}
    assert {run.path: run.info["ended"] for run in list_runs("runs")} == runs

    (folder / f"{shown[0]['id']}.failed").write_text("no luck", encoding="utf-8")
    assert main(["compare", str(folder), "--format", "markdown"]) == 0
    table = capsys.readouterr().out
    assert table.count("\n| optim.lr=") == 2 and "core/wine" in table

    assert main(["compare", str(folder), "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("setting,seeds,values,mean")


def test_a_killed_sweep_loses_no_finished_point() -> None:
    arguments = ("seed=0..3", "trainer.max_steps=150")
    process = sweep(*arguments, start_new_session=True)
    deadline = time.monotonic() + 240
    while not (done := [run for run in list_runs("runs") if run.status == "finished"]):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {run.path: run.info["ended"] for run in done}
    process = sweep(*arguments)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    runs = {run.path: run.info for run in list_runs("runs")}
    assert all(runs[path]["ended"] == ended for path, ended in before.items())
    finished = {info["seed"] for info in runs.values() if info["status"] == "finished"}
    assert finished == set(range(4)) and len(runs) == 4  # none was trained twice


def test_a_terminated_sweep_leaves_a_checkpoint_and_goes_on() -> None:
    """As `zoo train` on Ctrl-C: the worker ends, the point it had goes on where it was."""
    arguments = ("seed=0,1", "trainer.max_steps=1200", "trainer.eval_every_steps=50")
    process = sweep(*arguments, start_new_session=True)
    deadline = time.monotonic() + 240
    while not any(run.last.is_file() for run in list_runs("runs")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Interrupted with 2 of 2 points to go. The same command goes on." in err and "Traceback" not in err
    (run,) = list_runs("runs")
    assert run.status == "interrupted" and 50 <= run.info["step"] < 1200
    with pytest.raises(ProcessLookupError):
        os.kill(run.info["pid"], 0)
    outcome = carry_out(job(*arguments[1:], "seed=0"))
    assert outcome.ending == "finished" and outcome.run == str(run.path)


def test_states_of_points() -> None:
    points = check_points("tiny.yaml", combine(parse_axes(["seed=0..2"])))
    swept = make_sweep(points)
    swept.write(["tiny.yaml", "seed=0..2"])
    carry_out(job("seed=0"))
    carry_out(job("seed=1"))
    newest = list(list_runs("runs"))[-1]
    newest.update(status="interrupted")
    states = swept.states()
    assert [states[point.id] for point in points] == ["finished", "interrupted", "new"]
    swept.failure(points[2]).write_text("no luck", encoding="utf-8")
    assert swept.states()[points[2].id] == "failed"


# -- comparing -----------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    carry_out(job("seed=0"))
    carry_out(job("data.name=core/breast_cancer"))
    assert main(["compare", "tiny"]) == 2
    error = capsys.readouterr().err
    assert "they are on different data" in error and "core/wine" in error and "core/breast_cancer" in error
    assert main(["compare", "tinny"]) == 2
    assert "Did you mean 'tiny'?" in capsys.readouterr().err
    assert main(["compare", "tiny", "--metric", "test/acuracy"]) == 2


def test_two_recipes_in_one_sweep_give_one_page(capsys: pytest.CaptureFixture[str]) -> None:
    """A comparison for each dataset; what is written as JSON gives the same page again."""
    other = RECIPE.replace("core/wine", "core/breast_cancer").replace("schema: 1", "schema: 1\ntitle: Other")
    Path("other.yaml").write_text(other, encoding="utf-8")
    command = ["sweep", "tiny.yaml", "other.yaml", "optim.lr=1e-2,1e-3", "seed=0", "--match", "params"]
    assert main([*command, "--html", "page.html"]) == 0
    captured = capsys.readouterr()
    assert "[4/4] other.yaml optim.lr=1e-3" in captured.err
    first, second = captured.out.split("core/breast_cancer")
    assert "core/wine" in first and first.count("optim.lr=1e-") == second.count("optim.lr=1e-") == 2
    text = Path("page.html").read_text(encoding="utf-8")
    assert text.count("<h2>core/") == 2 and "<title>Other</title>" in text
    assert {len(set(width_of(run) for run in list_runs("runs")))} == {1}

    folder = str(next(Path("runs/sweeps/tiny").glob("*/sweep.json")).parent)
    assert main(["compare", folder]) == 2
    assert "--by-data" in capsys.readouterr().err
    assert main(["compare", folder, "--by-data", "--json", "--html", "a.html", "--title", "Both"]) == 0
    Path("both.json").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["compare", "both.json", "--json", "--html", "b.html", "--title", "Both"]) == 0
    assert capsys.readouterr().out == Path("both.json").read_text(encoding="utf-8")
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def width_of(run: Run) -> int:
    return int(run.info["settings"]["model"]["width"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "seed=0"], "name a recipe to sweep over"),
        (["compare", "no.json"], "'no.json' holds no comparison"),
        (["compare", "bad.json"], "'bad.json' holds no comparison"),
        (["compare", "bad.json", "tiny"], "stands alone"),
        (["compare", "bad.json", "--metric", "test/loss"], "is settled"),
    ],
)
def test_mistakes_of_names(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.json").write_text('{"groups": [{"curves": 3}]}', encoding="utf-8")
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_rows_stand_as_they_were_named() -> None:
    carry_out(job("seed=0", "model.width=16"))
    carry_out(job("seed=0"))
    older, newer = list_runs("runs")
    for runs in ([older, newer], [newer, older]):
        assert [group.first.path for group in collect(runs).groups] == [run.path for run in runs]


def test_a_single_seed_cannot_tell(capsys: pytest.CaptureFixture[str]) -> None:
    carry_out(job("seed=0"))
    carry_out(job("seed=0", "model.width=16"))
    assert main(["compare", "tiny", "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert [group["verdict"] for group in groups] == ["reference", "one seed: cannot tell"]
    assert groups[1]["parameters"] > groups[0]["parameters"] > 0
    assert all(group["seconds_per_step"] > 0 and group["peak_bytes"] > 1e7 for group in groups)


def test_mistakes_of_a_recipe_are_recipe_errors() -> None:
    with pytest.raises(RecipeError):
        check_points("tiny.yaml", [("model.width=0",)])


# -- a sweep described by a file -----------------------------------------------------------------

SWEEP = """\
schema: 1
title: Tiny
recipes: [below/tiny.yaml]
values:
  optim: {lr: [1e-3, 1e-2]}
  model: {params: {depth: 1}}
  seed: 0..1
"""


@pytest.fixture
def swept_file(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/tiny.yaml").write_text(RECIPE, encoding="utf-8")
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


def points_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    assert main(["sweep", *arguments, "--list", "--json"]) == 0
    return {point["id"] for point in json.loads(capsys.readouterr().out)}


def test_a_file_is_the_command_line_written_down(
    swept_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand = ["below/tiny.yaml", "optim.lr=1e-3,1e-2", "model.params.depth=1", "seed=0..1"]
    assert points_of("sweep.yaml", capsys=capsys) == points_of(*by_hand, capsys=capsys)
    upon = points_of("sweep.yaml", "seed=7", "model.width=4,8", "tiny.yaml", capsys=capsys)
    assert upon == points_of(
        "tiny.yaml", "optim.lr=1e-3,1e-2", "seed=7", "model.width=4,8", "model.params.depth=1", capsys=capsys
    )
    swept_file.write_text(
        SWEEP.replace(
            "  seed: 0..1\n", "points:\n  - {model: {width: 4}, seed: 3}\n  - {model: {width: 6}}\n"
        ),
        encoding="utf-8",
    )
    Path("points.yaml").write_text("- {model: {width: 4}, seed: 3}\n- model: {width: 6}\n", encoding="utf-8")
    assert points_of("sweep.yaml", capsys=capsys) == points_of(
        *by_hand[:3], "--points", "points.yaml", capsys=capsys
    )
    assert not Path("runs").exists()


def test_options_of_a_file_hold_until_the_command_line_says_else(
    swept_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept_file.write_text(
        SWEEP.replace("[1e-3, 1e-2]", "1e-3..1e-1")
        + "sampler: random\ntrials: 3\njobs: 2\nhtml: page.html\n",
        encoding="utf-8",
    )
    three = points_of("sweep.yaml", capsys=capsys)
    assert len(three) == 6 and three == points_of("sweep.yaml", "--trials", "3", capsys=capsys)
    assert len(points_of("sweep.yaml", "--trials", "1", capsys=capsys)) == 2
    assert points_of("sweep.yaml", "--sampler-seed", "1", capsys=capsys).isdisjoint(three)
    assert main(["sweep", "sweep.yaml", "--trials", "1", "seed=0"]) == 0
    captured = capsys.readouterr()
    assert "best val/accuracy" in captured.err and "test/accuracy" in captured.out
    assert "<title>Tiny</title>" in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "recipes:",
            "recipe:",
            "sweep.yaml:3:1: recipe: there is no key 'recipe' here. Did you mean 'recipes'?",
        ),
        (
            "recipes:",
            "jobs: two\nrecipes:",
            "sweep.yaml:3:1: jobs: expected a whole number, got the text 'two'",
        ),
        ("recipes:", "jobs: 0\nrecipes:", "jobs: must be at least 1, got 0"),
        ("recipes:", "sampler: tpee\nrecipes:", "Did you mean 'tpe'?"),
        ("recipes:", "trials: 3\nrecipes:", "a number of trials is for a sampler"),
        ("schema: 1", "schema: 9", "schema: is 9, but this zoo reads schema 1; upgrade"),
        ("tiny.yaml", "tinny.yaml", "there is no recipe file 'below/tinny.yaml'. Did you mean 'tiny.yaml'?"),
        ("[below/tiny.yaml]", "[]", "recipes: must name at least one recipe"),
        ("0..1", "1..0", "sweep.yaml:7:3: values.seed: seed=1..0 runs backwards"),
        ("0..1", "[1, 1]", "values.seed: [1, 1] names a value twice"),
        ("0..1", "[]", "values.seed: an empty list is no value"),
        ("0..1", "x", "sweep.yaml:7:3: seed: expected a whole number, got the text 'x'"),
        ("lr:", "rl:", "sweep.yaml:5:11: optim.rl: there is no key 'rl' here"),
        ("[1e-3, 1e-2]", "0.001..0.01", "optim.lr has no end of values"),
    ],
)
def test_mistakes_of_a_file_stand_where_they_are(
    swept_file: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    swept_file.write_text(SWEEP.replace(old, new), encoding="utf-8")
    assert main(["sweep", "sweep.yaml"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_mistake_of_the_command_line_is_told_from_those_of_the_file(
    swept_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number would count the file's values, too."""
    assert main(["sweep", "sweep.yaml", "optim.name=adamw,zorgy"]) == 2
    assert "override (optim.name=zorgy): optim.name: there is no optimiser 'zorgy'" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_mistake_of_a_listed_point_has_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    Path("points.yaml").write_text("- {model: {width: 4}}\n- {model: {widht: 6}}\n", encoding="utf-8")
    assert main(["sweep", "tiny.yaml", "--points", "points.yaml"]) == 2
    assert "points.yaml:2:12: model.widht: there is no key 'widht' here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "sweep.yaml"], "this is a sweep, not a recipe: zoo sweep sweep.yaml"),
        (
            ["train", "core/five_models"],
            "'core/five_models' is a sweep, not a recipe: zoo sweep core/five_models",
        ),
        (["sweep", "sweep.yaml", "core/five_models"], "these are 2 sweeps, sweep.yaml and core/five_models"),
        (["sweep", "core/five_modles"], "unknown recipe 'core/five_modles'"),
        (["sweep", "sweep.yaml", "--points", "none.yaml"], "the list of points 'none.yaml' cannot be read"),
    ],
)
def test_one_where_the_other_is_expected(
    swept_file: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_recipe_shares_no_key_with_a_sweep_but_two() -> None:
    from dataclasses import fields

    from zoo.recipe import Recipe
    from zoo.recipe.sweep_file import KEYS, SweepFile

    assert {field.name for field in fields(SweepFile)} - KEYS == {"schema", "title"}
    assert "model" in {field.name for field in fields(Recipe)} and "model" not in KEYS


def test_sweeps_that_come_with_the_zoo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from zoo.recipe.find import list_recipes, sweep_files

    assert "core/five_models" in sweep_files()
    assert not set(sweep_files()) & {recipe.name for recipe in list_recipes()}
    for path in sweep_files().values():
        settings = read_sweep(path)
        assert check_points(settings.recipes, combine(settings.axes, settings.rows), places=settings.places)
    assert main(["recipe", "copy", "core/five_models", "mine.yaml"]) == 0
    assert "zoo sweep mine.yaml" in capsys.readouterr().out
    assert find_sweep("mine.yaml") == Path("mine.yaml")
