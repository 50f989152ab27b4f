"""Dataset x model: one plan or one reason, on toys and on what is really installed."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import zoo.plugin as zp
from zoo.catalogue import Catalogue, Part, catalogue
from zoo.contract import Plan, matrix, resolve

# ruff: noqa: E501 (a table of messages)

IMAGE = zp.Image(channels=1, height=8, width=8)
IDS = zp.Ids(vocab=9, length=32)
CLASSES = zp.Classes(count=3)
NEXT = zp.NextId(vocab=9, unit="character")


@dataclass(frozen=True, kw_only=True)
class NetConfig(zp.Config):
    """Parameters of the toy models."""

    heads: int = zp.param(4, "heads", at_least=1)

    def check_width(self, width: int) -> None:
        if width % self.heads:
            raise zp.ConfigError([zp.Problem("heads", f"{self.heads} heads do not divide width {width}")])


@dataclass(frozen=True, kw_only=True)
class StemConfig(zp.Config):
    """Parameters of the toy stems."""

    patch: int = zp.param(2, "pixels", at_least=1)

    def tokens(self, inputs: Any) -> int | None:
        if isinstance(inputs, zp.Image):
            if inputs.height % self.patch:
                raise zp.ContractError(f"patch {self.patch} does not divide {inputs}")
            return (inputs.height // self.patch) ** 2
        return inputs.length


@dataclass(frozen=True, kw_only=True)
class FlatConfig(zp.Config):
    """Parameters of the toy stem that makes a vector."""

    def tokens(self, inputs: Any) -> None:
        return None

    def flattened(self, inputs: zp.Image) -> int:
        return inputs.channels * inputs.height * inputs.width


@dataclass(frozen=True, kw_only=True)
class DataConfig(zp.Config):
    """Parameters of the toy dataset: as long as is wished."""

    length: int = zp.param(32, "symbols", at_least=1)

    def kinds(self) -> tuple[zp.DataKind, zp.TargetKind]:
        return zp.Ids(vocab=9, length=self.length), NEXT


def _spec(cls: type[zp.Spec], name: str, config: str | None = None, **given: Any) -> Any:
    return cls(name=name, target="toy:X", config=f"toy:{config}" if config else None, **given)


SPECS = (
    _spec(zp.ModelSpec, "both", "NetConfig", causal="never"),
    _spec(zp.ModelSpec, "either", "NetConfig", causal="optional"),
    _spec(zp.ModelSpec, "past", "NetConfig", causal="always", min_tokens=4, max_tokens=64),
    _spec(zp.ModelSpec, "flat", accepts="vector", causal="never"),
    _spec(zp.ModelSpec, "conv", accepts="image", causal="never"),
    _spec(zp.StemSpec, "patches", "StemConfig", accepts="image", returns="tokens"),
    _spec(zp.StemSpec, "pixels", "StemConfig", accepts="image", returns="tokens", cost=20),
    _spec(zp.StemSpec, "flatten", "FlatConfig", accepts="image", returns="vector"),
    _spec(zp.StemSpec, "embedding", "StemConfig", accepts="ids", returns="tokens"),
    _spec(zp.HeadSpec, "pool", accepts="tokens", answers="classes"),
    _spec(zp.HeadSpec, "next", accepts="tokens", answers="next_id"),
    _spec(zp.HeadSpec, "linear", accepts="vector", answers="classes"),
    _spec(zp.HeadSpec, "average", accepts="image", answers="classes"),
    _spec(zp.TaskSpec, "classify", answers="classes", monitor="val/accuracy", mode="max"),
    _spec(zp.TaskSpec, "write", answers="next_id", needs_causal=True, monitor="val/bits_per_{unit}"),
    _spec(zp.DatasetSpec, "pictures", inputs=IMAGE, targets=CLASSES),
    _spec(zp.DatasetSpec, "words", "DataConfig", inputs=IDS, targets=NEXT),
    _spec(zp.DatasetSpec, "topics", inputs=IDS, targets=CLASSES),
    _spec(zp.DatasetSpec, "speed", inputs=zp.Series(channels=2, length=9), targets=zp.Values(count=1)),
)


@pytest.fixture
def toy(
    fresh_catalogue: Catalogue,
    plugin_module: Callable[..., types.ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> Catalogue:
    module = types.ModuleType("toy")
    vars(module).update({c.__name__: c for c in (NetConfig, StemConfig, FlatConfig, DataConfig)})
    monkeypatch.setitem(sys.modules, "toy", module)
    plugin = fresh_catalogue.add(plugin_module("toy", specs=SPECS), id="toy")
    assert plugin.status == "ok" and not plugin.problems
    return fresh_catalogue


def plan(found: Catalogue, model: Any, dataset: Any = None, **given: Any) -> Plan:
    """`resolve` with parts by name, `("name", {...})` with parameters."""

    def part(kind: str, value: Any) -> Part:
        name, params = value if isinstance(value, tuple) else (value, {})
        return found.part(kind, name, params)

    parts: dict[str, Any] = {
        kind: part(kind, given.pop(kind)) for kind in ("stem", "head", "task") if kind in given
    }
    data = part("dataset", dataset) if dataset else None
    return resolve(found, model=part("model", model), dataset=data, **parts, **given)


def test_the_cheapest_parts_are_chosen(toy: Catalogue) -> None:
    found = plan(toy, "both", "pictures", width=64)
    assert found.stem and found.task
    assert (found.stem.id, found.head.id, found.task.id) == ("toy/patches", "toy/pool", "toy/classify")
    assert (found.tokens, found.width, found.causal) == (16, 64, False)
    assert (found.monitor, found.mode) == ("val/accuracy", "max")
    assert found.describe() == (
        "toy/pictures image(1, 8, 8) -> toy/patches -> 16 tokens x 64 -> toy/both -> toy/pool -> 3 classes "
        "(toy/classify)"
    )


def test_pinned_parts_and_their_parameters_are_kept(toy: Catalogue) -> None:
    found = plan(toy, ("either", {"heads": 2}), "pictures", stem=("pixels", {"patch": 1}), causal=True)
    assert found.stem == Part("stem", "toy/pixels", StemConfig(patch=1))
    assert found.tokens == 64 and found.causal
    assert "toy/pixels(patch=1) -> 64 tokens x 128 -> toy/either(heads=2) (causal)" in found.describe()


def test_language_modelling_is_causal_and_names_its_unit(toy: Catalogue) -> None:
    found = plan(toy, "either", ("words", {"length": 50}))
    assert found.causal and found.tokens == 50 and found.monitor == "val/bits_per_character"
    assert plan(toy, "past", "topics").causal
    assert not plan(toy, "either", "topics").causal
    # Without a dataset too: nobody wants a model of the next symbol that has seen it.
    assert plan(toy, "either", inputs=IDS, targets=NEXT).causal


def test_a_model_of_images_has_no_stem_and_a_vector_no_tokens(toy: Catalogue) -> None:
    assert plan(toy, "conv", "pictures").stem is None
    flat = plan(toy, "flat", "pictures")
    assert flat.tokens is None and "vector x 128" in flat.describe() and flat.notes == ()
    wide = plan(toy, "flat", inputs=zp.Image(channels=3, height=64, width=64), targets=CLASSES)
    assert wide.notes == ("toy/flatten flattens 12288 values: the first layer holds most of the parameters",)


def test_without_a_task_for_them_targets_can_still_be_answered(
    fresh_catalogue: Catalogue, plugin_module: Callable[..., types.ModuleType], toy: Catalogue
) -> None:
    bare = Catalogue()
    bare.add(plugin_module("toy", specs=[s for s in SPECS if not isinstance(s, zp.TaskSpec)]), id="toy")
    found = plan(bare, "both", inputs=IMAGE, targets=CLASSES)
    assert found.task is None and found.monitor is None
    with pytest.raises(zp.ContractError, match="no installed task answers 'classes'") as caught:
        plan(bare, "both", "pictures")
    assert caught.value.path == "task"


@pytest.mark.parametrize(
    ("model", "dataset", "given", "path", "says"),
    [
        ("both", "words", {}, "model", "model 'toy/both' cannot do task 'toy/write': it sees both directions (causal: never), so the answer would leak. It can do: toy/classify. Models that can be causal: toy/either, toy/past."),
        ("either", "words", {"causal": False}, "model", "cannot do task 'toy/write' when causal=False is asked for"),
        ("both", "topics", {"causal": True}, "model", "cannot be built causal"),
        ("past", "topics", {"causal": False}, "model", "is always causal"),
        ("past", ("words", {"length": 65}), {}, "model", "takes at most 64 tokens, but ids(vocab 9, length 65) gives 65"),
        ("past", ("words", {"length": 3}), {}, "model", "needs at least 4 tokens, but ids(vocab 9, length 3) gives 3"),
        ("flat", "topics", {}, "model", "no installed stem turns ids (ids(vocab 9, length 32)) into the vector"),
        ("conv", "topics", {}, "model", "takes images, but the dataset gives ids"),
        ("conv", "pictures", {"stem": "patches"}, "stem", "takes images itself; remove the stem 'toy/patches'"),
        ("both", "topics", {"stem": "patches"}, "stem", "What works here: 'toy/embedding'."),
        ("both", "pictures", {"stem": ("patches", {"patch": 3})}, "stem", "patch 3 does not divide image(1, 8, 8)"),
        ("both", "pictures", {"head": "linear"}, "head", "What works here: 'toy/pool'."),
        ("both", "pictures", {"task": "write"}, "task", "task 'toy/write' answers 'next_id', but the dataset asks for 'classes' (3 classes). What works here: 'toy/classify'."),
        ("both", "speed", {}, "task", "no installed task answers 'values' (1 value)"),
        ("flat", None, {"inputs": IMAGE, "targets": zp.Values(count=1)}, "model", "no installed head answers values (1 value). It can answer: classes."),
        ("both", None, {}, "dataset", "give either a dataset, or both inputs= and targets="),
        ("both", None, {"inputs": IMAGE}, "dataset", "give either a dataset, or both"),
        ("both", "pictures", {"targets": CLASSES}, "dataset", "give either a dataset, or both"),
        ("both", None, {"inputs": "image", "targets": CLASSES}, "dataset", "inputs must be one of Image, Ids, Series, Events, Episodes, Vector (of zoo.plugin), got 'image'"),
        ("both", None, {"inputs": IMAGE, "targets": IMAGE}, "dataset", "targets must be one of Classes, Values, NextId"),
    ],
)  # fmt: skip
def test_refusals_say_what_and_what_would_work(
    toy: Catalogue, model: str, dataset: Any, given: dict[str, Any], path: str, says: str
) -> None:
    with pytest.raises(zp.ContractError) as caught:
        plan(toy, model, dataset, **given)
    assert says in str(caught.value)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("width", "path", "says"),
    [(0, "width", "at least 1, got 0"), (30, "heads", "4 heads do not divide width 30")],
)
def test_a_width_that_cannot_be(toy: Catalogue, width: int, path: str, says: str) -> None:
    with pytest.raises(zp.ConfigError, match=says) as caught:
        plan(toy, "both", "pictures", width=width)
    assert caught.value.problems[0].path == path


def test_bugs_of_plugins_are_blamed_on_them(
    toy: Catalogue, plugin_module: Callable[..., types.ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [
        _spec(zp.TaskSpec, "write", answers="next_id", monitor="val/{nothing}", cost=1),
        _spec(zp.DatasetSpec, "words", inputs=IDS, targets=NEXT),
    ]
    toy.add(plugin_module("toy", specs=specs), id="odd")
    with pytest.raises(zp.ZooError, match=r"task 'odd/write': its monitor 'val/{nothing}' does not fit"):
        plan(toy, "either", "odd/words")
    monkeypatch.setattr(StemConfig, "tokens", lambda self, inputs: 1 / 0)
    with pytest.raises(
        zp.ZooError, match=r"stem 'toy/patches': tokens\(\) of its config failed: ZeroDivision"
    ):
        plan(toy, "both", "pictures")


def test_matrix_has_one_outcome_for_each_pair(toy: Catalogue) -> None:
    cells = {(model, dataset): outcome for model, dataset, outcome in matrix(toy)}
    assert len(cells) == 5 * 4
    ok = {pair for pair, outcome in cells.items() if isinstance(outcome, Plan)}
    pictures = {(f"toy/{name}", "toy/pictures") for name in ("both", "either", "past", "flat", "conv")}
    texts = {(f"toy/{name}", "toy/topics") for name in ("both", "either", "past")}
    assert ok == pictures | texts | {("toy/either", "toy/words"), ("toy/past", "toy/words")}
    assert all(len(str(cells[pair])) > 20 for pair in cells.keys() - ok)
    assert [model for model, _, _ in matrix(toy, models="fl*", datasets="toy/pictures")] == ["toy/flat"]


@pytest.mark.parametrize(
    ("model", "dataset", "given"),
    [
        ("both", "pictures", {"width": 64, "stem": ("pixels", {"patch": 4})}),
        ("either", ("words", {"length": 7}), {}),
        ("either", "topics", {"causal": True}),
        ("flat", "pictures", {}),
        ("conv", "pictures", {}),
        ("both", None, {"inputs": IDS, "targets": zp.Classes(count=2, names=("no", "yes"))}),
    ],
)
def test_a_plan_survives_json(toy: Catalogue, model: str, dataset: Any, given: dict[str, Any]) -> None:
    made = plan(toy, model, dataset, **given)
    assert Plan.from_dict(toy, json.loads(json.dumps(made.to_dict()))) == made


def test_a_saved_plan_without_its_dataset_or_with_a_lost_part(toy: Catalogue) -> None:
    data = plan(toy, "both", "pictures").to_dict()
    data["dataset"]["id"] = "elsewhere/pictures"
    found = Plan.from_dict(toy, data)
    assert found.dataset is None and found.inputs == IMAGE and found.task is not None
    data["head"]["id"] = "elsewhere/head"
    with pytest.raises(zp.ZooError, match="unknown head 'elsewhere/head'"):
        Plan.from_dict(toy, data)
    data = plan(toy, "both", "pictures").to_dict()
    data["inputs"] = {"kind": "image", "channels": 0, "height": "8"}
    with pytest.raises(zp.ConfigError, match="channels: must be at least 1") as caught:
        Plan.from_dict(toy, data)
    assert {problem.path for problem in caught.value.problems} == {"channels", "height", "width"}
    data["inputs"] = {"kind": "hologram"}
    with pytest.raises(zp.ConfigError, match="must be one of image, ids"):
        Plan.from_dict(toy, data)


# -- what is installed -----------------------------------------------------------------------


def test_every_real_pair_has_a_plan_that_survives_json_or_a_reason() -> None:
    found = catalogue()
    cells = list(matrix(found))
    assert len(cells) == len(found.specs("model")) * len(found.specs("dataset")) > 0
    for model, dataset, outcome in cells:
        if isinstance(outcome, str):
            assert model in outcome, outcome
            continue
        assert outcome.model.id == model
        if found.get("dataset", dataset).own:  # the plan is for data like its sample: there is none yet
            assert outcome.dataset is None
        else:
            assert outcome.dataset and outcome.dataset.id == dataset
        assert Plan.from_dict(found, json.loads(json.dumps(outcome.to_dict()))) == outcome


def test_every_real_dataset_and_model_has_a_partner() -> None:
    cells = [(model, dataset) for model, dataset, outcome in matrix(catalogue()) if isinstance(outcome, Plan)]
    assert {spec.id for spec in catalogue().specs("model")} == {model for model, _ in cells}
    assert {spec.id for spec in catalogue().specs("dataset")} == {dataset for _, dataset in cells}


def test_the_real_language_model_must_be_causal() -> None:
    assert plan(catalogue(), "core/transformer", "core/sotu_small").causal
    with pytest.raises(
        zp.ContractError, match=r"sees both directions .* Models that can be causal: .*core/transformer"
    ):
        plan(catalogue(), "core/mlp_net", "core/sotu_small")
