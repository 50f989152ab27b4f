"""Samplers of sweeps: what is drawn, that it is drawn again, and that a search goes on where it ended."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.cli import main
from zoo.errors import ZooError
from zoo.recipe import RecipeError
from zoo.runs import list_runs
from zoo.sweep import Search, Trial, combine, make_search, parse_axes
from zoo.sweep.arguments import Span

RECIPE = """\
schema: 1
model: {name: core/mlp_net, width: 8, params: {depth: 1}}
data: {name: core/wine, batch_size: 16}
trainer: {max_steps: 2}
"""
SPACE = ["optim.lr=1e-5..1e-1", "model.params.depth=1..3", "optim.weight_decay=0.0..0.5"]


@pytest.fixture(autouse=True)
def in_a_folder_with_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(RECIPE, encoding="utf-8")


def search(*arguments: str, sampler: str = "random", trials: int = 8, seed: int = 0) -> Search:
    axes = parse_axes(arguments or SPACE)
    return make_search(["tiny.yaml"], axes, sampler=sampler, trials=trials, seed=seed)  # type: ignore[arg-type]


def drawn(search: Search) -> list[Trial]:
    return [trial for trials in search.rounds(search.sweep()) for trial in trials]


def lr(trial: Trial) -> float:
    return float(trial.values["optim.lr"])


# -- ranges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("1e-4..1e-2", Span(1e-4, 1e-2, False)),
        ("0..4", Span(0, 4, True)),
        ("0.0..4", Span(0, 4, False)),
        ("-1..-0.5", Span(-1, -0.5, False)),
        ("a..b", None),
        ("1,2", None),
    ],
)
def test_ranges(text: str, span: Span | None) -> None:
    (axis,) = parse_axes([f"key={text}"])
    assert axis.span == span
    assert bool(axis.values) == (span is None or span.whole)


def test_a_range_of_fractions_needs_a_sampler() -> None:
    with pytest.raises(
        ZooError, match=r"optim\.lr has no end of values between 0\.0001 and 0\.01: draw some"
    ):
        combine(parse_axes(["optim.lr=1e-4..1e-2"]))
    for text in ("0.5..0.1", "0.1..0.1"):
        with pytest.raises(ZooError, match=r"runs backwards; write k=0\.1|holds one number; write k=0\.1"):
            parse_axes([f"k={text}"])


@given(low=st.floats(1e-6, 1e3), factor=st.floats(1.001, 1e6), share=st.floats(0, 1))
def test_what_is_written_lies_in_the_range(low: float, factor: float, share: float) -> None:
    span = Span(low, low * factor, False)
    number = float(span.text(low + share * (span.high - low)))
    assert low * (1 - 1e-5) <= number <= span.high * (1 + 1e-5)
    assert span.log == (factor >= 10)


# -- drawing -------------------------------------------------------------------------------------


def test_random_draws_lie_in_the_space_and_come_again() -> None:
    trials = drawn(search(trials=40))
    assert [str(trial) for trial in drawn(search(trials=12))] == [str(trial) for trial in trials[:12]]
    assert str(drawn(search(seed=1))[0]) != str(trials[0])
    logs = [math.log10(lr(trial)) for trial in trials]
    assert -5 <= min(logs) < -4 and -2 < max(logs) <= -1  # by logarithm: each decade has its share
    assert {trial.values["model.params.depth"] for trial in trials} == {"1", "2", "3"}
    assert all(0 <= float(trial.values["optim.weight_decay"]) <= 0.5 for trial in trials)


def test_every_trial_has_all_seeds_and_what_is_fixed() -> None:
    (trial,) = drawn(search("optim.lr=1e-3..1e-1", "seed=0..2", "model.width=16", trials=1))
    assert [point.loaded.recipe.seed for point in trial.points] == [0, 1, 2]
    assert {point.loaded.recipe.model.width for point in trial.points} == {16}
    assert len({point.loaded.recipe.optim.lr for point in trial.points}) == 1


def follow(
    search: Search, value: Callable[[Trial], float | None], monkeypatch: pytest.MonkeyPatch
) -> list[Trial]:
    monkeypatch.setattr("zoo.sweep.sampling.reached", lambda trial, runs: value(trial))
    return drawn(search)


def test_tpe_learns_and_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")

    def off(trial: Trial) -> float:
        return abs(math.log10(lr(trial)) + 3)  # the best is 1e-3

    def value(trial: Trial) -> float | None:
        return None if trial.number % 7 == 3 else -off(trial)  # some fail

    trials = follow(search(sampler="tpe", trials=40), value, monkeypatch)
    again = follow(search(sampler="tpe", trials=16), value, monkeypatch)
    assert [str(trial) for trial in again] == [str(trial) for trial in trials[:16]]
    first, last = trials[:10], trials[-10:]
    assert sum(map(off, last)) < 0.7 * sum(map(off, first))


def test_raising_the_trials_is_the_same_sweep() -> None:
    assert search(trials=4).sweep().folder == search(trials=9).sweep().folder
    assert search(seed=1).sweep().folder != search().sweep().folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optim.lr=1e-4..1e-2", "--sampler", "random"], "needs --trials N"),
        (["optim.lr=1e-4..1e-2", "--sampler", "random", "--trials", "0"], "needs --trials N"),
        (["optim.lr=1e-2", "seed=0..2", "--sampler", "random", "--trials", "2"], "nothing to draw"),
        (["optim.lr=1e-4..1e-2", "--trials", "2"], "a number of trials is for a sampler"),
        (
            ["other.yaml", "optim.lr=1..2", "--sampler", "random", "--trials", "2"],
            "searches one recipe, got 2",
        ),
        (["k=1,2", "--sampler", "random", "--trials", "2", "--match", "params"], "match says itself"),
        (["optim.rl=1e-4..1e-2", "--sampler", "random", "--trials", "2"], "there is no key 'rl' here"),
        (["optim.lr=-1.0..1e-2", "--sampler", "random", "--trials", "2"], "must be above 0, got -1"),
        (["model.params.depth=1,x", "--sampler", "random", "--trials", "2"], "expected a whole number"),
    ],
)
def test_mistakes_train_nothing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "tiny.yaml", *arguments]) == 2
    assert message in capsys.readouterr().err and not Path("runs").exists()


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ZooError, match=re.escape("pip install 'archzoo[optuna]'")):
        search(sampler="tpe")


def test_a_drawing_that_is_no_recipe_is_told() -> None:
    """Heads must divide the width: the ends of the space are recipes, what lies between need not be."""
    recipe = RECIPE.replace("core/mlp_net, width: 8, params: {depth: 1}", "core/transformer, width: 8")
    Path("tiny.yaml").write_text(recipe.replace("core/wine", "core/digits"), encoding="utf-8")
    trials = drawn(search("model.params.heads=1..4", trials=12))
    assert {trial.values["model.params.heads"] for trial in trials} == {"1", "2", "3", "4"}
    for trial in trials:
        assert bool(trial.problem) == (trial.values["model.params.heads"] == "3") != bool(trial.points)
    with pytest.raises(RecipeError):
        search("model.params.heads=1..3").sweep()


# -- training ------------------------------------------------------------------------------------


def test_a_search_goes_on_where_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    command = ["sweep", "tiny.yaml", "optim.lr=1e-4..1e-1", "--sampler", "tpe"]
    assert main([*command, "--trials", "4"]) == 0
    err = capsys.readouterr().err
    done = {run.path for run in list_runs("runs")}
    assert len(done) == 4 and re.search(r"best val/accuracy: 0\.\d+, trial \d of 4: optim\.lr=", err)
    assert main([*command, "--trials", "5", "--json"]) == 0
    assert "best val/accuracy" in capsys.readouterr().err
    runs = list(list_runs("runs"))
    assert len(runs) == 5 and done < {run.path for run in runs}
    assert len(list(Path("runs/sweeps/tiny").glob("*/sweep.json"))) == 1
    assert main([*command, "--trials", "5", "--list"]) == 0
    assert capsys.readouterr().out.count("finished") == 5
