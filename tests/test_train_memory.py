"""Compiled, and with layers computed again going backwards, a run is the same run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.test_train_resume import Press, recipe, traces, with_callback
from zoo.catalogue import catalogue
from zoo.data.batch import collate, mask_of
from zoo.data.split import TensorSplit
from zoo.errors import ZooError
from zoo.recipe import load_recipe
from zoo.specs import ModelSpec
from zoo.training import resume, train
from zoo.training.batch_size import kept_bytes, largest_batch
from zoo.training.blocks import recompute_blocks, repeated_blocks
from zoo.training.setup import prepare


def made(folder: Path, model: str = "core/transformer", **trainer: Any) -> dict[str, Any]:
    return recipe(folder, **trainer) | {
        "model": {"name": model, "width": 8, "params": {"depth": 2, "heads": 2, "dropout_prob": 0.3}}
    }


def token_models() -> list[str]:
    """Every token backbone that is installed."""
    found = catalogue()
    specs = [spec for spec in found.specs("model") if isinstance(spec, ModelSpec)]
    return [spec.id for spec in specs if found.default_claims(spec).accepts == "tokens"]


@pytest.mark.parametrize("name", token_models())
def test_gradients_of_recomputed_layers_are_the_same(name, tmp_path):
    """In every token backbone that is installed, dropout included."""
    plain = {"schema": 1, "model": {"name": name, "width": 16}, "data": {"name": "core/japanese_vowels"}}
    try:
        setup = prepare(load_recipe(plain))
    except ZooError as refusal:
        pytest.skip(str(refusal))
    batch = collate([setup.splits.train[index] for index in range(3)])

    def gradients() -> list[torch.Tensor | None]:
        torch.manual_seed(0)
        loss = setup.task.loss(setup.model(batch["input"], mask=mask_of(batch)), batch)
        return list(torch.autograd.grad(loss, list(setup.model.parameters()), allow_unused=True))

    before, names = gradients(), list(setup.model.state_dict())
    assert repeated_blocks(setup.model.backbone)
    recompute_blocks(setup.model.backbone)
    for ours, theirs in zip(gradients(), before, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs)
    assert list(setup.model.state_dict()) == names


def test_recomputing_keeps_less(tmp_path):
    def kept(**trainer: Any) -> int:
        setup = prepare(load_recipe(made(tmp_path, **trainer)))
        batch, total = collate([setup.splits.train[0]] * 8), 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            setup.task.loss(setup.model(batch["input"], mask=mask_of(batch)), batch)
        return total

    assert kept(gradient_checkpointing=True) < 0.5 * kept()


def test_a_run_with_recomputed_layers_is_the_same_run(tmp_path):
    """Averaged, clipped, accumulated, interrupted and resumed."""
    plain = train(load_recipe(made(tmp_path / "plain")), quiet=True).run
    press = with_callback(Press(11))
    part = train(
        load_recipe(made(tmp_path / "part", gradient_checkpointing=True), catalogue=press), quiet=True
    )
    assert traces(resume(part.run, quiet=True).run) == traces(plain)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("timm/resnet18", "core/digits", "timm/resnet18' cannot do this: its layers hold batch norms"),
        ("core/mlp_net", "core/wine", None),
    ],
)
def test_models_that_cannot_recompute_say_so(tmp_path, model, data, message):
    wanted = made(tmp_path, gradient_checkpointing=True) | {"model": {"name": model}, "data": {"name": data}}
    if message is None:
        prepare(load_recipe(wanted))
        return
    with pytest.raises(ZooError, match=message):
        prepare(load_recipe(wanted))


def test_layers_without_a_stack_cannot_be_recomputed():
    with pytest.raises(ValueError, match="no stack of layers"):
        recompute_blocks(nn.Linear(2, 2))


def test_the_largest_batch_follows_from_memory(tmp_path):
    setup = prepare(load_recipe(made(tmp_path)))
    model, task, device = setup.model, setup.task, torch.device("cpu")
    split = TensorSplit(torch.randn(4096, 29, 12), torch.zeros(4096, dtype=torch.long))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sizes = [kept_bytes(model, task, split, size=size, device=device) for size in (4, 8, 16)]
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.05)
    for size in (1, 16, 64):
        room = 4 * sum(4 * p.numel() for p in model.parameters()) + kept_bytes(
            model, task, split, size=size + size // 2, device=device
        )
        assert largest_batch(model, task, split, device=device, memory=int(1.05 * room)) == size
    assert largest_batch(model, task, split, device=device) == 4096 // 16
    with pytest.raises(ZooError, match="finds no room for one example"):
        largest_batch(model, task, split, device=device, memory=1000)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_automatic_batch_size_is_recorded_as_a_number(tmp_path, capsys):
    open_ = made(tmp_path, max_steps=2)
    open_["data"] = {"name": "core/japanese_vowels", "batch_size": "auto"}
    run = train(load_recipe(open_)).run  # 216 examples: at most a sixteenth, hence 8
    assert "batch_size: auto is 8 here" in capsys.readouterr().err
    assert "batch_size: auto" in run.recipe.read_text() and "batch_size: 8 " in run.resolved.read_text()
    again = train(load_recipe(run.resolved, [f"output.dir={tmp_path / 'again'}"]), quiet=True).run
    assert traces(again) == traces(run)


@pytest.mark.slow
def test_a_compiled_run_is_the_same_run(tmp_path, monkeypatch):
    """With torch's tracing and differentiation; what inductor makes of it differs by rounding."""
    calls = []

    def compile(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, **options, backend="aot_eager")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", functools.wraps(original)(compile))
    plain = train(load_recipe(made(tmp_path / "plain", max_steps=3)), quiet=True).run
    assert not calls
    compiled = train(load_recipe(made(tmp_path / "compiled", max_steps=3, compile=True)), quiet=True).run
    assert len(calls) == 1
    ours, theirs = (torch.load(run.best, weights_only=True)["state_dict"] for run in (compiled, plain))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4)


def test_what_cannot_be_compiled_is_told(tmp_path, monkeypatch):
    def broken(graph: Any, inputs: Any) -> Any:
        raise OSError("there is no compiler")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: original(*args, **options, backend=broken))
    with pytest.raises(ZooError, match=r"trainer.compile: torch cannot compile .*no compiler.*Without"):
        train(load_recipe(made(tmp_path, compile=True)), quiet=True)
