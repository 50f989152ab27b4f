"""The site: generated pages are current, everything has its card, and what the pages show is true."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs.generate import REFERENCE, pages
from docs.generator.comparison import DATA
from docs.generator.hooks import described
from zoo import specs
from zoo.catalogue import Catalogue
from zoo.comparison import read_comparisons
from zoo.data.own.specs import OWN
from zoo.recipe import find_recipe, load_recipe
from zoo.records import path_of, read_record
from zoo.scaffold import render
from zoo.sweep import find_sweep, read_sweep
from zoo.switches import Switches

ROOT = Path(__file__).parents[1]
PROSE = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
TUTORIAL = "writing_a_plugin.md"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, the file it belongs to (if any), and its text."""

    language: str
    title: str
    text: str


def blocks(page: str, language: str) -> list[Block]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    return [Block(*groups) for groups in found if groups[0] == language]


def run(
    command: str | Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ZOO_")}
    bin = str(Path(sys.executable).parent)
    given = {"PATH": os.pathsep.join([bin, inherited["PATH"]]), "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env={**inherited, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# -- generated pages -------------------------------------------------------------------------


def test_generated_pages_are_current() -> None:
    found = {
        str(path.relative_to(REFERENCE)): path.read_text(encoding="utf-8") for path in REFERENCE.rglob("*.md")
    }
    written = pages()
    stale = sorted(path for path in {*found, *written} if found.get(path) != written.get(path))
    assert stale == [], "run: python docs/generate.py"


def test_every_component_has_its_card() -> None:
    text = "".join(pages().values())
    for kind in (cls.kind for cls in specs.SPEC_KINDS):
        for spec in Catalogue.discover(Switches(without=frozenset({"*"}))).specs(kind):
            assert f"# {spec.id}\n\n{spec.summary}\n" in text, f"{spec.id} has no card"
            assert len(spec.summary.split()) > 2, f"{spec.id} has no summary"
            config = spec.config_class()
            for field in dataclasses.fields(config) if config else ():
                assert field.metadata.get("help"), f"{spec.id}: its parameter {field.name} has no help text"
            if isinstance(spec, specs.DatasetSpec):
                card = (spec.licence, spec.source, spec.examples, spec.baseline, spec.known_good)
                assert all(card) or spec.own, f"{spec.id}: its card misses something"


def test_readme_names_the_models_and_transforms_that_come_with_the_zoo() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = Catalogue.discover(Switches(without=frozenset({"*"})))
    models = {spec.id for spec in found.specs("model") if not isinstance(spec, specs.FamilyMemberSpec)}
    unnamed = [id for id in models if f"`{id}`" not in text]
    unnamed += [
        spec.id for spec in found.specs("transform") if f"transform `{spec.id.partition('/')[2]}`" not in text
    ]
    assert unnamed == []


def test_readme_gives_the_scores_that_were_recorded() -> None:
    """After `zoo record RECIPE`: the row of the README, too."""
    rows = re.findall(
        r"^\| `(\w+/\w+)`[^|]*\| ([^|]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    compared = 0
    for name, told in rows:
        figures = re.findall(r"(?<!\w)-?\d+(?:\.\d+)?", told)[:3]
        record = read_record(path_of(find_recipe(name))) if len(figures) == 3 else None
        if record is None:
            continue
        digits = len(figures[0].partition(".")[2])
        measured = [f"{record.values()[seed]:.{digits}f}" for seed in sorted(record.values())[:3]]
        assert figures == measured, name
        compared += 1
    assert compared >= 25


def test_readme_shows_the_plan_that_the_demo_prints() -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\n{load_recipe('aaren/digits').plan.describe()}\n" in shown


@pytest.mark.parametrize("cls", [specs.Spec, *specs.SPEC_KINDS])
def test_every_field_of_a_spec_is_explained(cls: type) -> None:
    common = described(specs.Spec)[1]
    helps = described(cls)[1]
    silent = [f.name for f in dataclasses.fields(cls) if not (helps.get(f.name) or common.get(f.name))]
    assert silent == [], "add a line to the docstring"


def test_the_committed_comparison_is_whole_and_of_equal_size() -> None:
    text, images = read_comparisons(DATA)
    assert (text.data.partition("(")[0], images.data) == ("core/sotu_small", "core/digits")
    for comparison in (text, images):
        assert len(comparison.groups) == 5 and all(row.seeds == (0, 1, 2) for row in comparison.groups)
        first = comparison.groups[0]
        assert first.setting == "core/transformer"
        assert all(abs(row.parameters / first.parameters - 1) < 0.05 for row in comparison.groups)


# -- the site --------------------------------------------------------------------------------


def test_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = run(command, ROOT, {"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stdout
    html = list(tmp_path.rglob("*.html"))
    assert len(html) > len(PROSE)
    fetched = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)="(?:https?:)?//[^"]*"')
    for page in html:
        text = page.read_text(encoding="utf-8")
        assert fetched.findall(text) == [], page
        assert "mermaid" not in re.findall(r'class="([^"]*)"', text), "mermaid comes from elsewhere"
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), (
            sheet
        )


# -- what the pages show ---------------------------------------------------------------------


def test_pages_have_blocks_to_test() -> None:
    assert len([b for page in PROSE for b in blocks(page, "python")]) > 10
    assert len([b for page in PROSE for b in blocks(page, "yaml")]) >= 4
    assert len([b for page in PROSE for b in blocks(page, "console")]) >= 2


def test_python_runs(tmp_path: Path) -> None:
    code = "\n".join(block.text for block in blocks("python_api.md", "python"))
    done = run([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", [page for page in PROSE if page != TUTORIAL])
def test_recipes_and_commands_do_what_the_page_says(page: str, tmp_path: Path) -> None:
    if page == "own_data.md":
        for spec in OWN:  # the files that the page speaks of
            spec.make_sample(tmp_path)
    for block in blocks(page, "yaml"):
        if block.title:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
            if sweep := find_sweep(str(tmp_path / block.title)):
                read_sweep(sweep)
        else:
            (tmp_path / "recipe.yaml").write_text(block.text, encoding="utf-8")
            load_recipe(tmp_path / "recipe.yaml")
    for block in blocks(page, "console"):
        check_console(block, tmp_path)


def check_console(
    block: Block, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command after `$`; every line below it must be found in what is printed, in this order."""
    command, *lines = block.text.removeprefix("$ ").splitlines()
    done = run(command, folder, environment)
    position = 0
    for line in lines:
        position = done.stdout.find(line, position)
        assert position >= 0, f"{line!r} is not in the output of {command!r}:\n{done.stdout}"
    return done


@pytest.mark.parametrize("block", blocks(TUTORIAL, "python") + blocks(TUTORIAL, "toml"))
def test_tutorial_shows_what_the_scaffold_writes(block: Block) -> None:
    if block.title:
        written = {str(path): text for path, text in render("swirl", "mixer").items()}
        assert block.text in written[block.title]


def test_tutorial_names_every_file() -> None:
    [tree, *_] = blocks(TUTORIAL, "text")
    hidden = {".gitignore", "zoo_swirl/__init__.py"}
    for path in {str(path) for path in render("swirl", "mixer")} - hidden:
        assert all(part in tree.text for part in path.split("/")), path


def test_from_idea_to_trained_model_as_the_tutorial_says(tmp_path: Path) -> None:
    """The commands as they stand there, in an environment of their own; then its code, and its mistake."""
    environment = make_environment(tmp_path / "venv")
    commands = blocks(TUTORIAL, "sh")[0].text.splitlines()
    assert len(commands) <= 5
    for command in commands:
        done = run(command, tmp_path, environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
    assert "majority" in done.stdout
    assert "failed" not in done.stdout and list(tmp_path.glob("runs/swirl/digits/*/model.safetensors"))

    code = "\n".join(block.text for block in blocks(TUTORIAL, "python") if not block.title)
    done = run(["python", "-c", code], tmp_path, environment)
    assert done.returncode == 0, done.stdout
    for block in blocks(TUTORIAL, "yaml"):
        (tmp_path / "recipe.yaml").write_text(block.text, encoding="utf-8")
        done = run("zoo validate recipe.yaml", tmp_path, environment)
        assert done.returncode == 0, done.stdout

    [change] = blocks(TUTORIAL, "diff")
    old, new = (re.sub(r"(?m)^[-+]", "", line) + "\n" for line in change.text.splitlines())
    file = tmp_path / "zoo-swirl" / change.title
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    [mistake] = blocks(TUTORIAL, "console")
    assert check_console(mistake, tmp_path, environment).returncode == 1


def make_environment(folder: Path) -> dict[str, str]:
    """A virtual environment that sees what is installed here; `pip install` goes into it, offline."""
    venv.create(folder, symlinks=True)
    [site] = folder.glob("lib/*/site-packages")
    here = Path(pytest.__file__).parents[1]
    (site / "outer.pth").write_text(f"import site; site.addsitedir({str(here)!r})\n", encoding="utf-8")
    for name, module in (("zoo", "zoo"), ("pip", "pip")):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {folder}/bin/python -m {module} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return {
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as: no isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
