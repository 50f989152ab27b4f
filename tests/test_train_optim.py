"""Optimisers and schedules by name: decay, warm-up, the end of the schedule, wrong names."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.training.optim import build_optimizer, build_schedule

SCHEDULES = ["cosine", "tanh", "step", "multistep", "plateau", "poly", "wsd", "rsqrt", "constant"]


def optimizer(lr: float = 0.1, **kwargs):
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    settings = {"name": "adamw", "lr": lr, "weight_decay": 0.1, "params": {}} | kwargs
    return build_optimizer(model, **settings)


def schedule(optim, name="cosine", *, updates=100, warmup_steps=0, final_lr_ratio=0.0, mode="min", **params):
    return build_schedule(
        optim,
        name=name,
        updates=updates,
        warmup_steps=warmup_steps,
        final_lr_ratio=final_lr_ratio,
        params=params,
        mode=mode,
    )


def rates(name: str, updates: int = 100, **kwargs) -> list[float]:
    optim = optimizer()
    made = schedule(optim, name, updates=updates, **kwargs)
    found = []
    for update in range(updates):
        made.before_update(update)
        found.append(optim.param_groups[0]["lr"])
    return found


def test_norms_and_biases_do_not_decay():
    groups = optimizer().param_groups
    decay = {group["weight_decay"]: sum(p.numel() for p in group["params"]) for group in groups}
    assert decay == {0.0: 4 + 4 + 4, 0.1: 12}


@pytest.mark.parametrize(
    "name", ["sgd", "adam", "adamw", "lion", "lamb", "rmsprop", "adafactor", "nadamw", "muon"]
)
def test_timm_optimisers_take_a_step(name):
    model = nn.Linear(4, 4)
    before = model.weight.detach().clone()
    made = build_optimizer(model, name=name, lr=0.1, weight_decay=0.0, params={})
    model(torch.randn(2, 4)).square().sum().backward()
    made.step()
    assert not torch.equal(model.weight, before)


def test_parameters_reach_the_optimiser():
    assert optimizer(params={"betas": (0.5, 0.6)}).param_groups[0]["betas"] == (0.5, 0.6)


def test_a_wrong_optimiser_is_named_with_suggestions():
    with pytest.raises(ZooError, match=r"no optimiser 'adamwx'. Did you mean 'adamw"):
        optimizer(name="adamwx")
    with pytest.raises(ZooError, match=r"optimiser 'adamw' takes no 'momentun'"):
        optimizer(params={"momentun": 0.9})


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_from_above_zero_to_the_peak(name):
    found = rates(name, warmup_steps=10, decay_steps=50) if name == "step" else rates(name, warmup_steps=10)
    assert 0 < found[0] < 0.02
    assert all(a < b for a, b in itertools.pairwise(found[:10]))
    assert max(found) == pytest.approx(0.1, rel=0.05)
    assert found[10] == pytest.approx(0.1, rel=0.05)


def test_cosine_ends_at_the_final_ratio():
    found = rates("cosine", final_lr_ratio=0.1, warmup_steps=5)
    assert found[-1] == pytest.approx(0.01, rel=0.05)
    assert rates("cosine")[50] == pytest.approx(0.05, rel=0.01)


def test_timm_parameters_are_counted_in_updates():
    found = rates("step", decay_steps=20, decay_rate=0.5)
    assert [found[19], found[20], found[99]] == pytest.approx([0.1, 0.05, 0.1 / 16])
    found = rates("multistep", decay_milestones=[30, 60], decay_rate=0.1)
    # timm counts milestones from 1: the 30th update is number 29
    assert [found[28], found[29], found[59]] == pytest.approx([0.1, 0.01, 1e-3])


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "plateau"])
def test_schedules_of_updates_have_no_memory(name):
    """The rate of update 70 is the same whether or not the first 69 ran in this process."""
    whole = rates(name, warmup_steps=10)
    optim = optimizer()
    made = schedule(optim, name, warmup_steps=10)
    made.before_update(70)
    assert optim.param_groups[0]["lr"] == whole[70]


def test_plateau_waits_then_falls_to_its_floor():
    optim = optimizer()
    made = schedule(optim, "plateau", final_lr_ratio=0.2, patience=1, decay_rate=0.5)
    seen = []
    for value in (3.0, 2.0, 2.0, 2.5, 1.9, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        made.after_evaluation(value)
        made.before_update(0)
        seen.append(optim.param_groups[0]["lr"])
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.02, 0.02, 0.02])


def test_wrong_schedule_parameters_are_named():
    with pytest.raises(ZooError, match=r"no key 'decay_rte' here. Did you mean 'decay_rate'"):
        schedule(optimizer(), decay_rte=0.1)
    with pytest.raises(ZooError, match="no key 'warmup_epochs'"):
        schedule(optimizer(), warmup_epochs=3)
    with pytest.raises(ZooError, match=r"no key 'patienc'.*'patience'"):
        schedule(optimizer(), "plateau", patienc=3)


def test_warm_up_longer_than_the_run_ends_half_way():
    for updates in (1, 2, 7, 100):
        assert rates("cosine", updates=updates, warmup_steps=100) == rates(
            "cosine", updates=updates, warmup_steps=updates // 2
        )


def test_what_is_passed_on_is_listed_as_the_libraries_have_it():
    import inspect

    from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
    from timm.scheduler import create_scheduler_v2

    from zoo.recipe.passed_on import OPTIMISER, PLATEAU, SCHEDULE, TRAINER
    from zoo.training.lightning import pl

    for key in SCHEDULE:
        timms = key.replace("_steps", "_epochs")
        assert timms in inspect.signature(create_scheduler_v2).parameters
    with pytest.raises(ZooError) as error:
        schedule(optimizer(), foo=1)
    assert "foo" in str(error.value)
    for key in PLATEAU:
        schedule(optimizer(), "plateau", **{key: 1})
    assert set(TRAINER) <= set(inspect.signature(pl.Trainer).parameters)
    needs_a_gpu = ("bnb", "fused")
    made = [
        get_optimizer_class(n, bind_defaults=False)
        for n in list_optimizers(exclude_filters=[f"{p}*" for p in needs_a_gpu])
    ]
    taken = {key for each in (create_optimizer_v2, *made) for key in inspect.signature(each).parameters}
    assert set(OPTIMISER) <= taken


def test_a_wrong_parameter_of_an_optimiser_is_named_with_what_was_meant():
    with pytest.raises(ZooError, match=r"'sgd' takes no 'momentun'. Did you mean 'momentum'"):
        build_optimizer(nn.Linear(2, 2), name="sgd", lr=0.1, weight_decay=0.0, params={"momentun": 0.9})
