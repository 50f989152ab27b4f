"""Tasks: losses and metrics against their definitions, weights of batches, naive answers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from sklearn.metrics import f1_score, r2_score
from torch.nn import functional as F

from zoo.catalogue import catalogue
from zoo.config import ConfigError
from zoo.data import TensorSplit
from zoo.kinds import IGNORE, Classes, NextId, Values
from zoo.tasks import Classification, LanguageModelling, Regression
from zoo.tasks.config import ClassificationConfig, LanguageModellingConfig, RegressionConfig
from zoo.tasks.metrics import values_of


def classification(count: int = 3, **params: float) -> Classification:
    return Classification(ClassificationConfig(**params), targets=Classes(count=count))


def regression(count: int = 1, names: tuple[str, ...] = (), **params: str) -> Regression:
    return Regression(RegressionConfig(**params), targets=Values(count=count, names=names))


def language(vocab: int = 5, unit: str = "character", **params: float) -> LanguageModelling:
    return LanguageModelling(LanguageModellingConfig(**params), targets=NextId(vocab=vocab, unit=unit))


def measure(task, outputs, target, *, split: list[int] | None = None) -> dict[str, float]:
    """The task's metrics, the examples given in batches of the sizes in `split`."""
    metrics = task.metrics()
    for out, tgt in zip(
        outputs.split(split or len(outputs)), target.split(split or len(target)), strict=True
    ):
        batch = {"target": tgt}
        task.update(metrics, out, batch, task.loss(out, batch))
    return values_of(metrics)


