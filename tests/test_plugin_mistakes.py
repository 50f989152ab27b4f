"""What an author reads who mistypes a plugin: each mistake in words, with what to do."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import zoo.core
import zoo.plugin as zp
from zoo.catalogue import Catalogue
from zoo.cli.main import main
from zoo.loader import Plugin
from zoo.recipe import load_recipe
from zoo.testing import check_component

HERE = __name__


class Undecorated(zp.Config):
    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Unresolved(zp.Config):
    depth: Nowhere = zp.param(1, "depth")  # type: ignore[name-defined]  # noqa: F821


class Broken:
    def __init__(self, config: Any, **shape: Any) -> None:
        raise RuntimeError("no such thing")


def added(catalogue: Catalogue, hook: Any, *, mark: bool = True) -> Plugin:
    module = types.ModuleType(HERE)
    module.__file__ = __file__
    module.__zoo_api__ = 1  # type: ignore[attr-defined]
    module.zoo_components = zp.hookimpl(hook, specname="zoo_components") if mark else hook  # type: ignore[attr-defined]
    return catalogue.add(module, id="toy", distribution="zoo-toy")


def mixer(**fields: Any) -> Any:
    return zp.MixerSpec(**{"name": "mix", "target": f"{HERE}:Broken", "summary": "A mixer.", **fields})


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (lambda: (mixer(casual="never"),), "has no field 'casual'. Did you mean 'causal' or 'causality'?"),
        (lambda: (mixer(zebra=1),), "MixerSpec has no field 'zebra'. There is: aliases, by_layer, causal"),
        (mixer, "zoo_components returned one MixerSpec, 'mix'; it returns a tuple of them"),
        (
            lambda: (zp.DatasetSpec(name="d", target="a:b", inputs="image", targets=zp.Classes(count=2)),),  # type: ignore
            "DatasetSpec(name='d').inputs: expected zoo.plugin.Image or zoo.plugin.Ids or",
        ),
        (lambda: (mixer(causal="alway"),), "(name='mix').causal: expected one of never, optional, always"),
    ],
)  # fmt: skip
def test_a_spec_mistyped(fresh_catalogue: Catalogue, hook: Callable[[], Any], reason: str) -> None:
    plugin = added(fresh_catalogue, hook)
    assert plugin.status == "failed" and reason in plugin.reason
    assert not any(double in plugin.message() for double in ("?.", ".."))


def test_a_hook_without_its_mark_is_told(fresh_catalogue: Catalogue) -> None:
    plugin = added(fresh_catalogue, lambda: (mixer(),), mark=False)
    assert plugin.problems == ["its zoo_components is not called: write @zoo.plugin.hookimpl above it"]


def test_what_hides_a_rival_does_not_hide_the_first() -> None:
    rival = Plugin(id="kan", value="x", distribution="zoo-other", status="conflict", reason="the id is taken")
    assert "'ZOO_NO_PLUGINS=zoo-other' hides this" in rival.message()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("Undecorated", "is no dataclass: write @dataclass(frozen=True, kw_only=True) above it"),
        ("Unresolved", "cannot be read: NameError: name 'Nowhere' is not defined"),
    ],
)
def test_a_config_that_is_none(fresh_catalogue: Catalogue, config: str, says: str) -> None:
    added(fresh_catalogue, lambda: (mixer(config=f"{HERE}:{config}"),))
    with pytest.raises(zp.ZooError, match=r"mixer 'toy/mix'.*"):
        fresh_catalogue.get("mixer", "toy/mix").config_class()
    results = check_component("toy/mix", catalogue=fresh_catalogue, only=["builds", "described"])
    assert all(result.outcome == "failed" and says in result.detail for result in results)
    assert not any("specs.py" in result.detail or "targets.py" in result.detail for result in results)


def test_a_failure_is_located_in_the_plugin(fresh_catalogue: Catalogue) -> None:
    added(fresh_catalogue, lambda: (mixer(),))
    (result,) = check_component("toy/mix", catalogue=fresh_catalogue, only=["builds"])
    assert result.detail.startswith(f"RuntimeError: no such thing ({__file__}:")


def test_one_reason_is_told_once(
    fresh_catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    added(fresh_catalogue, lambda: (mixer(config=f"{HERE}:Undecorated"),))
    monkeypatch.setattr(sys.modules["zoo.cli.check"], "catalogue", lambda: fresh_catalogue)
    assert main(["check", "toy/mix"]) == 1
    told = capsys.readouterr().err
    assert told.count("is no dataclass") == 1 and "mixer toy/mix, builds: as described" in told


def test_a_task_or_dataset_that_breaks_when_it_is_built_is_named(fresh_catalogue: Catalogue) -> None:
    from zoo.training.setup import build_task, load_splits

    fresh_catalogue.add(zoo.core, id="core")
    task = zp.TaskSpec(name="bad", target=f"{HERE}:Broken", summary="x", answers="classes")
    data = zp.DatasetSpec(
        name="bad",
        target=f"{HERE}:Broken",
        summary="x",
        inputs=zp.Vector(features=3),
        targets=zp.Classes(count=2),
    )
    added(fresh_catalogue, lambda: (task, data))
    recipe = {
        "schema": 1,
        "model": {"name": "mlp_net"},
        "data": {"name": "toy/bad"},
        "task": {"name": "toy/bad"},
    }
    loaded = load_recipe(recipe, catalogue=fresh_catalogue)
    with pytest.raises(zp.ZooError, match=r"^task 'toy/bad' cannot be built: RuntimeError: no such thing$"):
        build_task(loaded)
    with pytest.raises(zp.ZooError, match=r"^dataset 'toy/bad' cannot be loaded: "):
        load_splits(loaded)
