"""What a user reads when a recipe is wrong: the exact text, one golden file for each class of mistake.

After a wanted change of wording: ZOO_UPDATE_GOLDEN=1 pytest tests/test_recipe_errors.py, then read the diff.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from zoo.catalogue import Catalogue
from zoo.recipe import RecipeError, find, load_recipe

GOLDEN = Path(__file__).parent / "golden" / "recipe_errors"
CASES = sorted(path.stem for path in GOLDEN.glob("*.yaml") if not path.stem.startswith("_"))


@pytest.fixture(scope="module")
def toys() -> Catalogue:
    name = "zoo_toy"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "toy_plugin.py")
    assert spec and spec.loader
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    catalogue = Catalogue()
    assert catalogue.add(module, id="toy", version="1.2").problems == []
    return catalogue


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    monkeypatch.setattr(find, "own_folders", lambda: ())
    monkeypatch.setenv("SECRET", "to be kept")


@pytest.mark.parametrize("case", CASES)
def test_text_of_every_mistake(case: str, toys: Catalogue) -> None:
    first = (GOLDEN / f"{case}.yaml").read_text().partition("\n")[0]
    overrides = first.removeprefix("# overrides: ").split(" | ") if first.startswith("# overrides: ") else []
    with pytest.raises(RecipeError) as error:
        load_recipe(f"{case}.yaml", overrides, catalogue=toys)
    text = str(error.value) + "\n"
    golden = GOLDEN / f"{case}.txt"
    if os.environ.get("ZOO_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert "to be kept" not in text


def test_every_golden_text_has_a_case() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == CASES
    assert len(CASES) >= 30
