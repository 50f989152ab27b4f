"""The wheel holds core, plugins, recipes and data, and works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built wheel unpacked, as pip would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    unpacked = folder / "site"
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as wheel:
        wheel.extractall(unpacked)
    return unpacked


def zoo(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-m", "zoo", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_holds_what_users_need_and_nothing_else(site: Path) -> None:
    top = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    plugins = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
    assert top == {"zoo", *plugins}
    recipes = {path.relative_to(ROOT / "recipes") for path in (ROOT / "recipes").rglob("*.yaml")}
    assert recipes, "no recipes in the checkout"
    packed = {path.relative_to(site / "zoo/_recipes") for path in (site / "zoo/_recipes").rglob("*.yaml")}
    assert packed == recipes
    assert (site / "zoo/data/bundled/DATA_LICENSES").is_file()
    assert (site / "zoo/py.typed").is_file()
    loops = {path.relative_to(ROOT / "plugins") for path in (ROOT / "plugins").rglob("*.c")}
    assert loops and all((site / path).is_file() for path in loops)
    assert not [path for path in site.rglob("tests") if path.is_dir()]
    assert not list(site.rglob("*.pyc"))


def test_every_bundled_file_is_licensed_and_small(site: Path) -> None:
    files = [p for p in (site / "zoo/data/bundled").iterdir() if p.suffix not in (".py", "")]
    licences = (site / "zoo/data/bundled/DATA_LICENSES").read_text(encoding="utf-8")
    assert files
    assert [path.name for path in files if path.name not in licences] == []
    assert sum(path.stat().st_size for path in files) < 1_500_000


def test_lists_and_trains_away_from_the_checkout(site: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import zoo, zoo_aaren; print(zoo.__file__); print(zoo_aaren.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(line.startswith(str(site)) for line in where.stdout.split())
    listed = zoo(site, tmp_path, "list", "models")
    assert listed.returncode == 0 and "aaren/encoder" in listed.stdout, listed.stderr
    trained = zoo(
        site, tmp_path, "train", "aaren/digits", "trainer.max_epochs=1", "model.params.depth=1", "--quiet"
    )
    assert trained.returncode == 0, trained.stderr
    assert list((tmp_path / "runs").rglob("model.safetensors"))
