"""`zoo baseline`: simple answers, scored as a model is."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.baselines import baselines_of, measure, stored
from zoo.baselines.features import nearby, rows_of, whole
from zoo.baselines.measure import Score, best_season, bigrams, seasonal
from zoo.baselines.models import fit, rounds_for
from zoo.catalogue import catalogue
from zoo.cli import main
from zoo.config import ConfigError
from zoo.data.split import Splits, TensorSplit
from zoo.kinds import IGNORE, Classes, Forecast, Ids, Labels, NextId, Series, Values
from zoo.specs import DatasetSpec
from zoo.training.result import outdone, score_rows

measuring = importlib.import_module("zoo.baselines.measure")  # whose name in the package is a function


def scores_of(name: str, **params: Any) -> dict[str, dict[str, float]]:
    found = catalogue()
    return {s.name: dict(s.metrics) for s in measure(found, found.part("dataset", name, params))}


def test_without_scikit_learn_the_naive_answers_remain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "sklearn" else find(name, *a)
    )
    assert main(["baseline", "core/wine"]) == 0
    out = capsys.readouterr().out
    assert "majority" in out and "logistic" in out and "archzoo[baselines]" in out
    assert len([line for line in out.splitlines() if line.startswith("majority")]) == 1
    assert not any(line.startswith(("logistic", "trees")) for line in out.splitlines())


def test_the_first_answer_is_that_of_the_task() -> None:
    found = catalogue()
    for name, called in (("core/wine", "majority"), ("core/diabetes", "mean"), ("core/copy", "majority")):
        part = found.part("dataset", name)
        splits = found.get("dataset", part.id).load()(part.config)
        from zoo.baselines.measure import _task
        from zoo.contract import kinds_of

        task = _task(found, kinds_of(found, part)[1])
        assert scores_of(name)[called] == pytest.approx(task.baseline(splits.train, splits.test), nan_ok=True)


def test_fitted_answers_agree_with_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    found = catalogue()
    splits = found.get("dataset", "core/breast_cancer").load()(None)
    model = linear.LogisticRegression(max_iter=2000).fit(splits.train.inputs, splits.train.targets)
    expected = model.score(splits.test.inputs, splits.test.targets)
    assert scores_of("core/breast_cancer")["logistic"]["accuracy"] == pytest.approx(expected)


def test_ridge_beats_the_mean_and_every_metric_is_the_tasks() -> None:
    pytest.importorskip("sklearn")
    scores = scores_of("core/diabetes")
    assert scores["ridge"]["mse"] < 0.6 * scores["mean"]["mse"]
    assert len({tuple(sorted(metrics)) for metrics in scores.values()}) == 1


def test_simple_labels_stay_below_the_optimum() -> None:
    pytest.importorskip("sklearn")
    from zoo.data.labels import load_noisy_states, posterior
    from zoo.data.targets_config import NoisyStatesConfig

    config = NoisyStatesConfig(examples=300, eval_examples=300, length=32)
    test = load_noisy_states(config).test
    best = (posterior(config, test.inputs.numpy()).argmax(-1) == test.targets.numpy()).mean()
    scores = scores_of("core/noisy_states", examples=300, eval_examples=300, length=32)
    assert scores["majority"]["accuracy"] < scores["logistic"]["accuracy"] < best + 0.005
    assert scores["best possible"] == {"accuracy": best}


def test_bigrams_are_chances_and_know_what_follows() -> None:
    kind = NextId(vocab=4)
    x = torch.arange(40) % 3  # 0 1 2 0 1 2 ...; 3 never comes
    split = TensorSplit(x[None, :-1], x[None, 1:].clone())
    split.targets[0, :5] = IGNORE  # type: ignore[index]
    chance = bigrams(split, Ids(vocab=6, length=39), kind).exp()  # 4 and 5 are inputs only
    assert torch.allclose(chance.sum(1), torch.ones(6))
    assert chance[:3].argmax(1).tolist() == [1, 2, 0] and chance[0, 1] > 0.9
    pixels = scores_of("core/digits_pixels")
    card = f"{pixels['majority']['bits_per_dimension']:.3f}", f"{pixels['bigram']['bits_per_dimension']:.3f}"
    assert card == ("2.982", "2.700")  # as its card says
    assert scores_of("core/sotu_small")["bigram"]["loss"] < scores_of("core/sotu_small")["majority"]["loss"]


def test_features_of_a_padded_series_are_those_of_the_series() -> None:
    torch.manual_seed(0)
    kind = Series(channels=2, length=6, ragged=True)
    x, lengths = torch.randn(3, 6, 2), torch.tensor([4, 6, 1])
    split = TensorSplit(x, torch.zeros(3, dtype=torch.int64), lengths=lengths)
    together = whole(split.__getitems__([0, 1, 2]), kind)
    assert together.shape == (3, 8) and together.isfinite().all()
    for row, length in enumerate(lengths.tolist()):
        own = x[row, :length]
        expected = torch.cat([own.mean(0), own.std(0, correction=0), own.amin(0), own.amax(0)])
        assert torch.allclose(together[row], expected, atol=1e-6)


def test_features_of_a_token_are_its_neighbours() -> None:
    kind = Ids(vocab=3, length=9)
    x = torch.randint(3, (2, 9))
    rows = nearby({"input": x}, kind).reshape(2, 9, 3, 7)
    assert torch.equal(rows[..., 3], torch.nn.functional.one_hot(x, 3).float())  # itself, in the middle
    assert torch.equal(rows[:, 1:, :, 2], rows[:, :-1, :, 3])  # the one before
    assert not rows[:, 0, :, :3].any() and not rows[:, -1, :, 4:].any()


def test_rows_are_limited_and_only_those_asked_for() -> None:
    split = TensorSplit(torch.randint(3, (50, 8)), torch.full((50, 8), IGNORE))
    split.targets[:, 2:4] = 1  # type: ignore[call-overload]
    features, answers = rows_of(split, Ids(vocab=3, length=8), Labels(count=2), most=80)
    assert len(features) == len(answers) == 20 and (answers == 1).all()  # 10 of the sequences, 2 of each
    table = TensorSplit(torch.arange(50.0)[:, None], torch.zeros(50, dtype=torch.int64))
    features, answers = rows_of(table, Series(channels=1, length=1), Classes(count=2), most=10)
    assert features[:, 0].tolist() == list(range(0, 50, 5))


def test_a_season_is_found_on_train() -> None:
    steps = torch.arange(400)
    values = torch.sin(2 * torch.pi * steps / 24)[:, None]
    targets = Forecast(channels=1, horizon=30)
    from zoo.data.forecast import SeriesWindows

    windows = SeriesWindows(values, length=48, horizon=30)
    assert best_season(windows, targets) in (24, 48)
    batch = windows.__getitems__([5])
    assert torch.allclose(seasonal(batch, targets, 24), batch["target"], atol=1e-4)


def test_ridge_takes_whole_rows_where_most_are() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    from zoo.baselines.models import ALPHAS

    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    y = torch.from_numpy(x @ np.array([[1.0, 2.0], [3.0, 4.0]]))
    y[:40, 1] = float("nan")
    expected = linear.RidgeCV(alphas=ALPHAS).fit(x[40:], y[40:].numpy()).predict(x)
    found = fit("ridge", Values(count=2, missing=True), x, y)(x)
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["ridge", "trees"])
def test_missing_values_are_left_out_of_the_fit(name: str) -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    y = torch.from_numpy(np.stack([x[:, 0], x[:, 1], x[:, 2]], axis=1))
    y[::2, 1], y[:, 2] = float("nan"), float("nan")
    outputs = fit(name, Values(count=3, missing=True), x, y)(x)
    assert outputs.isfinite().all() and not outputs[:, 2].any()
    known = ~y[:, 1].isnan()
    assert (outputs[known, 1] - y[known, 1]).square().mean() < 0.05


@pytest.mark.parametrize("name", ["logistic", "trees"])
def test_unknown_classes_are_left_out_of_the_fit(name: str) -> None:
    pytest.importorskip("sklearn")
    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    y = torch.from_numpy((x[:, 0] > 0).astype(np.int64))
    hidden = y.clone()
    hidden[::2] = IGNORE
    outputs = fit(name, Classes(count=2, missing=True), x, hidden)(x)
    assert (outputs.argmax(1) == y).float().mean() > 0.9
    hidden[:] = IGNORE
    assert fit(name, Classes(count=2, missing=True), x, hidden)(x).isfinite().all()


def test_a_class_that_train_does_not_have_is_unlikely_and_one_class_is_no_error() -> None:
    pytest.importorskip("sklearn")
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    outputs = fit("logistic", Classes(count=4), x, torch.from_numpy((x[:, 0] > 0) * 2))(x)
    assert outputs.shape == (60, 4) and outputs.isfinite().all()
    assert outputs[:, [1, 3]].max() < outputs[:, [0, 2]].max(dim=1).values.min()
    only = fit("trees", Classes(count=3), x, torch.full((60,), 2))(x)
    assert (only.argmax(1) == 2).all()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    assert (
        main(["baseline", "core/noisy_states", "length=8", "examples=64", "eval_examples=64", "--json"]) == 0
    )
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["majority", "logistic", "trees", "best possible"]
    assert rows[1]["note"] == "512 rows of 28 features" and 0 < rows[1]["metrics"]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("baseline core/wnie", "Did you mean 'core/wine'"),
        ("baseline core/wine core/digits", "takes one dataset, got core/wine, core/digits"),
        ("baseline core/noisy_states stya=1", "Did you mean 'stay'"),
    ],
)
def test_mistakes_are_explained(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    assert message in capsys.readouterr().err


# -- kept beside results ---------------------------------------------------------------------


def kept(
    dataset: str = "core/wine", *, splits: Any = None, said: list[str] | None = None, **params: Any
) -> list[Any]:
    """What stands beside a result on this dataset."""
    from zoo.baselines.measure import _task
    from zoo.contract import kinds_of

    found = catalogue()
    part = found.part("dataset", dataset, params)
    splits = splits or found.get("dataset", part.id).load()(part.config)
    task = _task(found, kinds_of(found, part)[1])
    say = (said if said is not None else []).append
    return baselines_of(found, part, task=task, task_id="core/task", splits=splits, say=say)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    return tmp_path / "baselines"


def test_baselines_are_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    said: list[str] = []
    first = kept(said=said)
    assert [score.name for score in first] == ["majority", "logistic", "trees"]
    assert len(said) == 1 and "core/wine" in said[0] and len(list(cache.glob("*.json"))) == 1
    monkeypatch.setattr(stored, "measure_each", lambda *a, **k: pytest.fail("measured again"))
    assert kept(said=said) == first and len(said) == 1
    (file,) = cache.glob("*.json")
    file.write_text("[{")  # cut short by something
    monkeypatch.undo()
    monkeypatch.setenv("ZOO_CACHE", str(cache.parent))
    assert [s.metrics for s in kept(said=said)] == [s.metrics for s in first] and len(said) == 2


def test_other_data_or_parameters_are_other_baselines(cache: Path) -> None:
    def splits(shift: float) -> Splits:
        x = torch.arange(40.0)[:, None] + shift
        part = TensorSplit(x, (x[:, 0].long() % 3))
        return Splits(train=part, val=part, test=part)

    kept(splits=splits(0))
    kept(splits=splits(0))
    assert len(list(cache.glob("*.json"))) == 1
    kept(splits=splits(1))
    assert len(list(cache.glob("*.json"))) == 2
    kept("core/copy", examples=16, eval_examples=16)
    kept("core/copy", examples=16, eval_examples=16, seed=1)
    assert len(list(cache.glob("core-copy-*.json"))) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("odd data")])
def test_what_fails_or_is_interrupted_costs_no_result(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    pytest.importorskip("sklearn")

    def fail(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(measuring, "fit", fail)
    said: list[str] = []
    assert [score.name for score in kept(said=said)] == ["majority"]
    assert "left out" in said[-1] or "odd data" in said[-1]
    assert list(cache.glob("*.json")) == []  # so that next time they are measured


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    assert kept()[0].name == "majority"


def test_large_data_are_bounded_and_say_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    assert rounds_for(1) == 100 and rounds_for(10**12) == 20
    found = catalogue()
    monkeypatch.setattr(measuring, "MOST_CELLS", 64 * 100)
    monkeypatch.setattr("zoo.baselines.models.WORK", 1)
    digits = {s.name: s for s in measure(found, found.part("dataset", "core/digits"))}
    assert digits["logistic"].note == "100 rows of 64 features"
    assert digits["trees"].note == "100 rows of 64 features, 20 rounds"
    monkeypatch.setattr(measuring, "MOST_FEATURES", 63)
    digits = {s.name: s for s in measure(found, found.part("dataset", "core/digits"))}
    assert not digits["trees"].metrics and "64 features, at most 63" in digits["trees"].note


@pytest.mark.slow
def test_every_bundled_dataset_has_a_fitted_baseline_that_beats_the_naive_one() -> None:
    """At sizes where that takes a moment; of the recall tasks only what follows what is counted."""
    pytest.importorskip("sklearn")
    sizes = {"examples": 200, "eval_examples": 20}
    for spec in catalogue().specs("dataset"):
        if not isinstance(spec, DatasetSpec) or spec.files is not None or spec.plugin != "core":
            continue
        config = spec.config_class()
        names = {field.name for field in dataclasses.fields(config)} if config else set()
        try:
            part = catalogue().part("dataset", spec.id, sizes if "examples" in names else {})
        except ConfigError:
            continue  # it needs a file of the user's
        scores = [s for s in measure(catalogue(), part, most_rows=400) if s.metrics]
        naive, *others = (s for s in scores if s.name != measuring.BEST)
        fitted = [score.metrics["loss"] for score in others if "loss" in score.metrics]
        if not fitted:  # episodes: returns of playing stand in their place
            returns = {score.name: score.metrics["return"] for score in others}
            assert returns["behaviour"] > returns["random"], spec.id
            continue
        best = min(fitted)
        assert best < naive.metrics["loss"] if not spec.synthetic else best < torch.inf, spec.id


def test_a_result_shows_them_and_says_which_is_better() -> None:
    info = {"plan": {"monitor": "val/accuracy", "mode": "max"}}
    of_mse = {"plan": {"monitor": "val/mse", "mode": "min"}}
    baselines = {"majority": {"test/accuracy": 0.1}, "trees": {"test/accuracy": 0.9}}
    assert score_rows({"test/accuracy": 0.8}, baselines, split="test") == [
        ["metric", "test", "majority", "trees"],
        ["accuracy", "0.8", "0.1", "0.9"],
    ]
    worse = outdone({"test/accuracy": 0.8}, baselines, info)
    assert worse == "A baseline does better: trees, test/accuracy 0.9 against 0.8."
    assert outdone({"test/accuracy": 0.9}, baselines, info) == ""
    assert outdone({"test/mse": 2.0}, {"mean": {"test/mse": 1.0}}, of_mse)
    assert not outdone({"test/mse": 0.5}, {"mean": {"test/mse": 1.0}}, of_mse)
    assert not outdone({"test/mse": 0.5}, {"mean": {"test/mse": float("nan")}}, of_mse)
    assert not outdone({"test/mse": 0.5}, {"best possible": {"test/mse": 0.1}}, of_mse)
    assert not outdone({"test/mse": 0.5}, {}, {})


def test_what_is_left_out_is_said_each_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [Score(name="mean", metrics={"loss": 1.0}), Score(name="trees", note="left out: 99 outputs")]
    monkeypatch.setattr(stored, "measure_each", lambda *a, **k: iter(scores))
    for _ in range(2):  # measured, then read
        said: list[str] = []
        assert [score.name for score in kept(said=said)] == ["mean"]
        assert said[-1] == "baseline trees is left out: 99 outputs"
