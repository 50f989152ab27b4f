"""`zoo new plugin`: what it writes is a complete distribution that works where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from zoo.catalogue import Catalogue
from zoo.cli import main
from zoo.errors import ZooError
from zoo.scaffold import KINDS, new_plugin, render

ROOT = Path(__file__).parents[1]
PLUGINS = {"swirl": "mixer", "gated_stack": "model", "waves": "dataset"}
RECIPES = ("swirl/digits", "gated_stack/digits", "waves/transformer")
#: What examples/zoo-example says of itself: these files hold its own idea.
OWN_FILES = {f"zoo_example/{name}" for name in ("README.md", "plugin.py", "layers.py", "reference.py")}
#: Runs several command lines in one process (torch is imported once) and prints a JSON list of
#: [exit code, stdout, stderr].
RUN_ALL = """
import contextlib, io, json, sys
from zoo.cli import main
results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one new plugin of each kind."""
    folder = tmp_path_factory.mktemp("sources")
    for name, kind in PLUGINS.items():
        assert main(["new", "plugin", name, "--kind", kind, "--dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def site(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where they are installed."""
    return install(sorted(sources.iterdir()), tmp_path_factory.mktemp("site"))


def install(distributions: Sequence[Path], site: Path) -> Path:
    """Build wheels through the PEP 517 backend and unpack them, as pip would."""
    build = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    for source in distributions:
        wheels = site / "wheels"
        wheels.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", build, str(wheels)], cwd=source, capture_output=True, text=True, check=True
        )
        with zipfile.ZipFile(wheels / done.stdout.split()[-1]) as wheel:
            wheel.extractall(site)
    return site


def zoo(site: Path, *lines: str, cwd: Path | None = None) -> list[tuple[int, str, str]]:
    """The outcomes of several command lines of `zoo` with the plugins of `site` installed."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ZOO_")}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps([line.split() for line in lines])],
        cwd=cwd or site,
        env={**inherited, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout.splitlines()[-1])]


def test_found_listed_and_shown(site: Path) -> None:
    plugins, models, shown, recipes, plan = zoo(
        site, "plugins --json", "list models", "show swirl/swirl", "recipe list", "plan gated_stack/digits"
    )
    rows = {row["id"]: row for row in json.loads(plugins[1])}
    for name in PLUGINS:
        row = rows[name]
        assert (row["status"], row["problems"], row["heavy_imports"]) == ("ok", [], [])
    assert "swirl/encoder" in models[1] and "gated_stack/gated_stack" in models[1]
    assert shown[0] == 0 and "learned memory" in shown[1] and "memory" in shown[1].splitlines()[-1]
    assert [recipe for recipe in RECIPES if recipe not in recipes[1]] == []
    assert plan[0] == 0 and "gated_stack/gated_stack(depth=2)" in plan[1], plan


@pytest.fixture(scope="module")
def used(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All of them checked and trained, in one process because torch is slow to import."""
    folder = tmp_path_factory.mktemp("used")
    checks = [f"check {name} --json" for name in PLUGINS]
    trainings = [f"train {recipe} trainer.max_steps=1 --quiet" for recipe in RECIPES]
    outcomes = zoo(site, *checks, *trainings, cwd=folder)
    return {"folder": folder, "checks": outcomes[: len(checks)], "trainings": outcomes[len(checks) :]}


def test_is_conformant(used: dict[str, Any]) -> None:
    results = [result for _, out, _ in used["checks"] for result in json.loads(out)]
    assert [r for r in results if r["outcome"] not in ("passed", "skipped")] == []
    assert [code for code, _, _ in used["checks"]] == [0, 0, 0]
    components = {"swirl/swirl", "swirl/encoder", "gated_stack/gated_stack", "waves/waves"}
    assert {result["component"] for result in results} == components
    held_to = {r["check"] for r in results if r["outcome"] == "passed"}
    assert held_to >= {"no_future", "streams", "state_size", "reference", "padding_left", "card", "data_card"}