def test_classification_agrees_with_sklearn_and_torch():
    torch.manual_seed(0)
    outputs, target = torch.randn(50, 3), torch.randint(3, (50,))
    found = measure(classification(), outputs, target)
    answers = outputs.argmax(1)
    assert found["loss"] == pytest.approx(F.cross_entropy(outputs, target).item(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((answers == target).float().mean().item())
    assert found["f1_macro"] == pytest.approx(f1_score(target, answers, average="macro"), rel=1e-5)


@pytest.mark.parametrize("make", [classification, lambda: regression(3), language], ids=["cls", "reg", "lm"])
def test_metrics_do_not_depend_on_the_batches(make):
    torch.manual_seed(1)
    task = make()
    if isinstance(task, LanguageModelling):
        outputs, target = torch.randn(10, 6, 5), torch.randint(5, (10, 6))
        target[0, 2:] = IGNORE  # batches of unequal weight
        target[9] = IGNORE
    elif isinstance(task, Regression):
        outputs, target = torch.randn(10, 3), torch.randn(10, 3)
    else:
        outputs, target = torch.randn(10, 3), torch.randint(3, (10,))
    whole, parts = measure(task, outputs, target), measure(task, outputs, target, split=[1, 6, 2, 1])
    assert whole.keys() == parts.keys()
    for name in whole:
        assert whole[name] == pytest.approx(parts[name], rel=1e-5), name


def test_label_smoothing_changes_the_loss_only():
    torch.manual_seed(2)
    outputs, target = torch.randn(20, 3), torch.randint(3, (20,))
    plain, smooth = (measure(classification(label_smoothing=s), outputs, target) for s in (0.0, 0.3))
    expected = 0.7 * F.cross_entropy(outputs, target) - 0.3 * outputs.log_softmax(1).mean()
    assert smooth["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert smooth["accuracy"] == plain["accuracy"] and smooth["f1_macro"] == plain["f1_macro"]
    outputs, target = torch.randn(4, 6, 5), torch.randint(5, (4, 6))
    plain, smooth = (measure(language(label_smoothing=s), outputs, target) for s in (0.0, 0.3))
    assert smooth["loss"] != pytest.approx(plain["loss"], rel=1e-3)
    assert smooth["bits_per_character"] == pytest.approx(plain["bits_per_character"], rel=1e-6)


def test_regression_agrees_with_sklearn_and_names_its_values():
    torch.manual_seed(3)
    outputs, target = torch.randn(30, 2), torch.randn(30, 2) * 2 + 1
    found = measure(regression(2, ("yield", "strength")), outputs, target)
    assert found["mse"] == pytest.approx(F.mse_loss(outputs, target).item(), rel=1e-5)
    assert found["mae"] == pytest.approx(F.l1_loss(outputs, target).item(), rel=1e-5)
    assert found["r2"] == pytest.approx(r2_score(target, outputs), rel=1e-4)
    assert found["r2_strength"] == pytest.approx(r2_score(target[:, 1], outputs[:, 1]), rel=1e-4)
    assert found["mae_yield"] == pytest.approx(F.l1_loss(outputs[:, 0], target[:, 0]).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "reference"), [("mse", F.mse_loss), ("mae", F.l1_loss), ("huber", F.huber_loss)]
)
def test_regression_losses(loss, reference):
    outputs, target = torch.randn(8, 1), 3 * torch.randn(8, 1)
    assert torch.equal(regression(loss=loss).loss(outputs, {"target": target}), reference(outputs, target))


def test_r2_of_a_single_example_is_not_a_number():
    assert math.isnan(measure(regression(), torch.zeros(1, 1), torch.ones(1, 1))["r2"])


def test_unasked_positions_are_not_scored():
    torch.manual_seed(4)
    outputs, target = torch.randn(3, 4, 5), torch.randint(5, (3, 4))
    target[:, 0] = IGNORE
    changed = outputs.clone()
    changed[:, 0] = 100 * torch.randn(3, 5)
    task = language()
    assert measure(task, outputs, target) == measure(task, changed, target)
    outputs.requires_grad_()
    task.loss(outputs, {"target": target}).backward()
    assert outputs.grad[:, 0].abs().max() == 0 and outputs.grad[:, 1:].abs().min() > 0
    assert task.count({"target": target}) == 9


def test_language_modelling_units():
    outputs, target = torch.zeros(2, 3, 8), torch.randint(8, (2, 3))  # uniform over 8 symbols
    found = measure(language(8, "byte"), outputs, target)
    assert found["bits_per_byte"] == pytest.approx(3.0)
    assert found["perplexity"] == pytest.approx(8.0, rel=1e-5)


def test_exact_match_wants_every_asked_position():
    target = torch.tensor([[IGNORE, 1, 2], [IGNORE, 1, 2], [IGNORE, IGNORE, IGNORE]])
    outputs = F.one_hot(torch.tensor([[0, 1, 2], [0, 1, 3], [0, 0, 0]]), 5).float()
    found = measure(language(), outputs, target)
    assert found["exact_match"] == 0.5  # the third sequence asks for nothing
    assert found["accuracy"] == 0.75


def test_a_batch_that_asks_for_nothing_is_zero_with_a_gradient():
    outputs = torch.randn(2, 3, 5, requires_grad=True)
    loss = language().loss(outputs, {"target": torch.full((2, 3), IGNORE)})
    loss.backward()
    assert loss == 0 and outputs.grad.abs().sum() == 0


def test_unknown_classes_are_neither_trained_on_nor_scored():
    torch.manual_seed(0)
    task, outputs, target = classification(label_smoothing=0.1), torch.randn(10, 3), torch.randint(3, (10,))
    target[::3] = IGNORE
    known = target != IGNORE
    assert measure(task, outputs, target, split=[1, 2, 7]) == pytest.approx(
        measure(task, outputs[known], target[known])
    )
    assert task.count({"target": target}) == 6
    asks_nothing = outputs.requires_grad_()
    loss = task.loss(asks_nothing, {"target": torch.full_like(target, IGNORE)})
    loss.backward()
    assert loss == 0 and not asks_nothing.grad.any()
    naive = [task.naive(TensorSplit(outputs.detach()[at], target[at])) for at in (slice(None), known)]
    assert torch.equal(*naive)


def test_a_nan_shows_in_the_metrics():
    assert math.isnan(measure(regression(), torch.full((2, 1), math.nan), torch.ones(2, 1))["loss"])


def test_naive_classification_is_the_majority_class():
    train = TensorSplit(torch.zeros(10, 1), torch.tensor([2] * 6 + [0] * 3 + [1]))
    test = TensorSplit(torch.zeros(4, 1), torch.tensor([2, 2, 2, 1]))
    found = classification().baseline(train, test)
    assert found["accuracy"] == 0.75
    # Laplace: (6 + 1) / 13 and (1 + 1) / 13
    assert found["loss"] == pytest.approx(-(3 * math.log(7 / 13) + math.log(2 / 13)) / 4, rel=1e-5)


def test_naive_regression_is_the_mean_of_train():
    train = TensorSplit(torch.zeros(4, 1), torch.tensor([[1.0], [2.0], [3.0], [6.0]]))
    test = TensorSplit(torch.zeros(2, 1), torch.tensor([[3.0], [5.0]]))
    found = regression().baseline(train, test)
    assert found["mae"] == pytest.approx(1.0) and found["mse"] == pytest.approx(2.0)
    assert found["r2"] == pytest.approx(-1.0)


def test_naive_language_modelling_is_the_frequency_of_asked_symbols():
    train = TensorSplit(torch.zeros(1, 4, dtype=torch.long), torch.tensor([[0, 0, 1, IGNORE]]))
    test = TensorSplit(torch.zeros(2, 2, dtype=torch.long), torch.tensor([[0, IGNORE], [1, 0]]))
    found = language(3).baseline(train, test)
    bits = -(2 * math.log2(3 / 6) + math.log2(2 / 6)) / 3
    assert found["bits_per_character"] == pytest.approx(bits, rel=1e-5)


def test_predictions_are_plain_data():
    named = Classification(ClassificationConfig(), targets=Classes(count=2, names=("cat", "dog")))
    (answer,) = named.predict(torch.tensor([[0.0, 1.0]]))
    assert answer["class"] == "dog" and answer["probability"] == pytest.approx(0.7311, abs=1e-4)
    assert classification().predict(torch.eye(3))[2]["class"] == 2
    assert regression(2, ("a", "b")).predict(torch.tensor([[1.0, 2.0]])) == [{"a": 1.0, "b": 2.0}]
    ids = torch.tensor([[3, 1, 4], [2, 2, 0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert language().predict(F.one_hot(ids, 5).float(), mask) == [[3, 1, 4], [2]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_half_precision_outputs_are_computed_in_full(dtype):
    outputs, target = torch.randn(8, 3).to(dtype), torch.randint(3, (8,))
    assert classification().loss(outputs, {"target": target}).dtype == torch.float32


def test_parameters_are_checked():
    with pytest.raises(ConfigError, match="must be below 1"):
        ClassificationConfig(label_smoothing=1.0)
    with pytest.raises(ConfigError, match="one of mse, mae, huber"):
        RegressionConfig(loss="rmse")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["classification", "regression", "language_modelling"])
def test_the_catalogue_loads_each_task_and_monitors_one_of_its_metrics(name):
    found = catalogue()
    part = found.part("task", name)
    targets = {"classification": Classes(count=4), "regression": Values(count=1)}.get(
        name, NextId(vocab=7, unit="byte")
    )
    spec = found.get("task", part.id)
    task = spec.load()(part.config, targets=targets)
    monitored = spec.monitor.format(unit="byte").removeprefix("val/")
    assert monitored in task.metrics() and "loss" in task.metrics()


def test_specs_list_the_metrics_that_tasks_have():
    from fnmatch import fnmatchcase

    from zoo.catalogue import catalogue
    from zoo.contract import Plan, matrix

    seen = set()
    for _, _, plan in matrix(catalogue()):
        if not isinstance(plan, Plan) or plan.task is None or plan.dataset in seen:
            continue
        spec = catalogue().get("task", plan.task.id)
        patterns = [name.format(**dataclasses.asdict(plan.targets)) for name in spec.metrics]
        task = spec.load()(plan.task.config, targets=plan.targets)
        names = [*task.metrics()]
        assert spec.played == task.played
        assert all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names), names
        plain = {pattern for pattern in patterns if "*" not in pattern}
        assert plain <= set(names)
        seen.add(plan.task.id)
    assert len(seen) >= 6
