"""Run folders: made once, found again, never overwritten; clear words where that fails."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import zoo.runs
from zoo.comparison.collect import find_runs
from zoo.errors import ZooError
from zoo.runs import (
    check_resumable,
    create_run,
    find_run,
    list_runs,
    locked,
    open_run,
    replacing,
    weights_path,
)


def test_a_run_folder_is_named_after_recipe_and_time(tmp_path):
    run = create_run(tmp_path, "aaren/digits")
    assert re.fullmatch(r"aaren/digits/\d{8}T\d{6}Z-[0-9a-f]{6}", str(run.path.relative_to(tmp_path)))
    assert run.checkpoints.is_dir() and run.status == "running"


@pytest.mark.parametrize("name", ["../../etc", "a b/c:d", "..", "/absolute/x", "über/größe"])
def test_no_name_leaves_the_folder_of_runs(tmp_path, name):
    run = create_run(tmp_path / "runs", name)
    assert run.path.resolve().is_relative_to((tmp_path / "runs").resolve())


def test_many_runs_at_once_do_not_collide(tmp_path):
    runs = [create_run(tmp_path, "r") for _ in range(50)]
    assert len({run.path for run in runs}) == 50
    assert [run.path for run in list_runs(tmp_path)] == [run.path for run in runs]


def test_a_record_reads_back(tmp_path):
    run = create_run(tmp_path, "r")
    run.update(status="finished", metrics={"test/accuracy": 0.5})
    again = open_run(run.path)
    assert again.status == "finished" and again.info == run.info
    assert not list(run.path.glob(".*")), "no half-written file is left"


def test_runs_are_found_by_path_recipe_and_latest(tmp_path):
    first, second, third = (create_run(tmp_path, name) for name in ("aaren/a", "aaren/b", "aaren/a"))
    assert find_run(first.path).path == first.path
    assert find_run("latest", root=tmp_path).path == third.path
    assert find_run("aaren/b", root=tmp_path).path == second.path
    assert find_run("aaren/a", root=tmp_path).path == third.path


def test_what_is_not_found_is_named(tmp_path):
    with pytest.raises(ZooError, match="no run at all below"):
        find_run("latest", root=tmp_path)
    create_run(tmp_path, "aaren/digits")
    with pytest.raises(ZooError, match="Did you mean 'aaren/digits'"):
        find_run("aaren/digit", root=tmp_path)


def test_other_folders_are_no_runs(tmp_path):
    with pytest.raises(ZooError, match="no run folder"):
        open_run(tmp_path / "absent")
    with pytest.raises(ZooError, match=r"not a run folder: it has no run\.json"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(ZooError, match="cannot be read"):
        open_run(tmp_path)
    for content in ("[]", '{"status": "finished"}'):
        (tmp_path / "run.json").write_text(content, encoding="utf-8")
        with pytest.raises(ZooError, match="not the record of a run"):
            open_run(tmp_path)
    assert list(list_runs(tmp_path)) == []


def test_a_folder_that_cannot_be_made_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ZooError, match=r"file/r/.*cannot be written: Not a directory"):
        create_run(tmp_path / "file", "r")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named_with_the_reason(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(ZooError, match="cannot be written: Permission denied"):
            create_run(tmp_path, "r")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_finished_run_is_not_resumable(tmp_path):
    run = create_run(tmp_path, "r")
    for status in ("interrupted", "failed", "running"):
        run.update(status=status)
        check_resumable(run)
    run.update(status="finished")
    with pytest.raises(ZooError, match="is finished"):
        check_resumable(run)


def test_what_a_run_begins_with_is_there_before_its_record(tmp_path, monkeypatch):
    """A kill in between leaves a folder that is no run."""
    monkeypatch.setattr(zoo.runs.Run, "update", lambda run, **changes: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        create_run(tmp_path, "r", {"recipe.yaml": "schema: 1"})
    (folder,) = tmp_path.glob("r/*")
    assert (folder / "recipe.yaml").read_text() == "schema: 1" and list(list_runs(tmp_path)) == []


def test_a_lock_is_held_once_and_goes_when_it_is_left(tmp_path):
    run = create_run(tmp_path, "r")
    with locked(run):
        assert open_run(run.path).info["pid"] == os.getpid()
        with pytest.raises(ZooError, match=f"still running, in process {os.getpid()}"), locked(run):
            pass
    with pytest.raises(KeyError), locked(run):
        raise KeyError
    with locked(run):
        pass


def test_replacing_keeps_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"ne")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_weights_are_found_in_a_run_or_are_a_file(tmp_path):
    run = create_run(tmp_path, "r")
    with pytest.raises(ZooError, match="has no weights yet"):
        weights_path(run.path)
    run.weights.touch()
    assert weights_path(run.path) == run.weights
    assert weights_path(run.weights) == run.weights


def test_runs_are_handled_without_torch():
    code = "import sys, zoo.runs; print([m for m in ('torch', 'omegaconf', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_record_is_json_for_anybody(tmp_path):
    run = create_run(tmp_path, "r")
    assert json.loads(Path(run.path / "run.json").read_text(encoding="utf-8"))["recipe"] == "r"


def test_a_folder_that_is_called_like_a_recipe_is_not_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe `photos` learns from the folder `photos`."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos.yaml").touch()
    with pytest.raises(ZooError, match=r"'photos' is not a run folder: it has no run\.json$"):
        find_run("photos")
    run = create_run("runs", "photos")
    assert find_run("photos").path == run.path
    with pytest.raises(ZooError, match=r"'photos\.yaml' is a file, not a run: .* or its recipe: 'photos'"):
        find_run("photos.yaml")
    with pytest.raises(ZooError, match=r"'runs' is not a run folder.*It holds runs, such as 'runs/photos/"):
        find_run("runs")


def test_what_is_compared_is_named_as_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZooError, match=r"there is no run 'latest'"):
        find_runs(["latest"])
    Path("photos").mkdir()
    first, second = create_run("runs", "photos"), create_run("runs", "other")
    assert [run.path.name for run in find_runs(["photos", "latest"])] == [first.path.name, second.path.name]
    with pytest.raises(ZooError, match=r"Did you mean 'photos'"):
        find_runs(["photo"])
