"""`zoo kan plot` and `zoo kan formula`, from a short run to what a user sees."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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


def test_a_wider_network_gives_a_formula_in_natural_units(
    runs: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Zeros stand behind the two features. What is printed has the R2 that is printed."""
    sympy = pytest.importorskip("sympy")
    found = answer(capsys, "kan", "formula", runs("model.width=4"), "--library", "[x, x^2, sin, exp]")
    generator = np.random.default_rng(1)
    x1, x2 = generator.uniform(-1, 1, (2, 2000))
    computed = sympy.lambdify(sympy.symbols("x1 x2"), found["formulas"][0], "numpy")(x1, x2)
    y = np.exp(np.sin(np.pi * x1) + x2**2)
    r2 = 1 - ((computed - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert r2 == pytest.approx(found["r2"][0], abs=0.03) and r2 > 0.5


def test_a_formula_of_a_table_has_the_names_of_its_columns(
    runs: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """price = 3 area + 50 where the kind is a house, 20 else; area in the hundreds."""
    pytest.importorskip("sympy")
    generator = np.random.default_rng(0)
    area, house = generator.uniform(100, 300, 400), generator.integers(0, 2, 400)
    rows = [
        f"{a:.3f},{'house' if h else 'flat'},{3 * a + 20 + 30 * h:.3f}"
        for a, h in zip(area, house, strict=True)
    ]
    table = tmp_path / "homes.csv"
    table.write_text("\n".join(["area (m2),kind,price", *rows]))
    run = runs(
        f"data={{name: core/table, params: {{path: {table}, target: price}}}}",
        "model={name: kan/kan, width: 3, params: {hidden: [1], sparsity: 0.0}}",
        "trainer.max_steps=120",
        "expect=null",
    )
    found = answer(capsys, "kan", "formula", run, "--library", "[x]", "--edge", "0.001")
    assert found["r2"][0] > 0.99
    assert main(["kan", "formula", run, "--library", "[x]", "--edge", "0.001"]) == 0
    text = capsys.readouterr().out
    slope = float(re.search(r"price = .*?([\d.]+)\*area_m2", text).group(1))  # type: ignore[union-attr]
    assert slope == pytest.approx(3, rel=0.05)
    assert "  area_m2: the column 'area (m2)'" in text
    assert "  kind_house: 1 where kind is 'house', else 0" in text or "  kind_flat: 1 where" in text
    drawn = answer(capsys, "kan", "plot", run)
    assert drawn["notes"] == []


def test_a_picture_says_what_its_ends_are_not(
    runs: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    head = runs("model.head={name: core/regressor}")
    assert answer(capsys, "kan", "plot", head)["notes"] == [
        "g1, g2, ... are what backbone.layers.0 gives: something makes the answers of them"
    ]
    stem = answer(capsys, "kan", "plot", runs("model.stem=null", "model.width=3"))["notes"]
    assert stem == ["h1, h2, ... are what backbone.layers.0 is given: something makes them of the data"]


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
        (("model.head={name: core/regressor}",), ["formula"], "the answers are not what the last KAN layer"),
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
