"""Forecasts, labels, several questions at once, missing values: kinds, plans, heads and tasks."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from zoo.catalogue import catalogue
from zoo.config import ConfigError
from zoo.contract import Plan, resolve
from zoo.data.split import TensorSplit
from zoo.kinds import (
    IGNORE,
    Classes,
    Forecast,
    Image,
    Labels,
    Multi,
    Series,
    Values,
    Vector,
    kind_from_dict,
    kind_to_dict,
)
from zoo.layers import build_model
from zoo.tasks import Forecasting, MultiTask, Regression, SequenceLabelling
from zoo.tasks.config import (
    ForecastingConfig,
    MultiTaskConfig,
    RegressionConfig,
    SequenceLabellingConfig,
)
from zoo.tasks.metrics import R2, values_of

NAN = float("nan")
MULTI = Multi(parts={"which": Classes(count=3, names=("a", "b", "c")), "size": Values(count=2, missing=True)})
SERIES = Series(channels=3, length=12, ragged=True)


def measured(task: Any, *pieces: tuple[torch.Tensor, dict[str, Any]]) -> dict[str, float]:
    metrics = task.metrics()
    for outputs, batch in pieces:
        task.update(metrics, outputs, batch, task.loss(outputs, batch))
    return values_of(metrics)


@pytest.mark.parametrize(
    "kind",
    [
        Labels(count=3, names=("x", "y", "z")),
        Forecast(channels=2, horizon=5, names=("u", "v")),
        Values(count=2, missing=True),
        MULTI,
        Multi(parts={"a": Values(count=1), "b": Classes(count=1)}, weights={"a": 0.25}),
    ],
    ids=str,
)
def test_kinds_survive_json(kind: Any) -> None:
    again = kind_from_dict(json.loads(json.dumps(kind_to_dict(kind))))
    assert again == kind and type(again) is type(kind)
    if isinstance(kind, Multi):
        assert [type(part) for part in again.parts.values()] == [type(p) for p in kind.parts.values()]


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        (Multi, {"parts": {}}, "parts: must name at least one question"),
        (Multi, {"parts": {"a/b": Classes(count=2)}}, r"parts: must be called by letters.*got 'a/b'"),
        (Multi, {"parts": {"a": Labels(count=2)}}, "parts.a: expected"),
        (Multi, {"parts": {"size": Values(count=1)}, "weights": {"sise": 1.0}}, "Did you mean 'size'"),
        (Multi, {"parts": {"a": Values(count=1)}, "weights": {"a": -1.0}}, "at least 0 and finite, got -1"),
        (Forecast, {"channels": 2, "horizon": 0}, "horizon: must be at least 1"),
        (Forecast, {"channels": 2, "horizon": 1, "names": ("a",)}, "are 1, but there are 2 channels"),
        (Labels, {"count": 2, "names": ("a",)}, "are 1, but there are 2 labels"),
    ],
)
def test_kinds_that_contradict_themselves(kind: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**params)


@pytest.mark.parametrize("model", ["core/transformer", "core/mlp_net"])
@pytest.mark.parametrize(
    ("inputs", "targets", "shape"),
    [
        (SERIES, Forecast(channels=2, horizon=5), (4, 5, 2)),
        (SERIES, MULTI, (4, 5)),
        (Image(channels=1, height=8, width=8), MULTI, (4, 5)),
        (Vector(features=6), MULTI, (4, 5)),
        (SERIES, Labels(count=3), (4, 12, 3)),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_a_plan_for_each_question_builds_and_survives_json(
    model: str, inputs: Any, targets: Any, shape: tuple[int, ...]
) -> None:
    found = catalogue()
    options: dict[str, Any] = {"inputs": inputs, "targets": targets, "width": 16}
    if model == "core/mlp_net" and targets.kind == "labels":
        with pytest.raises(ValueError, match=r"no installed head answers labels.*core/transformer"):
            resolve(found, model=found.part("model", model), **options)
        return
    plan = resolve(found, model=found.part("model", model), **options)
    again = Plan.from_dict(found, json.loads(json.dumps(plan.to_dict())))
    assert again.to_dict() == plan.to_dict() and str(targets) in plan.describe()
    sizes = {"series": (4, 12, 3), "image": (4, 1, 8, 8), "vector": (4, 6)}
    net = build_model(plan).eval()
    x = torch.randn(sizes[inputs.kind])
    assert net(x).shape == shape
    assert not plan.causal  # both directions are allowed


def test_a_forecast_of_a_padded_series_is_that_of_the_series_alone() -> None:
    found = catalogue()
    plan = resolve(
        found,
        model=found.part("model", "core/transformer"),
        width=16,
        inputs=SERIES,
        targets=Forecast(channels=2, horizon=5),
    )
    torch.manual_seed(0)
    net = build_model(plan).eval()
    x = torch.randn(2, 12, 3)
    mask = torch.arange(12) < torch.tensor([7, 12])[:, None]
    together = net(x, mask=mask)
    assert torch.allclose(together[:1], net(x[:1, :7]), atol=1e-5)
    assert torch.allclose(together[1:], net(x[1:]), atol=1e-5)


def test_a_head_for_several_questions_is_a_head_for_each() -> None:
    """One linear map to all answers, and one per question, agree in values and gradients."""
    from zoo.layers.heads import VectorHead
    from zoo.layers.heads_config import VectorHeadConfig

    torch.manual_seed(0)
    joined = VectorHead(VectorHeadConfig(), targets=MULTI, width=8)
    apart = {n: VectorHead(VectorHeadConfig(), targets=p, width=8) for n, p in MULTI.parts.items()}
    rows = joined.linear.weight.split([p.outputs for p in MULTI.parts.values()])
    for head, weight in zip(apart.values(), rows, strict=True):
        head.linear.weight.data.copy_(weight)
    x = torch.randn(5, 8, requires_grad=True)
    found = MULTI.split(joined(x))
    for name, head in apart.items():
        assert torch.allclose(found[name], head(x), atol=1e-6)
    (one,) = torch.autograd.grad(joined(x).square().sum(), x)
    (other,) = torch.autograd.grad(sum(h(x).square().sum() for h in apart.values()), x)  # type: ignore[arg-type]
    assert torch.allclose(one, other, atol=1e-6)


# -- values that are missing -----------------------------------------------------------------


def regression(count: int = 2, **params: Any) -> Regression:
    return Regression(RegressionConfig(**params), targets=Values(count=count, missing=True))


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_a_missing_value_neither_trains_nor_counts(loss: str) -> None:
    target = torch.tensor([[1.0, NAN], [NAN, 2.0], [3.0, 4.0]])
    outputs = torch.randn(3, 2, requires_grad=True)
    task = regression(loss=loss)
    task.loss(outputs, {"target": target}).backward()
    assert outputs.grad is not None and outputs.grad.isfinite().all()
    assert torch.equal(outputs.grad != 0, ~target.isnan())
    assert task.count({"target": target}) == 4
    known = ~target.isnan()
    alone = regression(count=1, loss=loss).loss(outputs[known][:, None], {"target": target[known][:, None]})
    assert torch.allclose(task.loss(outputs, {"target": target}), alone)


def test_nothing_measured_gives_a_loss_of_nothing_that_still_has_a_gradient() -> None:
    outputs = torch.randn(3, 2, requires_grad=True)
    loss = regression().loss(outputs, {"target": torch.full((3, 2), NAN)})
    loss.backward()
    assert loss == 0 and outputs.grad is not None and not outputs.grad.any()


def test_scores_of_each_value_are_those_of_its_measured_rows() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    torch.manual_seed(0)
    target, outputs = torch.randn(40, 2) * 2 + 1, torch.randn(40, 2)
    target[:15, 0], target[30:, 1] = NAN, NAN
    batches = [(outputs[a:b], {"target": target[a:b]}) for a, b in ((0, 9), (9, 15), (15, 40))]
    found = measured(regression(), *batches)
    expected = [
        metrics.r2_score(target[known, i], outputs[known, i])
        for i, known in enumerate((~target.isnan()).unbind(1))
    ]
    assert found["r2_0"] == pytest.approx(expected[0], rel=1e-4)
    assert found["r2_1"] == pytest.approx(expected[1], rel=1e-4)
    assert found["r2"] == pytest.approx(sum(expected) / 2, rel=1e-4)
    known = ~target.isnan()
    assert found["mse"] == pytest.approx((outputs - target)[known].square().mean().item(), rel=1e-5)


def test_r2_where_it_is_hardly_defined() -> None:
    score = R2(3)
    # two known and right; constant and wrong; one known
    score.update(torch.tensor([[1.0, 2, 0], [2.0, 3, 0]]), torch.tensor([[1.0, 5, 0], [2.0, 5, NAN]]))
    assert score.compute() == pytest.approx((1 + 0) / 2)
    empty = R2(1)
    empty.update(torch.zeros(1, 1), torch.zeros(1, 1))
    assert math.isnan(empty.compute())


def test_the_mean_of_what_was_measured_is_the_naive_answer() -> None:
    target = torch.tensor([[1.0, NAN], [3.0, NAN], [NAN, NAN]])
    naive = regression().naive(TensorSplit(torch.zeros(3, 1), target))
    assert naive.tolist() == [[2.0, 0.0]]


# -- forecasting -----------------------------------------------------------------------------


def forecasting(horizon: int, channels: int = 1) -> Forecasting:
    return Forecasting(ForecastingConfig(), targets=Forecast(channels=channels, horizon=horizon))


@pytest.mark.parametrize(
    ("horizon", "names"),
    [
        (1, []),
        (3, ["mse_h1", "mse_h2", "mse_h3"]),
        (6, ["mse_h1_2", "mse_h3", "mse_h4", "mse_h5_6"]),
        (24, ["mse_h1_6", "mse_h7_12", "mse_h13_18", "mse_h19_24"]),
    ],
)
def test_errors_by_horizon_cover_it(horizon: int, names: list[str]) -> None:
    task = forecasting(horizon, channels=2)
    steps = [step for part in task.parts().values() for step in range(horizon)[part]]
    assert steps == (list(range(horizon)) if horizon > 1 else [])
    assert list(task.parts()) == names
    torch.manual_seed(0)
    outputs, target = torch.randn(5, horizon, 2), torch.randn(5, horizon, 2)
    found = measured(task, (outputs, {"target": target}))
    assert found["mse"] == pytest.approx(F.mse_loss(outputs, target).item(), rel=1e-5)
    assert found["mae"] == pytest.approx(F.l1_loss(outputs, target).item(), rel=1e-5)
    for name, part in task.parts().items():
        assert found[name] == pytest.approx(F.mse_loss(outputs[:, part], target[:, part]).item(), rel=1e-5)


def test_the_naive_forecast_goes_on_with_the_last_real_step() -> None:
    inputs = torch.arange(12.0).reshape(2, 3, 2)
    split = TensorSplit(inputs, torch.zeros(2, 4, 1), lengths=torch.tensor([2, 3]))
    task = forecasting(4)
    batch = split.__getitems__([0, 1])
    assert task.answers(task.naive(split), batch)[..., 0].tolist() == [[2.0] * 4, [10.0] * 4]
    assert task.baseline(split, split)["mse"] == pytest.approx((4 + 100) / 2)


# -- labels ----------------------------------------------------------------------------------


def test_labels_that_are_not_asked_do_not_count() -> None:
    torch.manual_seed(0)
    task = SequenceLabelling(SequenceLabellingConfig(), targets=Labels(count=3, names=("x", "y", "z")))
    target = torch.tensor([[0, 1, 2, 1], [2, 2, IGNORE, IGNORE], [IGNORE] * 4])
    right = 9 * F.one_hot(target.clamp_min(0), 3).float()
    wrong = right.clone()
    wrong[0, 3] = torch.tensor([9.0, 0, 0])
    wrong[1, 2:], wrong[2] = 5.0, 7.0
    found = measured(task, (wrong, {"target": target}))
    assert found["accuracy"] == pytest.approx(5 / 6) and found["exact_match"] == 0.5
    assert task.count({"target": target}) == 6
    asked = target != IGNORE
    assert found["loss"] == pytest.approx(F.cross_entropy(wrong[asked], target[asked]).item(), rel=1e-5)
    assert task.predict(right, target != IGNORE) == [["x", "y", "z", "y"], ["z", "z"], []]
    assert task.loss(wrong, {"target": torch.full_like(target, IGNORE)}) == 0


# -- several questions -----------------------------------------------------------------------


def questions(size: int = 10) -> tuple[torch.Tensor, dict[str, Any]]:
    torch.manual_seed(0)
    values = torch.randn(size, 2)
    values[::3, 0] = NAN
    return torch.randn(size, 5), {"target": {"which": torch.randint(3, (size,)), "size": values}}


def test_each_question_is_scored_as_if_it_were_the_only_one() -> None:
    task = MultiTask(MultiTaskConfig(weights={"size": 0.5}), targets=MULTI)
    outputs, batch = questions()
    found = measured(task, (outputs, batch))
    for name, columns in (("which", slice(0, 3)), ("size", slice(3, 5))):
        alone = measured(task.tasks[name], (outputs[:, columns], {"target": batch["target"][name]}))
        assert {f"{name}/{metric}": value for metric, value in alone.items()}.items() <= found.items()
    expected = found["which/loss"] + 0.5 * found["size/loss"]
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert task.loss(outputs, batch).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_two_batches_is_that_of_both_though_values_are_missing() -> None:
    task = MultiTask(MultiTaskConfig(), targets=MULTI)
    outputs, batch = questions()
    cut = [
        (outputs[part], {"target": {name: t[part] for name, t in batch["target"].items()}})
        for part in (slice(0, 2), slice(2, 10))
    ]
    whole, parts = measured(task, (outputs, batch)), measured(task, *cut)
    assert whole == pytest.approx(parts, rel=1e-5)


def test_a_weight_of_nothing_leaves_a_question_without_a_gradient() -> None:
    task = MultiTask(MultiTaskConfig(weights={"which": 0.0}), targets=MULTI)
    outputs, batch = questions()
    outputs.requires_grad_()
    task.loss(outputs, batch).backward()
    assert outputs.grad is not None
    assert not outputs.grad[:, :3].any() and outputs.grad[:, 3:].any()


def test_weights_come_from_the_task_then_from_the_dataset() -> None:
    targets = Multi(parts=MULTI.parts, weights={"which": 2.0, "size": 3.0})
    assert MultiTask(MultiTaskConfig(weights={"size": 0.1}), targets=targets).weights == {
        "which": 2.0,
        "size": 0.1,
    }
    with pytest.raises(ConfigError, match=r"weights.sise: is no part. Did you mean 'size'"):
        MultiTask(MultiTaskConfig(weights={"sise": 1.0}), targets=targets)


def test_predictions_name_the_questions() -> None:
    task = MultiTask(MultiTaskConfig(), targets=MULTI)
    outputs, _ = questions(2)
    first = task.predict(outputs)[0]
    assert set(first) == {"which", "size"} and first["which"]["class"] in "abc"
    assert first["size"] == {"value_0": outputs[0, 3].item(), "value_1": outputs[0, 4].item()}
    json.dumps(first)
