"""Who may import whom: import-linter's contracts in pyproject.toml, and that they name every plugin."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts on the packages in `folder`."""
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "plugins")])},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_contract_is_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"Contracts: \d+ kept, 0 broken", done.stdout)


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("plugins/zoo_aaren/plugin.py", "import zoo.catalogue", "Plugins use the public API alone"),
        ("zoo/catalogue.py", "import zoo_aaren", "The core names no plugin"),
        ("zoo/catalogue.py", "import zoo.contract", "The core imports one way"),
        ("zoo/newcomer.py", "", "The core imports one way"),
    ],
)
def test_the_contracts_catch_what_they_are_for(tmp_path: Path, file: str, line: str, broken: str) -> None:
    for name in ("zoo", "plugins"):
        kinds = shutil.ignore_patterns("*.npz", "*.csv", "*.txt", "templates", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=kinds)
    with (tmp_path / file).open("a", encoding="utf-8") as planted:
        planted.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert re.search(rf"{broken}[^.]*?BROKEN", done.stdout.replace("\n", " ")), done.stdout[-3000:]


def test_plugins_are_the_same_everywhere() -> None:
    """Entry points, folders and contracts name the same plugins; a new entry point needs a re-install."""
    settings = project()
    entries = dict(settings["project"]["entry-points"]["zoo.plugins"])
    assert entries.pop("core") == "zoo.core"
    packages = {module.partition(".")[0] for module in entries.values()}
    assert all(re.fullmatch(r"zoo_\w+\.plugin", module) for module in entries.values())
    assert len(packages) == len(entries)
    assert packages == {path.parent.name for path in (ROOT / "plugins").glob("*/plugin.py")}
    linter = settings["tool"]["importlinter"]
    assert set(linter["root_packages"]) == {"zoo", *packages}
    contracts = {contract["id"]: contract for contract in linter["contracts"]}
    assert set(contracts["core-names-no-plugin"]["forbidden_modules"]) == packages
    assert set(contracts["plugins-stand-alone"]["modules"]) == packages


def imports(file: Path) -> set[str]:
    """Top-level names of all that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize(
    ("names", "home"),
    [({"pytorch_lightning", "lightning"}, "zoo/training"), ({"omegaconf"}, "zoo/recipe")],
)
def test_one_package_imports_lightning_and_one_omegaconf(names: set[str], home: str) -> None:
    files = [*(ROOT / "zoo").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    users = {file.relative_to(ROOT).as_posix() for file in files if imports(file) & names}
    assert all(user.startswith(f"{home}/") for user in users), users


def test_the_shim_comes_before_what_needs_it() -> None:
    """A module that imports torchvision, timm, torchmetrics or Lightning readies torchvision first."""
    needing = {"torchvision", "timm", "torchmetrics", "pytorch_lightning"}
    for file in (ROOT / "zoo").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        users = [
            node.lineno
            for node in tree.body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            and {(getattr(node, "module", None) or node.names[0].name).partition(".")[0]} & needing
        ]
        calls = [
            node.lineno
            for node in tree.body
            if isinstance(node, ast.Expr) and ast.unparse(node) in ("install()", "torchvision_shim.install()")
        ]
        if users:
            assert calls and min(calls) < min(users), f"{file}: call zoo.torchvision_shim.install() first"
