"""Each in-tree plugin could leave tomorrow: as a distribution of its own, beside a core that has no plugins,
it is found and passes its conformance suite."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from zoo.recipe.sweep_file import SWEEP_SUFFIX

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENTRY_POINTS = PROJECT["entry-points"]["zoo.plugins"]
PLUGINS = sorted(set(ENTRY_POINTS) - {"core"})

PYPROJECT = """
[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "zoo-{dashed}"
version = "{version}"
dependencies = ["archzoo"]

[project.entry-points."zoo.plugins"]
{id} = "{value}"

[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""
CHECKOUT = [str(ROOT), str(ROOT / "plugins")]
#: Takes the checkout, which is installed as editable, off the path of every process that is started here.
HIDE_CHECKOUT = f"import sys; sys.path[:] = [p for p in sys.path if p not in {CHECKOUT}]"
IGNORED = shutil.ignore_patterns("__pycache__", "tests")
#: The checks that could tell where a component is installed: its files, imports, builds and pickles. What it
#: computes is the same everywhere, and is checked in tests/test_conformance.py; the slow tests run them all.
PLACE = (
    *(
        "described",
        "builds",
        "config_round_trip",
        "card",
        "torch_free",
        "presets",
        "claims_agree",
        "same_seed",
        "meta_device",
        "shapes",
    ),
    *("state_dict", "copies", "weights_file", "data_card", "data_kinds", "task_predicts", "callback_logs"),
    *("decoder_chooses", "transform_saves"),
)

#: The slow forms that checks compare with: whether they are there.
REFERENCES = """
import importlib
import sys
from zoo.catalogue import catalogue
for kind in ("mixer", "model"):
    for spec in catalogue().specs(kind):
        if spec.plugin == sys.argv[1] and spec.reference:
            module, _, name = spec.reference.partition(":")
            assert callable(getattr(importlib.import_module(module), name))
"""


def build(source: Path, site: Path) -> None:
    """Build the wheel of `source` through its PEP 517 backend and unpack it, as pip would."""
    code = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(source)], cwd=source, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(source / done.stdout.split()[-1]) as wheel:
        wheel.extractall(site)


@pytest.fixture(scope="module")
def core_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the core is installed, without any plugin."""
    source, site = tmp_path_factory.mktemp("core"), tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "zoo", source / "zoo", ignore=IGNORED)
    shutil.copytree(ROOT / "recipes/core", source / "recipes/core")
    shutil.copy(ROOT / "README.md", source)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for id in PLUGINS:
        entry = re.escape(f'{id} = "{ENTRY_POINTS[id]}"')  # an extra may be called like a plugin
        text, removed = re.subn(rf"(?m)^{entry}\n", "", text)
        assert removed == 1, f"the entry point of {id} stands in a line of its own"
    text = text.replace('only-include = ["zoo", "plugins", "recipes"]', 'only-include = ["zoo", "recipes"]')
    (source / "pyproject.toml").write_text(text, encoding="utf-8")
    build(source, site)
    (site / "sitecustomize.py").write_text(HIDE_CHECKOUT, encoding="utf-8")
    return site


def evict(id: str, core_site: Path, folder: Path) -> Path:
    """A folder where the core and this plugin are installed, as two distributions."""
    package = ENTRY_POINTS[id].partition(".")[0]
    source, site = folder / "source", shutil.copytree(core_site, folder / "site")
    shutil.copytree(ROOT / "plugins" / package, source / package, ignore=IGNORED)
    if (ROOT / "recipes" / id).is_dir():
        shutil.copytree(ROOT / "recipes" / id, source / package / "recipes")
    pyproject = PYPROJECT.format(
        id=id,
        dashed=id.replace("_", "-"),
        package=package,
        value=ENTRY_POINTS[id],
        version=PROJECT["version"],
    )
    (source / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    build(source, site)
    return site


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ZOO_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=site,
        env={**inherited, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def zoo(site: Path, *arguments: str) -> str:
    done = python(site, "-m", "zoo", *arguments)
    assert done.returncode == 0, f"zoo {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_core_stands_alone(core_site: Path, tmp_path: Path) -> None:
    rows = json.loads(zoo(core_site, "plugins", "--json"))
    assert [(row["id"], row["status"]) for row in rows] == [("core", "ok")]
    assert rows[0]["file"].startswith(str(core_site))
    recipes = [row["name"] for row in json.loads(zoo(core_site, "recipe", "list", "--json"))]
    assert recipes and all(name.startswith("core/") for name in recipes)
    # The templates of the scaffold travel in the wheel.
    zoo(core_site, "new", "plugin", "swirl", "--dir", str(tmp_path))
    assert (tmp_path / "zoo-swirl/zoo_swirl/layers.py").is_file()


@pytest.mark.parametrize("id", PLUGINS)
def test_plugin_could_leave(id: str, core_site: Path, tmp_path: Path) -> None:
    only = [option for check in PLACE for option in ("--only", check)]
    site = evict(id, core_site, tmp_path)
    rows = {row["id"]: row for row in json.loads(zoo(site, "plugins", "--json"))}
    assert set(rows) == {"core", id}
    assert (rows[id]["status"], rows[id]["problems"]) == ("ok", [])
    assert rows[id]["distribution"] == f"zoo-{id.replace('_', '-')}"
    assert rows[id]["file"].startswith(str(site))
    recipes = sorted(row["name"] for row in json.loads(zoo(site, "recipe", "list", f"{id}/*", "--json")))
    own = {path.name for path in (ROOT / "recipes" / id).glob("[!_]*.yaml")}
    sweeps = {name for name in own if name.endswith(SWEEP_SUFFIX)}
    assert recipes == sorted(f"{id}/{name.removesuffix('.yaml')}" for name in own - sweeps)
    for recipe in recipes:
        zoo(site, "validate", recipe)
    for sweep in sweeps:
        zoo(site, "sweep", f"{id}/{sweep.removesuffix(SWEEP_SUFFIX)}", "--list")
    assert check(site, id, *only) == {spec["id"] for spec in rows[id]["specs"]}
    there = python(site, "-c", REFERENCES, id)
    assert there.returncode == 0, there.stderr


def check(site: Path, *arguments: str) -> set[str]:
    """Run conformance checks, which must pass; the components that were checked."""
    done = python(site, "-m", "zoo", "check", *arguments, "--json")
    results = json.loads(done.stdout)
    assert [r for r in results if r["outcome"] in ("failed", "unexpected_pass")] == []
    assert done.returncode == 0
    return {r["component"] for r in results}


@pytest.mark.slow
@pytest.mark.parametrize("id", PLUGINS)
def test_own_tests_pass_elsewhere(id: str, core_site: Path, tmp_path: Path) -> None:
    """Where only it and the core are installed, all its checks and its own tests pass."""
    site = evict(id, core_site, tmp_path)
    check(site, id)
    tests = ROOT / "plugins" / ENTRY_POINTS[id].partition(".")[0] / "tests"
    if not tests.is_dir():
        pytest.skip(f"{id} has no tests of its own")
    shutil.copytree(tests, tmp_path / "tests")
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-x", "--rootdir", str(tmp_path)]
    done = python(site, "-m", "pytest", *options, str(tmp_path / "tests"))
    assert done.returncode == 0, done.stdout[-3000:]
