"""`zoo kan plot` and `zoo kan formula`, from a short run to what a user sees."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.cli import main

#: Of a model without a KAN layer.
PLAIN = ("model={name: core/mlp_net, width: 8, head: {name: core/regressor}}", "model.stem=null")

CLASSES = (
    "data={name: core/breast_cancer, batch_size: 64}",
    "model={width: 30, head: {name: kan/classifier}}",
    "expect=null",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The folder of a run of `kan/toy` with other settings, a few updates long."""
    found: dict[tuple[str, ...], str] = {}

    def run(*overrides: str) -> str:
        if overrides not in found:
            result = zoo.train(
                "kan/toy",
                [
                    "trainer.max_steps=40",
                    "trainer.eval_every_steps=40",
                    "callbacks.kan/grids={adapt_every: 10, refine_at: [30], refine_to: [10]}",
                    f"output.dir={tmp_path_factory.mktemp('runs')}",
                    *overrides,
                ],
                quiet=True,
            )
            assert result.run is not None
            found[overrides] = str(result.run.path)
        return found[overrides]

    return run


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_picture_is_drawn_into_the_runs_folder(
    runs: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kan", "plot", runs()]) == 0
    picture = Path(runs()) / "kan.png"
    assert f"{picture}: 15 edges" in capsys.readouterr().out and picture.stat().st_size > 3000
    found = answer(capsys, "kan", "plot", runs(), "--edge", "0.03")
    assert 0 < found["edges"] < 15


def test_a_formula_is_written_with_its_fit_and_that_of_the_network(
    runs: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sympy")
    given = ("kan", "formula", runs(), "--edge", "0.05", "--library", "[x, x^2, sin, exp]")
    found = answer(capsys, *given)
    assert {edge["function"] for edge in found["edges"]} <= {"x", "x^2", "sin", "exp"}
    assert len(found["formulas"]) == 1 and "x1" in found["formulas"][0]
    assert 0.5 < found["network_r2"][0] <= 1 and found["r2"][0] <= 1
    assert main([*given]) == 0
    text = capsys.readouterr().out
    assert text.startswith("y = ") and "R2 on test" in text and "head.layer" in text


def test_without_sympy_it_is_said_what_brings_it(
    runs: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sympy", None)
    monkeypatch.delitem(sys.modules, "zoo_kan.write", raising=False)
    assert main(["kan", "formula", runs()]) == 2
    error = capsys.readouterr().err
    assert "'sympy' is not installed; the extra 'kan' brings it" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("overrides", "options", "said"),
    [
        ((), ["formula", "--library", "[cosinus]"], "unknown function 'cosinus'; there is: x, x^2"),
        ((), ["plot", "--edge", "9"], "nothing would be left; use a lower one"),
        (CLASSES, ["formula"], "formulas are written of numbers"),
        (PLAIN, ["plot"], "this model has no KAN layers"),
        (PLAIN, ["formula"], "this model has no KAN layers"),
        (("model.params.norm=layer",), ["formula"], "does not get the features themselves"),
        (("model.head.params.norm=layer",), ["formula"], "something stands between the KAN layers"),
    ],
)
def test_what_cannot_be_read_is_said(
    overrides: tuple[str, ...],
    options: list[str],
    said: str,
    runs: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if options[0] == "formula":
        pytest.importorskip("sympy")
    command, *rest = options
    assert main(["kan", command, runs(*overrides), *rest]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and "failed" not in error
