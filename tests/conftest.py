"""Fixtures for all tests: fresh catalogues, plugins made in the process, and installed strangers."""

from __future__ import annotations

import importlib.abc
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import zoo.plugin as zp
from zoo.catalogue import Catalogue

os.environ["MPLBACKEND"] = "Agg"

ROOT = Path(__file__).parents[1]


class _TorchvisionShim(importlib.abc.MetaPathFinder):
    """Readies torchvision just before its first import, so that tests without it never load torch."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        if name == "torchvision":
            from zoo.torchvision_shim import install

            sys.meta_path.remove(self)
            install()


sys.meta_path.insert(0, _TorchvisionShim())


#: Where the user's fetched data lie; only tests marked `fetch` look there.
USERS_CACHE = os.environ.get("ZOO_CACHE")


@pytest.fixture(scope="session", autouse=True)
def tests_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Baselines and the like are kept in a cache of the tests, one for all their processes."""
    base = tmp_path_factory.getbasetemp()
    os.environ["ZOO_CACHE"] = str(
        (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "zoo-cache"
    )


@pytest.fixture(autouse=True)
def users_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own cache for tests marked `fetch`."""
    if "fetch" in request.keywords:
        monkeypatch.delenv("ZOO_CACHE")
        if USERS_CACHE is not None:
            monkeypatch.setenv("ZOO_CACHE", USERS_CACHE)


@pytest.fixture
def fresh_catalogue() -> Catalogue:
    """An empty catalogue; `add(module, id=...)` gives it plugins."""
    return Catalogue()


@pytest.fixture
def plugin_module() -> Callable[..., types.ModuleType]:
    """Maker of plugin modules: `plugin_module("toy", specs=[...], api=1, zoo_run_finished=...)`.

    Further keywords become attributes of the module; those named `zoo_*` are marked as hooks.
    """

    def make(
        name: str, *, specs: Iterable[zp.Spec] = (), api: int | None = zp.API_VERSION, **attributes: Any
    ) -> types.ModuleType:
        module = types.ModuleType(name)
        if api is not None:
            attributes["__zoo_api__"] = api
        given = tuple(specs)
        attributes.setdefault("zoo_components", lambda: given)
        for key, value in attributes.items():
            setattr(module, key, zp.hookimpl(value) if key.startswith("zoo_") else value)
        return module

    return make


class FakeSite:
    """A folder of installed strangers, beside the real installation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def plugin(
        self,
        id: str,
        code: str,
        *,
        distribution: str | None = None,
        package: str | None = None,
        files: Mapping[str, str] | None = None,
        target: str | None = None,
    ) -> None:
        """Install the plugin `id` 1.0, whose module `<package>.plugin` holds `code`."""
        distribution = distribution or f"zoo-{id}"
        package = package or distribution.replace("-", "_")
        for name, text in {"__init__.py": "", "plugin.py": code, **(files or {})}.items():
            file = self.path / package / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        info = self.path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[zoo.plugins]\n{id} = {target or f'{package}.plugin'}\n")

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python -m zoo ...` in a process of its own, in this folder."""
        return self.python("-m", "zoo", *arguments, environment=environment)

    def python(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python ...` with the strangers installed."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ZOO_")}
        paths = [str(self.path), str(ROOT), str(ROOT / "plugins")]
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env={**inherited, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture
def fake_site(tmp_path: Path) -> FakeSite:
    return FakeSite(tmp_path)
