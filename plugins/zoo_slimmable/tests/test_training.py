"""The encoder with its decoders, the sandwich, and the commands on a run of a few steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo_slimmable.config import ExportConfig, SandwichConfig, SearchConfig
from zoo_slimmable.configuration import groups_of
from zoo_slimmable.cost import Cost
from zoo_slimmable.distillation import feature_distance
from zoo_slimmable.export import export_slim
from zoo_slimmable.norms import calibrate
from zoo_slimmable.sandwich import Sandwich
from zoo_slimmable.widths import channels_of, current_width, set_width, width_scope

import zoo
from zoo.plugin import Classes, ConfigError, Image, Multi, Values, ZooError

TARGETS = Multi(parts={"digit": Classes(count=4), "slant": Values(count=1)})
DIGIT, SLANT = "head.decoders.digit", "head.decoders.slant"


def model(norm: str = "group", **others: Any) -> Any:
    torch.manual_seed(0)
    return zoo.create_model(
        "slim/conv",
        inputs=Image(channels=1, height=8, width=8),
        targets=TARGETS,
        width=32,
        stages=2,
        norm=norm,
        head={"name": "slim/decoders", "params": {"hidden": 16, "norm": norm}},
        **others,
    )


def batch(n: int = 6) -> dict[str, Any]:
    g = torch.Generator().manual_seed(1)
    target = {"digit": torch.randint(4, (n,), generator=g), "slant": torch.randn(n, 1, generator=g)}
    return {"input": torch.randn(n, 1, 8, 8, generator=g), "target": target}


def loss_of(outputs: Tensor) -> Tensor:
    target = batch()["target"]
    return (
        nn.functional.cross_entropy(outputs[:, :4], target["digit"])
        + (outputs[:, 4:] - target["slant"]).square().mean()
    )


@pytest.mark.parametrize("norm", ["group", "batch", "switchable"])
def test_every_pair_of_widths_can_be_cut_out(norm: str) -> None:
    whole, x = model(norm), batch()["input"]
    whole(x)
    cost = Cost(whole, x)
    for encoder, digit in ((0.25, 1.0), (0.75, 0.5), (1.0, 0.25)):
        set_width(whole, {"backbone": encoder, DIGIT: digit, SLANT: 0.75})
        calibrate(whole, [x])
        whole.eval()
        small = export_slim(whole)
        assert torch.equal(small(x), whole(x))
        assert cost.parameters() == sum(p.numel() for p in small.parameters())
        assert cost.macs() == Cost(small, x).macs()
    parts = [cost.macs(below=name) for name in ("backbone", DIGIT, SLANT)]
    assert sum(parts) == cost.macs()


def test_a_first_stage_with_steps_works_at_fewer_places() -> None:
    x = batch()["input"]
    shapes = [[f.shape[1:] for f in model(stride=n).forward_intermediates(x)] for n in (1, 2)]
    assert shapes == [[(16, 8, 8), (32, 4, 4)], [(16, 4, 4), (32, 2, 2)]]
    costs = [Cost(model(stride=n), x).macs(below="backbone") for n in (1, 2)]
    assert costs[0] == 4 * costs[1]


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_an_answer_does_not_depend_on_the_width_of_other_decoders(norm: str) -> None:
    whole, x = model(norm).eval(), batch()["input"]
    answers = []
    for slant in (0.25, 0.75):
        set_width(whole, {"backbone": 0.5, DIGIT: 0.5, SLANT: slant})
        calibrate(whole, [x])
        answers.append(whole(x)[:, :4])
    assert torch.equal(*answers)


def test_the_objective_is_the_mean_of_its_passes() -> None:
    whole, data = model().double(), batch()
    data["input"], data["target"]["slant"] = data["input"].double(), data["target"]["slant"].double()
    sandwich = Sandwich(SandwichConfig(passes=3, distill=1.0))
    torch.manual_seed(5)
    total = sandwich.objective(whole, data, loss_of)
    total.backward()
    torch.manual_seed(5)
    passes = sandwich.configurations(groups_of(whole))
    assert groups_of(whole) == ("backbone", DIGIT, SLANT)
    assert [set(each.values()) for each in passes[:2]] == [{1.0}, {0.25}] and len(passes) == 3
    twin, expected, teachers = model().double(), torch.zeros((), dtype=torch.float64), []
    x = data["input"]
    for widths in passes:
        with width_scope(twin, widths):
            features = twin.forward_intermediates(x)
            outputs = twin.forward_head(features[-1])
        loss = nn.functional.cross_entropy(outputs[:, :4], data["target"]["digit"])
        loss = loss + (outputs[:, 4:] - data["target"]["slant"]).square().mean()
        teachers = teachers or [each.detach() for each in features]
        distance = 0.0
        for narrow, wide in zip(features, teachers, strict=True):
            kept = wide[:, : narrow.shape[1]]
            for a, b in zip(narrow, kept, strict=True):
                distance = distance + (a / a.norm() - b / b.norm()).square().sum() / (len(x) * len(teachers))
        expected = expected + (loss + distance) / len(passes)
    expected.backward()
    torch.testing.assert_close(total, expected, atol=1e-10, rtol=1e-10)
    for (name, p), q in zip(whole.named_parameters(), twin.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        torch.testing.assert_close(p.grad, q.grad, atol=1e-10, rtol=1e-10, msg=name)
    assert current_width(whole) == 1.0


def test_the_distance_is_zero_to_itself_and_teaches_one_way() -> None:
    wide, narrow = torch.randn(3, 8, 4, 4, requires_grad=True), torch.randn(3, 4, 4, 4, requires_grad=True)
    assert feature_distance([wide], [wide]).item() == pytest.approx(0, abs=1e-6)
    distance = feature_distance([narrow], [wide.detach()])
    distance.backward()
    assert 0 < distance.item() <= 4 and wide.grad is None and narrow.grad is not None
    tokens = torch.randn(2, 5, 8)
    assert feature_distance([tokens[..., :4]], [tokens]).item() == pytest.approx(0, abs=1e-6)


def test_a_compiled_model_is_refused() -> None:
    whole = model()
    whole.compile()
    with pytest.raises(ValueError, match=r"compiled model cannot follow widths .* trainer\.compile"):
        Sandwich().objective(whole, batch(), loss_of)


def test_uniform_passes_and_single_ones() -> None:
    groups = ("backbone", DIGIT, SLANT)
    passes = Sandwich(SandwichConfig(passes=12, uniform=True)).configurations(groups)
    assert len(passes) == 12 and all(len(set(each.values())) == 1 for each in passes)
    assert Sandwich(SandwichConfig(passes=1)).configurations(groups) == [dict.fromkeys(groups, 1.0)]
    assert len(Sandwich(SandwichConfig(widths=(1.0,))).configurations(groups)) == 1


def test_each_width_of_the_encoder_is_passed_once_with_decoders_about_it() -> None:
    groups = ("backbone", DIGIT, SLANT)
    each = Sandwich(SandwichConfig(rule="each", widths=(0.5, 1.0, 0.25)))
    drawn = [each.configurations(groups) for _ in range(400)]
    assert all([c["backbone"] for c in passes] == [1.0, 0.5, 0.25] for passes in drawn)
    assert all(set(passes[0].values()) == {1.0} for passes in drawn)
    for group in groups[1:]:  # one in two as the encoder, the others at any of three: 2/3, 1/6 and 1/6
        widths = [passes[1][group] for passes in drawn]
        assert 0.58 < widths.count(0.5) / 400 < 0.76 and min(map(widths.count, (0.25, 1.0))) > 30
    assert any(passes[2][DIGIT] != passes[2][SLANT] for passes in drawn)
    even = Sandwich(SandwichConfig(rule="each", uniform=True)).configurations(groups)
    assert even == [dict.fromkeys(groups, width) for width in (1.0, 0.75, 0.5, 0.25)]


def test_widths_in_turn_are_one_pass_each() -> None:
    whole, data, taken = model(), batch(), Sandwich(SandwichConfig(rule="turns", distill=0.0, uniform=True))
    for step, width in ((0, 1.0), (2, 0.5), (7, 0.25)):
        taken.on_start(SimpleNamespace(step=step, steps=8))  # type: ignore[arg-type]
        whole.zero_grad()
        loss = taken.objective(whole, data, loss_of)
        loss.backward()
        with width_scope(whole, width):
            torch.testing.assert_close(loss, loss_of(whole(data["input"])))
            used = whole.backbone.stages[0].enter.outputs[0].active
        moved = whole.backbone.stages[0].enter.weight.grad
        assert moved[:used].any() and not moved[used:].any()


@pytest.mark.parametrize("name", ["distill", "answers"])
def test_a_width_alone_in_its_step_has_no_teacher(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: must be 0 with rule: turns, whose steps have no pass at"):
        SandwichConfig(**{"rule": "turns", "distill": 0.0, name: 0.5})  # type: ignore[arg-type]


def test_decoders_on_a_converted_backbone_of_timm() -> None:
    torch.manual_seed(0)
    whole: Any = zoo.create_model(
        "timm/test_resnet",
        inputs=Image(channels=1, height=16, width=16),
        targets=TARGETS,
        head={"name": "slim/decoders", "params": {"hidden": 16, "kernel": 1, "norm": "batch"}},
        transforms={"slimmable": {}},
    )
    assert groups_of(whole) == ("backbone", DIGIT, SLANT)
    x = torch.randn(4, 1, 16, 16)
    cost = Cost(whole, x)
    assert cost.macs({"backbone": 0.25}) < 0.5 * cost.macs(1.0)
    set_width(whole, {"backbone": 0.5, DIGIT: 0.25})
    calibrate(whole, [x])
    assert torch.equal(export_slim(whole.eval())(x), whole(x))
    decoder = whole.head.decoders["digit"].norm
    assert len(decoder.configuration) == 1 + len(channels_of(whole.backbone)) and decoder.statistics


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "model": {
            "name": "slim/conv",
            "width": 32,
            "params": {"stages": 2, "blocks": 0},
            "head": {"name": "slim/decoders", "params": {"hidden": 16}},
        },
        "data": {"name": "core/digits_mtl", "batch_size": 128, "eval_batch_size": 256},
        "schedule": {"name": "constant"},
        "optim": {"lr": 1e-2},
        "trainer": {"max_steps": 8, "eval_every_steps": 4, "log_every_steps": 1, "accelerator": "cpu"},
        # What is distilled late depends on how many steps there will be.
        "callbacks": {"slim/sandwich": {"passes": 3, "distill_from": 0.0}},
        "output": {"dir": str(folder)},
        **changes,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    result = zoo.train(recipe(tmp_path_factory.mktemp("runs")), quiet=True)
    from zoo.training.saved import Saved

    assert result.run is not None
    return Saved(result.run)


def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path: Path, run: Any) -> None:
    from zoo.training import resume

    short = recipe(tmp_path)
    short["trainer"] = {**short["trainer"], "max_steps": 4}
    part = zoo.train(short, quiet=True)
    assert part.run is not None
    ended = resume(part.run, ["trainer.max_steps=8"], quiet=True)
    assert ended.run is not None
    weights = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (run.folder, ended.run.path)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_widths_go_on_taking_turns_after_a_resume(tmp_path: Path) -> None:
    from zoo.training import resume

    given = recipe(tmp_path, callbacks={"slim/sandwich": {"rule": "turns", "distill": 0.0}})
    given["trainer"] = {**given["trainer"], "max_steps": 3, "eval_every_steps": 3}
    part = zoo.train(given, quiet=True)
    given["trainer"]["max_steps"] = 6
    whole = zoo.train(given, quiet=True)
    assert part.run is not None and whole.run is not None
    ended = resume(part.run, ["trainer.max_steps=6"], quiet=True)
    assert ended.run is not None
    a, b = (
        torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (whole.run, ended.run)
    )
    assert a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def test_search_and_export_of_a_run(run: Any) -> None:
    from zoo_slimmable.commands import TABLE, export, find

    answer = find(run, SearchConfig(budget="0.4x", prefer="digit=2,slant=1"))
    assert answer.data["share"] <= 0.4 and set(answer.data["decoders"]) == {"digit", "loops", "slant"}
    written = (run.folder / TABLE).stat().st_mtime_ns
    assert find(run, SearchConfig(budget="0.4x", prefer="digit=2,slant=1")).data == answer.data
    assert (run.folder / TABLE).stat().st_mtime_ns == written
    further = (
        "import sys; from zoo.cli.main import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    asked = ["slim", "search", str(run.folder), "--budget", "0.3x", "--json"]
    subprocess.run([sys.executable, "-c", further, *asked], check=True, timeout=300)
    with pytest.raises(ZooError, match=r"no task 'depth' to prefer\. There is: digit, loops, slant"):
        find(run, SearchConfig(prefer="depth=2"))
    with pytest.raises(ZooError, match="below the smallest configuration, which costs"):
        find(run, SearchConfig(budget="0.001x"))

    cut = export(run, ExportConfig(widths=answer.data["widths"], name="small"))
    assert cut.data["same"] and cut.data["flops"] == answer.data["flops"]
    assert cut.data["parameters"] < cut.data["full_parameters"]
    code = (
        "import sys, torch; x = torch.randn(5, 1, 8, 8); "
        "y = torch.export.load(sys.argv[1]).module()(x); assert y.shape == (5, 14), y.shape; "
        "assert not any(name.startswith('zoo') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, cut.data["path"]], check=True, timeout=300)
    one = export(run, ExportConfig(widths=0.5, tasks="loops"))
    assert one.data["same"] and one.data["outputs"] == [3]
    layers = export(run, ExportConfig(widths="*=0.5, backbone.stages.1*=0.25,digit=1,loops=1"))
    names = [Path(done.data["path"]).name for done in (cut, one, layers)]
    assert names == [
        "slim_small.pt2",
        "slim_0.5_loops.pt2",
        "slim_0.5_backbone.stages.1_0.25_digit1_loops1.pt2",
    ]
    for config, message in (
        (ExportConfig(widths="encoder=2"), "--widths: a width must be above 0 and at most 1, got 2"),
        (
            ExportConfig(widths="depth=0.5"),
            "no part 'depth'. There is: encoder, digit, loops, slant; layers go",
        ),
        (ExportConfig(widths="head.x=0.5"), "--widths: no layer with a width is called 'head.x'"),
        (ExportConfig(widths="digit=1,digit=0.5"), "widths name digit twice"),
        (ExportConfig(widths="half"), "widths read 'name=number"),
        (ExportConfig(tasks="depth"), "no decoder for 'depth'. There is: digit, loops, slant"),
    ):
        with pytest.raises(ZooError, match=message):
            export(run, config)


def test_a_program_that_cannot_be_written_is_said(run: Any) -> None:
    with pytest.raises(ConfigError, match=r"name: must be part of a file's name, got '\.\./small'"):
        ExportConfig(name="../small")
    (run.folder / "slim_folder.pt2").mkdir()
    from zoo_slimmable.commands import export

    with pytest.raises(ZooError, match=r"slim_folder\.pt2: cannot be written"):
        export(run, ExportConfig(name="folder"))


def test_a_model_without_widths_is_refused_before_it_trains_long(tmp_path: Path) -> None:
    plain = recipe(
        tmp_path, model={"name": "core/transformer", "width": 16, "params": {"depth": 1, "heads": 2}}
    )
    with pytest.raises(
        ZooError, match=r"slim/sandwich.* no slimmable layers: build slim/conv, or add transforms"
    ):
        zoo.train(plain, quiet=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 30}, r"model\.width: must be a multiple of .* here 8; got 30"),
        ({"params": {"norm": "layer"}}, r"norm"),
        ({"head": {"name": "slim/decoders", "params": {"hidden": 18}}}, r"multiple of divisor \(4\), got 18"),
        ({"params": {"widths": [0.5]}}, r"different numbers, 1\.0 among them"),
    ],
)
def test_parameters_that_cannot_be(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given = recipe(tmp_path)
    given["model"] = {**given["model"], **change}
    with pytest.raises(ZooError, match=message):
        zoo.load_recipe(given)
