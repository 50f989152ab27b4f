"""The command line: exit codes, what goes where, and no traceback for a user's mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, FakeSite
from zoo.cli import components, main
from zoo.cli.main import _parser

# ruff: noqa: E501 (a table of messages)

RECIPE = "{schema: 1, model: {name: core/transformer, params: {depth: 2}}, data: {name: core/digits}}\n"
VERBS = sorted(_parser()[1])


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ZOO_PLUGINS", "ZOO_NO_PLUGINS", "ZOO_PLUGINS_STRICT"):
        monkeypatch.setenv(name, "")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")


def zoo(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command in this process."""
    code = main(command.split())
    return code, *capsys.readouterr()


def test_zoo_alone_and_help_show_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("", "--help"):
        code, out, err = zoo(command, capsys)
        assert (code, err) == (0, "")
        assert all(verb in out for verb in VERBS) and "examples:" in out


def test_the_verbs_are_those_that_are_promised() -> None:
    promised = {"list", "show", "plugins", "plan", "matrix", "recipe", "validate", "train", "eval", "predict"}
    assert promised <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_ends_with_an_example_that_parses(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = zoo(f"{verb} --help", capsys)
    *_, title, example = out.rstrip().splitlines()
    assert code == 0 and title == "example:" and example.startswith(f"  zoo {verb} ")
    assert _parser()[1][verb].parse_intermixed_args(example.replace("'", "").split()[2:])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = zoo("--version", capsys)
    assert code == 0 and out.startswith("zoo ") and out.split()[1][0].isdigit()


@pytest.mark.parametrize(
    "command",
    [
        "list --json",
        "list datasets --json",
        "list models nothing_like_this --json",
        "show core/digits --json",
        "show core/transformer --json",
        "plugins --json",
        "plugins core --json",
        "plan recipe.yaml --json",
        "matrix --json",
        "recipe list --json",
        "validate recipe.yaml --json",
    ],
)
def test_json_is_one_document_on_stdout(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = zoo(command, capsys)
    assert (code, err) == (0, "")
    assert isinstance(json.loads(out), (list, dict))


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("lst", "there is no verb 'lst'. Did you mean 'list'?"),
        ("--jsn", "unrecognized arguments: --jsn. See: zoo --help"),
        ("list --jsn", "unrecognized arguments: --jsn. Did you mean '--json'? See: zoo list --help"),
        ("list modles", "there is no kind 'modles'. Did you mean 'models'?"),
        ("list models casual=never", "a model has no field 'casual' to filter by. Did you mean 'causal'"),
        ("show", "the following arguments are required: name. See: zoo show --help"),
        ("show digts", "nothing is called 'digts'. Did you mean 'digits'"),
        ("show core/digts", "nothing is called 'core/digts'. Did you mean 'core/digits'"),
        ("show digits --kind modle", "unknown kind of component 'modle'. Did you mean 'model'?"),
        ("show digits --kind model", "unknown model 'digits'. There is a dataset 'core/digits', which is no model."),
        ("plugins cor", "unknown plugin 'cor'. Did you mean 'core'?"),
        ("matrix --models transfomer", "no model matches 'transfomer'. Did you mean 'transformer'"),
        ("matrix --datasets cifar", "no dataset matches 'cifar'."),
        ("plan nowhere.yaml", "nowhere.yaml"),
        ("plan recipe.yaml model.width=ten", "expected a whole number, got the text 'ten'"),
        ("plan recipe.yaml model.name=mlp_nett", "Did you mean 'mlp_net'"),
        ("recipe", "the following arguments are required: action"),
        ("recipe lst", "invalid choice: 'lst'"),
        ("recipe show", "needs the name of a recipe"),
        ("recipe show cor/digits", "cor/digits"),
        ("recipe copy recipe.yaml a b", "takes one path to write to, got 2: a b"),
        ("recipe copy recipe.yaml recipe.yaml", "recipe.yaml exists already"),
        ("recipe copy recipe.yaml no/such/folder.yaml", "folder.yaml cannot be written: No such file or directory"),
        ("train", "zoo train needs a recipe, e.g."),
        ("train recipe.yaml trainer.max_epoch=1", "Did you mean 'max_epochs'"),
        ("train recipe.yaml data.name=sotu_small model.name=mlp_net model.params=null", "params"),
        ("train --resume nowhere", "there is no run 'nowhere'"),
        ("train --resume x --dry-run", "give one of them"),
        ("eval latest", "there is no run 'latest'"),
        ("eval latest --split tset", "invalid choice: 'tset'"),
        ("predict latest x.png", "there is no run 'latest'"),
        ("list --plugins", "--plugins needs the name of a plugin"),
        ("list --plugins nobody", "names 'nobody', which is no installed plugin"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_a_sentence_and_exit_code_2(
    command: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = zoo(command, capsys)
    assert (code, out) == (2, "")
    assert err.startswith("zoo: ") and says in err and "Traceback" not in err


def test_validate_reports_on_stdout_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = zoo("validate recipe.yaml model.width=0 data.name=core/digts optim.lr=fast", capsys)
    assert (code, err) == (2, "")
    assert all(path in out for path in ("model.width", "data.name", "optim.lr"))
    assert zoo("validate recipe.yaml", capsys)[0] == 0


def test_traceback_is_there_for_the_asking(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = zoo("show digts --traceback", capsys)
    assert code == 2 and err.startswith("Traceback") and "UnknownName" in err


def test_what_is_no_mistake_of_the_user_is_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(components, "catalogue", broken)
    code, out, err = zoo("list", capsys)
    assert (code, out) == (1, "")
    assert err.startswith("zoo: ZeroDivisionError: inside\n") and "--traceback" in err and "File" not in err
    code, _, err = zoo("list --traceback", capsys)
    assert code == 1 and err.startswith("Traceback")


def test_ctrl_c_is_exit_code_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(components, "catalogue", stopped)
    assert zoo("list", capsys) == (130, "", "zoo: interrupted\n")


def test_options_may_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    first = zoo("plan recipe.yaml --json model.width=64", capsys)
    assert first[0] == 0 and json.loads(first[1])["width"] == 64
    assert zoo("plan --json recipe.yaml model.width=64", capsys) == first
    assert zoo("plan recipe.yaml model.width=64 --json", capsys) == first


def test_list_filters_and_points_to_the_other_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    _, everything, _ = zoo("list", capsys)
    assert "core/transformer" in everything and "also: zoo list mixers (" in everything
    _, found, _ = zoo("list core/* accepts=vector", capsys)
    assert "core/mlp_net" in found and "core/transformer" not in found and "also:" not in found
    assert zoo("list feed_forwards", capsys) == zoo("list feed-forwards", capsys)
    assert "core/sotu_small" in zoo("list datasets inputs=ids", capsys)[1]
    code, out, err = zoo("list models core/zzz*", capsys)
    assert (code, out, err) == (0, "", "no models match\n")


def test_show_is_a_card_with_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = zoo("show transformer", capsys)
    assert "model core/transformer" in out and "depth" in out and "number of layers" in out
    _, out, _ = zoo("show digits --kind dataset", capsys)
    assert all(label in out for label in ("licence", "source", "naive baseline", "known good"))


def test_plan_prints_the_line_the_steps_and_the_claims(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = zoo("plan recipe.yaml", capsys)
    assert out.startswith(
        "core/digits image(1, 8, 8) -> core/patches -> 16 tokens x 128 -> core/transformer(depth=2)"
    )
    assert "claims: causal optional, streams yes" in out and "monitored: val/accuracy (max)" in out


def test_recipes_are_copied_and_rendered(capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("recipe copy recipe.yaml mine.yaml", capsys)[0] == 0
    assert Path("mine.yaml").read_text(encoding="utf-8") == RECIPE
    _, out, _ = zoo("recipe render mine.yaml seed=7", capsys)
    Path("rendered.yaml").write_text(out, encoding="utf-8")
    again = zoo("plan rendered.yaml --json", capsys)
    assert again[0] == 0 and again == zoo("plan mine.yaml --json", capsys)


def test_a_reader_that_goes_away_is_no_error(fake_site: FakeSite) -> None:
    code = """
import os, subprocess, sys
reader, writer = os.pipe()
os.close(reader)
sys.exit(subprocess.run([sys.executable, "-m", "zoo", *sys.argv[1:]], stdout=writer).returncode)
"""
    for command in (("list", "--json"), ("plugins",)):  # more, and less, than a pipe's buffer
        done = fake_site.python("-c", code, *command)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "zoo"
    done = subprocess.run([command, "list"], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0 and "core/transformer" in done.stdout
