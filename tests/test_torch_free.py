"""What must stay light: imports and verbs that leave torch and its kin out of the process."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT, FakeSite

HEAVY = {"torch", "torchvision", "timm", "torchmetrics", "pytorch_lightning", "transformers", "lightning"}
EXAMPLE_RECIPE = "{schema: 1, model: {name: core/transformer}, data: {name: core/digits}}"


def light_modules() -> list[str]:
    """The modules that docs/architecture.md calls torch-free, found by walking the folders."""
    torch_only = ("__main__", "torchvision_shim")
    core = [file.stem for file in sorted((ROOT / "zoo").glob("[a-z]*.py")) if file.stem not in torch_only]
    modules = ["zoo", *(f"zoo.{name}" for name in core)]
    modules += [f"zoo.cli.{file.stem}" for file in sorted((ROOT / "zoo/cli").glob("[a-z]*.py"))]
    modules += [f"zoo.recipe.{file.stem}" for file in sorted((ROOT / "zoo/recipe").glob("[a-z]*.py"))]
    modules += entry_points().values()
    for root in (ROOT / "zoo", *sorted((ROOT / "plugins").glob("zoo_*"))):
        for file in sorted(root.rglob("*.py")):
            if file.name in ("config.py", "specs.py", "plugin.py") and "templates" not in file.parts:
                modules.append(".".join(file.relative_to(root.parent).with_suffix("").parts))
    return sorted(set(modules))


def entry_points() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(project["entry-points"]["zoo.plugins"])


def loaded(site: FakeSite, code: str, *arguments: str) -> set[str]:
    """The top-level modules in the process after running `code`."""
    tell = """
import json, sys
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""
    done = site.python("-c", code + tell, *arguments)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_walk_finds_what_it_should() -> None:
    modules = light_modules()
    assert {"zoo.layers.config", "zoo.data.config", "zoo.tasks.config", "zoo.data.specs"} <= set(modules)
    for file in (ROOT / "plugins").glob("zoo_*/config.py"):
        assert f"{file.parent.name}.config" in modules


def test_torch_free_modules_stay_so(fake_site: FakeSite) -> None:
    """Each import is told apart, so that a failure names the module at fault."""
    code = f"""
import importlib, sys
for name in {light_modules()}:
    importlib.import_module(name)
    found = [heavy for heavy in {sorted(HEAVY)} if heavy in sys.modules]
    assert not found, f"import {{name}} loads {{found}}"
"""
    assert not HEAVY & loaded(fake_site, code)


def test_omegaconf_is_loaded_by_recipes_alone(fake_site: FakeSite) -> None:
    modules = [name for name in light_modules() if not name.startswith("zoo.recipe")]
    assert "omegaconf" not in loaded(
        fake_site, f"import importlib\nfor n in {modules}: importlib.import_module(n)"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        "list --json",
        "list datasets",
        "show core/transformer",
        "plugins --time",
        "matrix --json",
        "recipe list",
        "plan recipe.yaml",
        "validate recipe.yaml optim.lr=3e-4",
        "recipe render recipe.yaml",
        "train --help",
    ],
)
def test_verbs_that_leave_torch_alone(fake_site: FakeSite, arguments: str) -> None:
    (fake_site.path / "recipe.yaml").write_text(EXAMPLE_RECIPE, encoding="utf-8")
    code = "import sys\nfrom zoo.cli import main\nassert main(sys.argv[1:]) == 0"
    found = loaded(fake_site, code, *arguments.split())
    assert not HEAVY & found
    if arguments.startswith(("list", "show", "plugins", "matrix")):
        assert "omegaconf" not in found


def test_mistakes_in_a_recipe_are_told_before_torch(fake_site: FakeSite) -> None:
    Path(fake_site.path / "bad.yaml").write_text(EXAMPLE_RECIPE.replace("digits", "digts"), encoding="utf-8")
    code = "import sys\nfrom zoo.cli import main\nassert main(['train', 'bad.yaml']) == 2"
    assert not HEAVY & loaded(fake_site, code)


def test_the_python_api_plans_without_torch(fake_site: FakeSite) -> None:
    code = """
import zoo
from zoo.api import plan_model
assert "core/transformer" in zoo.list_models(dataset="digits")
assert "core/digits" in zoo.list_datasets(inputs="image")
plan_model("core/transformer", dataset="digits", params={"depth": 2})
"""
    assert not HEAVY & loaded(fake_site, code)
