"""Commands of plugins: run, explained, and no harm to anybody else."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import zoo
import zoo.plugin as zp
from zoo.catalogue import Catalogue
from zoo.cli import main
from zoo.commands import Answer, SavedRun

RECIPE = {
    "schema": 1,
    "model": {"name": "core/mlp_net", "width": 8, "params": {"depth": 1}},
    "data": {"name": "core/wine", "batch_size": 32},
    "trainer": {"max_steps": 2, "accelerator": "cpu"},
}


@dataclass(frozen=True, kw_only=True)
class CountConfig(zp.Config):
    times: int = zp.param(1, "how often 100% of it counts", at_least=1)
    first_only: bool = zp.param(False, "only the first")


def count(run: SavedRun, config: CountConfig) -> Answer:
    model = run.model()
    found = config.times * sum(p.numel() for p in model.parameters())
    accuracy = run.score(model)["test/accuracy"]
    return Answer(text=f"{found} in {run.folder.name}", data={"count": found, "accuracy": accuracy})


def leave(run: SavedRun, config: None) -> Answer:
    raise SystemExit(0)


def nothing(run: SavedRun, config: None) -> Any:
    return "text"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    result = zoo.train({**RECIPE, "output": {"dir": str(folder)}}, quiet=True)
    assert result.run is not None
    return result.run.path


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin `swirl` with commands, one `train` that wants to be a verb, and one that is broken."""
    found = Catalogue.discover()
    specs = [
        zp.CommandSpec(
            name="count", target=f"{__name__}:count", config=f"{__name__}:CountConfig", summary="count"
        ),
        zp.CommandSpec(name="leave", target=f"{__name__}:leave", summary="leave"),
        zp.CommandSpec(name="nothing", target=f"{__name__}:nothing", summary="nothing"),
        zp.CommandSpec(name="missing", target=f"{__name__}:missing", summary="missing"),
    ]
    for id, given in (("swirl", specs), ("train", specs[:1])):
        module = types.ModuleType(__name__)
        module.__zoo_api__ = 1  # type: ignore[attr-defined]
        module.zoo_components = zp.hookimpl(_components(given))  # type: ignore[attr-defined]
        assert found.add(module, id=id).status == "ok", found.plugins[-1].reason
    monkeypatch.setattr("zoo.cli.plugged.catalogue", lambda: found)


def _components(given: list[zp.Spec]) -> Any:
    def zoo_components() -> list[zp.Spec]:
        return given

    return zoo_components


def test_a_command_gets_the_run_and_its_options(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swirl", "count", str(run)]) == 0
    once = int(capsys.readouterr().out.split()[0])
    assert main(["swirl", "count", "--times", "3", str(run), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["count"] == 3 * once and 0 <= answer["accuracy"] <= 1


def test_help_lists_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swirl"]) == 0 and "count" in capsys.readouterr().out
    assert main(["swirl", "count", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--first-only" in out and "100% of it" in out


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["swirl", "cuont", "RUN"], 2, "no command 'cuont'. Did you mean 'count'?"),
        (["swirl", "count", "RUN", "--times", "0"], 2, "--times: must be at least 1"),
        (["swirl", "count", "RUN", "--times", "many"], 2, "--times:"),
        (["swirl", "count", "RUN", "--times", "[1"], 2, "cannot be read"),
        (["swirl", "count", "RUN", "--tmies", "1"], 2, "--times"),
        (["swirl", "count"], 2, "RUN"),
        (["swirl", "count", "no/such/run"], 2, "no/such/run"),
        (["swirl", "leave", "RUN"], 2, "command 'swirl/leave' failed: SystemExit"),
        (["swirl", "nothing", "RUN"], 2, "expected a zoo.commands.Answer"),
        (["swirl", "missing", "RUN"], 2, "has no 'missing'"),
        (["train", "count", "RUN"], 2, "count"),  # the verb, which knows no such recipe
        (["core", "count", "RUN"], 2, "there is no verb 'core'"),
    ],
)
def test_mistakes_are_sentences(
    given: list[str], code: int, said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run) if word == "RUN" else word for word in given]) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
