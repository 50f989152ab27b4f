"""The next event: densities against torch's, the task, what a model does with events, the command."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, LogNormal, MixtureSameFamily

import zoo
from zoo.api import plan_model
from zoo.baselines.events import poisson
from zoo.baselines.features import whole
from zoo.catalogue import catalogue
from zoo.cli import main
from zoo.data import EncodeEvents, EventWindows, mask_of
from zoo.errors import ContractError
from zoo.kinds import Classes, Events, NextEvent
from zoo.layers.heads import NextEventHead
from zoo.layers.heads_config import NextEventHeadConfig
from zoo.layers.stems import EventSteps
from zoo.layers.stems_config import EventsConfig
from zoo.tasks import EventForecasting
from zoo.tasks.event_mixture import EventMixture
from zoo.tasks.metrics import values_of

KIND = Events(marks=3, length=6, ragged=True, scale=2.0)
TARGETS = NextEvent(marks=3, scale=2.0)


def task(scale: float = 2.0, names: tuple[str, ...] = ()) -> EventForecasting:
    return EventForecasting(None, targets=NextEvent(marks=3, scale=scale, names=names))


def some_outputs(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 6, generator=generator, dtype=torch.float64)


def some_split(scale: float = 1.0) -> EventWindows:
    rng = np.random.default_rng(0)
    sequences = [(scale * rng.exponential(2.0, n).cumsum(), rng.integers(0, 3, n)) for n in (3, 9, 7, 30)]
    return EventWindows(sequences, Events(marks=3, length=6, ragged=True, scale=2.0 * scale))


def batch_of(split: EventWindows) -> dict[str, Tensor]:
    return split.__getitems__(range(len(split)))


# -- densities -------------------------------------------------------------------------------


def torchs(outputs: Tensor) -> MixtureSameFamily:
    mixture = EventMixture.of(outputs)
    return MixtureSameFamily(Categorical(logits=outputs[..., 0]), LogNormal(mixture.mean, mixture.deviation))


def test_the_density_of_the_gap_is_torchs() -> None:
    outputs, gap = some_outputs(5, 4), torch.rand(5, dtype=torch.float64) * 3 + 0.01
    mixture = EventMixture.of(outputs)
    log_gap, _ = mixture.log_gap_and_mark(gap, torch.zeros(5, dtype=torch.int64))
    assert torch.allclose(log_gap, torchs(outputs).log_prob(gap))
    assert torch.allclose(mixture.log_expected_gap().exp(), torchs(outputs).mean)


def test_densities_sum_to_one_and_marks_to_the_gap() -> None:
    mixture = EventMixture.of(some_outputs(4))
    gap = torch.linspace(-12, 12, 20001, dtype=torch.float64).exp()
    every = [mixture.log_gap_and_mark(gap, torch.full_like(gap, m).long()) for m in range(3)]
    log_gap = every[0][0]
    assert torch.trapezoid(log_gap.exp(), gap).item() == pytest.approx(1, abs=1e-4)
    assert torch.allclose(
        torch.stack([mark for _, mark in every]).logsumexp(0), torch.zeros_like(gap), atol=1e-9
    )
    # Integrated over the gap, what is left of the mark is what one says before the time is known.
    for m, (_, log_mark) in enumerate(every):
        chance = torch.trapezoid((log_gap + log_mark).exp(), gap)
        assert chance.item() == pytest.approx(mixture.log_mark()[m].exp().item(), abs=1e-4)


def test_outputs_are_read_as_they_were_written() -> None:
    mixture = EventMixture.of(some_outputs(7, 4))
    again = EventMixture.of(mixture.outputs())
    for one, other in zip(mixture, again, strict=True):
        assert torch.allclose(one, other)


@pytest.mark.parametrize("joint", [True, False])
def test_shared_marks_do_not_depend_on_the_gap(joint: bool) -> None:
    torch.manual_seed(0)
    head = NextEventHead(NextEventHeadConfig(components=3, joint=joint), targets=TARGETS, width=8)
    torch.nn.init.normal_(head.linear.weight)
    mixture = EventMixture.of(head(torch.randn(2, 5, 8)))
    mark = torch.ones(2, 5, dtype=torch.int64)
    (_, early), (_, late) = (mixture.log_gap_and_mark(torch.full((2, 5), gap), mark) for gap in (0.1, 10.0))
    assert torch.allclose(early, late, atol=1e-5) != joint


# -- the task --------------------------------------------------------------------------------


def test_metrics_are_what_they_say() -> None:
    batch = batch_of(some_split())
    size, n = batch["target"].shape[:2]
    outputs = some_outputs(size, n, 4)
    measure, metrics = task(names=("a", "b", "c")), task().metrics()
    measure.update(metrics, outputs, batch, measure.loss(outputs, batch))
    found = values_of(metrics)
    times, marks, errors, right = [], [], [], []
    for row in range(size):
        for step in range(int(batch["length"][row])):
            gap, mark = batch["target"][row, step].double().tolist()
            one = EventMixture.of(outputs[row, step])
            times.append(-torchs(outputs[row, step]).log_prob(torch.tensor(gap).double()).item())
            joint = (one.log_joint(torch.tensor(gap).double()) + one.marks[:, int(mark)]).logsumexp(0)
            marks.append(-joint.item() - times[-1])
            errors.append((torchs(outputs[row, step]).mean.item() - gap) ** 2)
            right.append(int(one.log_mark().argmax()) == mark)
    assert found["nll_time"] == pytest.approx(np.mean(times), rel=1e-4)
    assert found["nll_mark"] == pytest.approx(np.mean(marks), rel=1e-4)
    assert found["loss"] == found["nll"] == pytest.approx(np.mean(times) + np.mean(marks), rel=1e-4)
    assert found["rmse_time"] == pytest.approx(math.sqrt(np.mean(errors)), rel=1e-3)
    assert found["accuracy"] == pytest.approx(np.mean(right))
    answer = measure.predict(outputs, mask_of(batch))[1]
    last = int(batch["length"][1]) - 1
    assert answer["after"] == pytest.approx(torchs(outputs[1, last]).mean.item(), rel=1e-3)
    assert answer["mark"] == "abc"[int(EventMixture.of(outputs[1, last]).log_mark().argmax())]


def test_padding_is_not_scored() -> None:
    batch = batch_of(some_split())
    outputs = some_outputs(*batch["target"].shape[:2], 4).requires_grad_()
    padded = batch["target"][..., 0].isnan()
    assert padded.any()
    loss = task().loss(outputs, batch)
    loss.backward()
    assert outputs.grad is not None and not outputs.grad[padded].any() and outputs.grad[~padded].all()
    changed = outputs.detach().masked_fill(padded[..., None, None], 1e30)
    assert torch.equal(task().loss(changed, batch), loss)


@pytest.mark.parametrize("gap", [0.0, 1e-38, 1e-9, 1.0, 1e12, 3e38])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_gaps_of_any_size_give_finite_losses_and_gradients(gap: float, size: float) -> None:
    target = torch.tensor([gap, 1.0]).expand(2, 3, 2)
    outputs = (size * some_outputs(2, 3, 4).float()).requires_grad_()
    measure, metrics = task(), task().metrics()
    loss = measure.loss(outputs, {"target": target})
    loss.backward()
    assert loss.isfinite() and outputs.grad is not None and outputs.grad.isfinite().all()
    measure.update(metrics, outputs, {"target": target}, loss)
    assert all(
        math.isfinite(v) for name, v in values_of(metrics).items() if name != "rmse_time" or gap < 1e15
    )


def test_another_unit_of_time_shifts_the_likelihood_by_its_logarithm() -> None:
    """Minutes instead of hours: the same events, stem, head and naive answer; each nat differs by log 60."""
    hours, minutes = some_split(), some_split(scale=60.0)
    in_hours, in_minutes = task(2.0).baseline(hours, hours), task(120.0).baseline(minutes, minutes)
    assert in_minutes["nll_time"] - in_hours["nll_time"] == pytest.approx(math.log(60), abs=1e-4)
    assert in_minutes["nll_mark"] == pytest.approx(in_hours["nll_mark"])
    assert in_minutes["rmse_time"] == pytest.approx(60 * in_hours["rmse_time"], rel=1e-4)
    losses = []
    for split, scale in ((hours, 2.0), (minutes, 120.0)):
        model = zoo.create_model(
            "core/transformer",
            inputs=split.kind,
            targets=NextEvent(marks=3, scale=scale),
            width=16,
            depth=1,
            heads=2,
        )
        torch.manual_seed(1)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        batch = batch_of(split)
        losses.append(task(scale).loss(model(batch["input"], mask=mask_of(batch)), batch).item())
    assert losses[1] - losses[0] == pytest.approx(math.log(60), abs=1e-3)


def test_the_naive_answers_are_those_of_torch() -> None:
    split = some_split()
    batch = batch_of(split)
    asked = batch["target"][~batch["target"][..., 0].isnan()].double()
    gaps, marks = asked[:, 0], asked[:, 1].long()
    frequencies = (marks.bincount(minlength=3) + 1) / (len(marks) + 3)
    mark = -frequencies.log()[marks].mean().item()
    renewal = LogNormal(gaps.log().mean(), gaps.log().std(correction=0))
    found = task().baseline(split, split)
    assert found["nll_mark"] == pytest.approx(mark, rel=1e-5)
    assert found["nll_time"] == pytest.approx(-renewal.log_prob(gaps).mean().item(), rel=1e-5)
    found = poisson(split, split, TARGETS)
    exponential = torch.distributions.Exponential(1 / gaps.mean())
    assert found["nll_time"] == pytest.approx(-exponential.log_prob(gaps).mean().item(), rel=1e-6)
    assert found["nll_mark"] == pytest.approx(mark, rel=1e-6)
    assert found["rmse_time"] == pytest.approx(gaps.std(correction=0).item(), rel=1e-6)
    assert set(found) == set(task().metrics())


# -- models ----------------------------------------------------------------------------------


def test_a_stem_refuses_what_is_no_event() -> None:
    stem = EventSteps(EventsConfig(), inputs=KIND, width=8)
    with pytest.raises(ValueError, match=r"events \(B, N, 3\): time, gap, mark; got shape \(2, 5, 2\)"):
        stem(torch.zeros(2, 5, 2))
    with pytest.raises(ValueError, match=r"ids must lie in \[0, 3\), got 0 to 3"):
        stem(torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 3.0]]]))
    with pytest.raises(ValueError, match=r"gaps between events must be at least 0, got -1.5"):
        stem(torch.tensor([[[0.0, 0.0, 0.0], [1.0, -1.5, 1.0]]]))
    many = EventSteps(EventsConfig(), inputs=Events(marks=257, length=2), width=8)
    many(torch.tensor([[[0.0, 0.0, 256.0]]]))
    with pytest.raises(ValueError, match=r"257 marks cannot be told apart in torch.bfloat16"):
        many.bfloat16()(torch.tensor([[[0.0, 0.0, 256.0]]]).bfloat16())


def test_the_rhythm_of_the_data_is_heard() -> None:
    """Two times a period apart differ in nothing but the slow waves and the time itself."""
    daily = Events(marks=1, length=8, period=24.0)
    assert EventsConfig(waves=0).wavelengths(daily) == [24.0, 12.0, 8.0, 6.0]
    assert EventsConfig(harmonics=0, waves=2).wavelengths(daily) == [2.0, 32.0]
    stem = EventSteps(EventsConfig(waves=0), inputs=daily, width=8).double()
    with torch.no_grad():
        stem.project.weight[:, 1] = 0.0  # the time as such
    one, other, noon = (stem(torch.tensor([[[t, 1.0, 0.0]]]).double())[0] for t in (5.0, 29.0, 12.0))
    assert torch.allclose(one, other, atol=1e-5) and not torch.allclose(one, noon, atol=1e-2)


def test_models_that_cannot_do_it_are_refused_with_those_that_can() -> None:
    with pytest.raises(ContractError, match=r"'core/mlp_net' cannot do .*Models that can be .*transformer"):
        plan_model("core/mlp_net", dataset="hawkes")
    with pytest.raises(ContractError, match=r"no installed stem turns events .* into the vector"):
        plan_model("core/mlp_net", inputs=KIND, targets=Classes(count=4))
    with pytest.raises(ContractError, match=r"takes images, but the dataset gives events .*core/transformer"):
        plan_model("timm/resnet18", inputs=KIND, targets=Classes(count=4))
    with pytest.raises(ContractError, match="sees both directions"):
        plan_model("core/transformer", dataset="hawkes", causal=False)
    plan = plan_model("core/transformer", dataset="nyc_flights")
    assert plan.causal and plan.stem and plan.stem.id == "core/events" and plan.head.id == "core/next_event"
    assert "the next event: its time in hours, one of 3 marks" in plan.describe()
    assert type(plan).from_dict(catalogue(), plan.to_dict()) == plan


@pytest.mark.parametrize("name", ["core/transformer", "aaren/encoder"])
def test_events_stream(name: str) -> None:
    torch.manual_seed(0)
    model = zoo.create_model(name, dataset="hawkes", width=16, depth=2, heads=2).eval()
    x = EncodeEvents(Events(marks=3, length=9))(np.stack([np.arange(9) ** 1.5, np.arange(9) % 3], axis=1))[
        None
    ]
    with torch.no_grad():
        whole_ = model(x)
        state, steps = model.initial_state(1), []
        for piece in x.split([1, 3, 5], dim=1):
            y, state = model.step(piece, state)
            steps.append(y)
    assert whole_.shape == (1, 9, 8, 6)
    assert torch.allclose(torch.cat(steps, dim=1), whole_, atol=1e-5)


def test_sequences_of_events_can_be_classified() -> None:
    model = zoo.create_model("core/transformer", inputs=KIND, targets=Classes(count=4), width=16, depth=1)
    batch = batch_of(some_split())
    mask = mask_of(batch)
    assert model(batch["input"], mask=mask).shape == (len(batch["input"]), 4)
    features = whole(batch, KIND)
    assert features.shape == (len(batch["input"]), 4 + 3) and features.isfinite().all()
    assert torch.allclose(features[:, 4:].sum(1), torch.ones(len(features)))


def test_train_eval_and_predict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [
        "data.params={examples: 96, eval_examples: 32, length: 16}",
        "model.width=16",
        "model.params.depth=1",
    ]
    given = [
        "--quiet",
        "core/hawkes",
        *small,
        "trainer.max_epochs=2",
        "schedule.warmup_steps=2",
        "expect=null",
    ]
    assert main(["train", *given]) == 0
    out = capsys.readouterr().out
    heading = out.splitlines()[0].split()
    assert heading[:3] == ["metric", "test", "Poisson"] and heading[-2:] == ["best", "possible"]
    nll = next(line.split() for line in out.splitlines() if line.startswith("nll "))
    assert float(nll[-1]) < min(map(float, nll[1:-1]))
    (card,) = tmp_path.glob("runs/core/hawkes/*/card.md")
    assert f"| {' | '.join(nll)} |" in card.read_text()
    assert main(["eval", "latest"]) == 0
    assert nll in [line.split() for line in capsys.readouterr().out.splitlines()]
    Path("events.csv").write_text("time,mark\n100.5,0\n100.75,1\n103,2\n")
    assert main(["predict", "latest", "events.csv"]) == 0
    assert capsys.readouterr().out.startswith("after ")
    Path("events.csv").write_text("time,mark\n100.5,0\n100.25,1\n")
    assert main(["predict", "latest", "events.csv"]) == 2
    assert "event 2 is at time 100.25, before event 1 at 100.5" in capsys.readouterr().err