def test_trains_one_step(used: dict[str, Any]) -> None:
    for recipe, (code, out, err) in zip(RECIPES, used["trainings"], strict=True):
        assert code == 0, err
        assert "majority" in out
        assert list((used["folder"] / "runs" / recipe).rglob("model.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PLUGINS))
def test_own_tests_pass(site: Path, sources: Path, name: str) -> None:
    folder = sources / f"zoo-{name.replace('_', '-')}"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_blocked(site: Path) -> None:
    (code, _, err), (listed, out, _) = zoo(
        site, "--no-plugin swirl plan swirl/digits", "--no-plugin zoo-swirl list mixers"
    )
    assert code == 2 and "swirl" in err
    assert listed == 0 and "swirl/swirl" not in out and "core/softmax" in out


def test_broken(site: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(site, tmp_path / "site")
    (broken / "zoo_swirl/plugin.py").write_text("import nowhere_to_be_found\n", encoding="utf-8")
    (code, _, err), others = zoo(broken, "show swirl/swirl", "list models")
    assert code == 2 and "nowhere_to_be_found" in err
    assert others[0] == 0 and "gated_stack/gated_stack" in others[1]


def test_upgraded(sources: Path, tmp_path: Path) -> None:
    source = shutil.copytree(sources / "zoo-swirl", tmp_path / "zoo-swirl")
    for file, old, new in (
        ("pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"'),
        ("zoo_swirl/plugin.py", "Gated moving average", "Better moving average"),
    ):
        text = (source / file).read_text(encoding="utf-8")
        assert old in text
        (source / file).write_text(text.replace(old, new), encoding="utf-8")
    site = install([source], tmp_path)
    recipe = site / "pinned.yaml"
    recipe.write_text(
        "schema: 1\nplugins: {swirl: '<0.2'}\nmodel: {name: swirl/encoder}\ndata: {name: core/digits}\n",
        encoding="utf-8",
    )
    plugins, shown, pinned, free = zoo(
        site,
        "plugins swirl --json",
        "show swirl/swirl",
        f"validate {recipe}",
        f"validate {recipe} plugins.swirl='>=0.2'",
    )
    assert json.loads(plugins[1])[0]["version"] == "0.2.0"
    assert "Better moving average" in shown[1]
    assert pinned[0] == 2 and "0.2.0" in pinned[1] + pinned[2]
    assert free[0] == 0, free


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", ["x", "none", "tensor", "a_very_long_name_of_some_forty_letters"])
def test_is_tidy_under_any_name(kind: str, name: str, tmp_path: Path) -> None:
    folder = new_plugin(name, kind=kind, directory=tmp_path, catalogue=Catalogue())
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()]
    assert [text for text in texts if "$" in text] == []
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--ignore", "E501", str(folder)]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for file in folder.rglob("*.py"):
        compile(file.read_text(encoding="utf-8"), str(file), "exec")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "cannot be the name"),
        ("Swirl", "How about 'swirl'?"),
        ("2fast", "How about 'fast'?"),
        ("a b", "How about 'a_b'?"),
        ("../evil", "How about 'evil'?"),
        ("__", "cannot be the name"),
        ("a__b", "How about 'a_b'?"),
        ("trailing-", "How about 'trailing'?"),
        ("zoo-swirl", "name it 'swirl'"),
        ("x" * 41, "at most 40 letters"),
        ("taken", "is installed already (zoo-taken 1.0)"),
        ("other", "is installed already (zoo-other 1.0)"),
    ],
)
def test_refuses_a_name(
    name: str,
    problem: str,
    tmp_path: Path,
    fresh_catalogue: Catalogue,
    plugin_module: Callable[..., Any],
) -> None:
    fresh_catalogue.add(plugin_module("a"), id="taken", distribution="zoo-taken", version="1.0")
    fresh_catalogue.add(plugin_module("b"), id="inner", distribution="zoo-other", version="1.0")
    with pytest.raises(ZooError) as error:
        new_plugin(name, directory=tmp_path, catalogue=fresh_catalogue)
    assert problem in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_on_the_command_line_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, problem in (
        (["core"], "installed already"),
        (["swirl", "--kind", "mixr"], "Did you mean 'mixer'?"),
        (["swirl", "--dir", "nowhere"], "there is no folder"),
    ):
        assert main(["new", "plugin", *arguments]) == 2
        err = capsys.readouterr().err
        assert problem in err and "Traceback" not in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["folder", "file"])
def test_never_overwrites(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "zoo-swirl")
    with pytest.raises(ZooError, match="exists already"):
        new_plugin("swirl", directory=tmp_path, catalogue=Catalogue())
    assert [path.name for path in tmp_path.iterdir()] == ["zoo-swirl"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_leaves_nothing_half_made(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def write_some(path: Path, text: str, **options: Any) -> int:
        if path.name == "config.py":
            raise failure
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", write_some)
    with pytest.raises((ZooError, KeyboardInterrupt)) as error:
        new_plugin("swirl", directory=tmp_path, catalogue=Catalogue())
    assert isinstance(error.value, KeyboardInterrupt) or "No space left on device" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_example_is_what_the_scaffold_writes_plus_its_own_idea() -> None:
    folder = ROOT / "examples/zoo-example"
    ignored = {"__pycache__", ".pytest_cache", ".ruff_cache", "runs"}
    found = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and not ignored & set(path.parts)
    }
    written = {str(path): text for path, text in render("example", "mixer").items()}
    assert set(found) == set(written)
    assert {path for path in found if found[path] != written[path]} == OWN_FILES
    readme = found["zoo_example/README.md"]
    assert [path for path in OWN_FILES if f"`{path}`" not in readme] == []
