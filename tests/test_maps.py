"""Questions about each pixel: the kind, the decoder, losses and metrics, and the generated scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.baselines import measure
from zoo.baselines.features import NEARBY, rows_of
from zoo.catalogue import catalogue
from zoo.config import ConfigError
from zoo.contract import Plan, resolve
from zoo.data.shapes import BOTTOM, FARTHEST, NEAREST, draw, load_shapes
from zoo.data.shapes_config import ShapesConfig
from zoo.errors import ContractError
from zoo.kinds import IGNORE, Classes, Image, Labels, Maps, Series, Values, kind_from_dict, kind_to_dict
from zoo.layers import build_model
from zoo.layers.heads_config import MapsHeadConfig
from zoo.layers.maps import ImageMapsHead, TokenMapsHead
from zoo.tasks.config import MultiTaskConfig
from zoo.tasks.dense_prediction import DensePrediction
from zoo.training.evaluation import predict

PARTS: dict[str, Any] = {
    "what": Classes(count=3, names=("a", "b", "c")),
    "far": Values(count=1, missing=True),
}


def maps(height: int = 6, width: int = 5, **others: Any) -> Maps:
    return Maps(height=height, width=width, parts=PARTS, **others)


def plan_of(model: str, *, height: int, width: int, **others: Any) -> Plan:
    found = catalogue()
    return resolve(
        found,
        model=found.part("model", model),
        inputs=Image(channels=3, height=height, width=width),
        targets=maps(height, width),
        width=16,
        **others,
    )


# -- kind and contract --


def test_the_kind_survives_json() -> None:
    kind = maps(weights={"far": 0.5})
    again = kind_from_dict(json.loads(json.dumps(kind_to_dict(kind))))
    assert again == kind and type(again.parts["far"]) is Values
    assert str(kind) == "what (3 classes) + far (1 value, some missing) per pixel of 6 x 5"
    assert kind.outputs == 4


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"parts": {}}, "parts: must name at least one question"),
        ({"parts": {"a": Labels(count=2)}}, "parts.a: expected"),
        ({"parts": PARTS, "weights": {"fra": 1.0}}, "Did you mean 'far'"),
        ({"parts": PARTS, "height": 0}, "height: must be at least 1, got 0"),
    ],
)
def test_kinds_that_contradict_themselves(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Maps(**{"height": 2, "width": 2, **params})


@pytest.mark.parametrize("model", ["core/transformer", "core/mlp_net", "slim/conv", "timm/resnet18"])
def test_any_image_model_answers_each_pixel(model: str) -> None:
    plan = plan_of(model, height=32, width=32)
    again = Plan.from_dict(catalogue(), json.loads(json.dumps(plan.to_dict())))
    assert again.to_dict() == plan.to_dict() and "per pixel" in plan.describe()
    assert build_model(plan).eval()(torch.randn(2, 3, 32, 32)).shape == (2, 4, 32, 32)


def test_maps_of_what_is_no_image_of_their_size_are_refused() -> None:
    found = catalogue()
    options: dict[str, Any] = {"model": found.part("model", "core/transformer"), "width": 16}
    for inputs in (Series(channels=2, length=6), Image(channels=3, height=6, width=6)):
        with pytest.raises(ContractError, match="images of their own size"):
            resolve(found, inputs=inputs, targets=maps(), **options)


def test_a_stem_whose_tokens_lie_on_no_grid_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.layers.stems_config import PatchesConfig

    count = PatchesConfig().tokens(Image(channels=3, height=6, width=5))
    monkeypatch.setattr(PatchesConfig, "tokens", lambda self, inputs: count)
    monkeypatch.delattr(PatchesConfig, "grid")
    with pytest.raises(ContractError, match=r"stem 'core/patches' lie on no grid"):
        plan_of("core/transformer", height=6, width=5)
    head = TokenMapsHead(MapsHeadConfig(), targets=maps(), width=8)
    with pytest.raises(ValueError, match="stem Identity lie on no grid"):
        head.connect(torch.nn.Identity())


# -- the decoder --


@pytest.mark.parametrize(("height", "width", "patch"), [(12, 8, 4), (13, 10, 4), (7, 5, 3), (3, 2, 3)])
def test_a_token_answers_for_its_own_pixels(height: int, width: int, patch: int) -> None:
    stem = catalogue().part("stem", "core/patches", {"patch": patch})
    plan = plan_of("core/transformer", height=height, width=width, stem=stem)
    model = build_model(plan).eval()
    head = TokenMapsHead(MapsHeadConfig(hidden=4, unfold=patch), targets=maps(height, width), width=16)
    head.connect(model.stem)
    torch.nn.init.zeros_(head.smooth.weight)  # which looks one pixel further
    rows, columns = plan.stem.config.grid(plan.inputs)  # type: ignore[union-attr]
    tokens = torch.randn(1, rows * columns, 16)
    before = head(tokens)
    assert before.shape == (1, 4, height, width)
    for n in range(rows * columns):
        changed = tokens.clone()
        changed[0, n] += 1
        moved = (head(changed) != before).any(1)[0]
        expected = torch.zeros(height, width, dtype=torch.bool)
        r, c = divmod(n, columns)
        expected[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] = True
        assert torch.equal(moved, expected)


def test_pooled_features_are_a_map_of_one_place() -> None:
    head = ImageMapsHead(MapsHeadConfig(hidden=4), targets=maps(), width=8)
    x = torch.randn(3, 8)
    assert torch.equal(head(x), head(x[:, :, None, None])) and head(x).shape == (3, 4, 6, 5)
    with pytest.raises(ValueError, match=r"expected features .* got shape \(3, 8, 1\)"):
        head(x[:, :, None])


# -- the task --


def a_batch(n: int = 3, seed: int = 0) -> tuple[torch.Tensor, dict[str, Any]]:
    g = torch.Generator().manual_seed(seed)
    what, far = torch.randint(3, (n, 6, 5), generator=g), 1 + torch.rand(n, 1, 6, 5, generator=g)
    what[torch.rand(what.shape, generator=g) < 0.2] = IGNORE
    far[torch.rand(far.shape, generator=g) < 0.2] = torch.nan
    return torch.randn(n, 4, 6, 5, generator=g), {"target": {"what": what, "far": far}}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), weight=st.floats(0, 3))
def test_loss_and_metrics_are_those_of_a_loop_over_pixels(seed: int, weight: float) -> None:
    task = DensePrediction(MultiTaskConfig(weights={"far": weight}), targets=maps())
    outputs, batch = a_batch(seed=seed)
    entropy: list[float] = []
    errors: list[tuple[float, float]] = []
    shared, either = np.zeros(3), np.zeros(3)
    for b, r, c in np.ndindex(3, 6, 5):
        label = int(batch["target"]["what"][b, r, c])
        far = float(batch["target"]["far"][b, 0, r, c])
        logits = outputs[b, :3, r, c].double()
        if label != IGNORE:
            entropy.append(float(logits.logsumexp(0) - logits[label]))
            answer = int(logits.argmax())
            shared[label] += answer == label
            for n in {label, answer}:
                either[n] += 1
        if far == far:
            errors.append((abs(float(outputs[b, 3, r, c]) - far), far))
    mse = np.mean([e**2 for e, _ in errors])
    metrics = task.metrics()
    loss = task.loss(outputs, batch)
    assert float(loss) == pytest.approx(np.mean(entropy) + weight * mse, rel=1e-5)
    task.update(metrics, outputs, batch, loss)
    found = {name: float(value) for name, value in metrics.compute().items()}
    expected = {
        "loss": np.mean(entropy) + weight * mse,
        "what/miou": np.mean(shared[either > 0] / either[either > 0]),
        "what/accuracy": shared.sum() / len(entropy),
        "far/rmse": mse**0.5,
        "far/mae": np.mean([e for e, _ in errors]),
        "far/abs_rel": np.mean([e / far for e, far in errors]),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def test_a_class_that_never_occurs_does_not_count() -> None:
    task = DensePrediction(MultiTaskConfig(), targets=maps()).tasks["what"]
    target = torch.zeros(1, 6, 5, dtype=torch.int64)
    outputs = torch.zeros(1, 3, 6, 5)
    outputs[:, 0] = 1
    metrics = task.metrics()
    task.update(metrics, outputs, {"target": target}, torch.zeros(()))
    assert float(metrics["miou"].compute()) == 1


def test_predictions_are_rows_of_names_and_numbers() -> None:
    outputs, _ = a_batch(2)
    answers = DensePrediction(MultiTaskConfig(), targets=maps()).predict(outputs)
    assert len(answers) == 2 and np.shape(answers[0]["what"]) == np.shape(answers[0]["far"]) == (6, 5)
    assert answers[1]["what"][2][3] == "abc"[int(outputs[1, :3, 2, 3].argmax())]
    assert answers[1]["far"][2][3] == pytest.approx(float(outputs[1, 3, 2, 3]))


# -- baselines --


def test_simple_models_see_the_pixels_around_the_one_asked() -> None:
    config = ShapesConfig(side=9, examples=4, eval_examples=4)
    inputs, targets = config.kinds()
    split = load_shapes(config).train
    features, answers = rows_of(split, inputs, targets, most=10_000)
    assert features.shape == (4 * 81, 3 * (2 * NEARBY + 1) ** 2)
    rows = [split[n] for n in range(4)]
    middle = features.reshape(4, 9, 9, 3, -1)[..., (2 * NEARBY + 1) ** 2 // 2]
    assert np.array_equal(middle.transpose(0, 3, 1, 2), np.stack([row["input"].numpy() for row in rows]))
    assert torch.equal(
        answers["shape"].reshape(4, 9, 9), torch.stack([row["target"]["shape"] for row in rows])
    )
    depth = torch.stack([row["target"]["depth"] for row in rows])
    torch.testing.assert_close(answers["depth"].reshape(4, 1, 9, 9), depth, equal_nan=True)
    few, some = rows_of(split, inputs, targets, most=40)
    assert len(few) == len(some["shape"]) <= 41


def test_simple_models_answer_each_pixel() -> None:
    pytest.importorskip("sklearn")
    config = {"side": 10, "examples": 24, "eval_examples": 12}
    part = catalogue().part("dataset", "core/shapes", config)
    scores = {score.name: score.metrics for score in measure(catalogue(), part, most_rows=600)}
    assert list(scores) == ["majority and mean", "linear", "trees"]
    assert scores["trees"]["depth/rmse"] < scores["majority and mean"]["depth/rmse"]
    assert all(set(metrics) == set(scores["trees"]) for metrics in scores.values())


# -- the scenes --


def test_what_is_seen_is_what_is_nearest() -> None:
    scenes = draw(ShapesConfig(missing=0.0, noise=0.0), 40, np.random.default_rng(1))
    depth = scenes.depth[:, 0]
    assert ((scenes.shape == 0) == (depth >= BOTTOM)).all()  # the background, and nothing else, is far
    assert ((depth[scenes.shape > 0] >= NEAREST) & (depth[scenes.shape > 0] < FARTHEST)).all()
    for image in range(40):  # a shape has one depth, one class and (in haze that is even) one colour
        for far in np.unique(depth[image][scenes.shape[image] > 0]):
            at = depth[image] == far
            assert len(np.unique(scenes.shape[image][at])) == 1
            assert np.ptp(scenes.images[image][:, at], axis=1).max() < 1e-6


def test_shares_of_what_is_missing_and_of_each_shape() -> None:
    scenes = draw(ShapesConfig(missing=0.2), 300, np.random.default_rng(0))
    assert np.isnan(scenes.depth).mean() == pytest.approx(0.2, abs=0.01)
    labelled, hidden = (scenes.shape > 0).sum(), (scenes.shape == IGNORE).sum()
    assert hidden / (hidden + labelled) == pytest.approx(0.2, abs=0.05)
    shares = np.array([(scenes.shape == n).mean() for n in range(1, 5)])
    assert shares.max() < 1.4 * shares.min()


def test_scenes_follow_their_parameters() -> None:
    config = ShapesConfig(side=12, objects=1, examples=5, eval_examples=3, seed=4)
    splits = load_shapes(config)
    assert splits.sizes == {"train": 5, "val": 3, "test": 3}
    assert splits.train[0]["input"].shape == (3, 12, 12)
    other = load_shapes(ShapesConfig(side=12, objects=1, examples=5, eval_examples=3, seed=5))
    assert not torch.equal(splits.train[0]["input"], other.train[0]["input"])
    with pytest.raises(ConfigError, match="side: must be at least 8, got 4"):
        ShapesConfig(side=4)


def test_a_run_predicts_maps_of_an_image(tmp_path: Path) -> None:
    result = zoo.train(
        "core/shapes",
        [
            "data.params.side=12",
            "data.params.examples=16",
            "data.params.eval_examples=8",
            "model.width=16",
            "model.params.depth=1",
            "trainer.max_epochs=1",
            f"output.dir={tmp_path}",
        ],
        quiet=True,
    )
    assert {"test/shape/miou", "test/shape/accuracy", "test/depth/rmse", "test/depth/abs_rel"} <= set(
        result.metrics
    )
    np.save(tmp_path / "one.npy", np.random.default_rng(0).random((1, 3, 12, 12), dtype=np.float32))
    assert result.run is not None
    (answer,) = predict(result.run, tmp_path / "one.npy")
    assert np.shape(answer["shape"]) == np.shape(answer["depth"]) == (12, 12)
    assert set(np.ravel(answer["shape"])) <= set(ShapesConfig.names)
