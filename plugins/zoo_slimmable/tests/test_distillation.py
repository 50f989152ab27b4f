"""What narrow passes are taught: distances of features and of answers, when, and in two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from zoo_slimmable.config import SandwichConfig
from zoo_slimmable.distillation import DISTANCES, answer_distance, feature_distance
from zoo_slimmable.sandwich import Sandwich
from zoo_slimmable.widths import set_width

import zoo
from zoo.plugin import IGNORE, Classes, Image, Labels, Maps, Multi, Values

PARTS: dict[str, Any] = {"digit": Classes(count=4), "slant": Values(count=1, missing=True)}


def model() -> Any:
    torch.manual_seed(0)
    return zoo.create_model(
        "slim/conv",
        inputs=Image(channels=1, height=8, width=8),
        targets=Multi(parts=PARTS),
        width=32,
        stages=2,
        head={"name": "slim/decoders", "params": {"hidden": 16}},
    )


def batch(n: int = 8) -> dict[str, Any]:
    g = torch.Generator().manual_seed(1)
    target = {"digit": torch.randint(4, (n,), generator=g), "slant": torch.randn(n, 1, generator=g)}
    return {"input": torch.randn(n, 1, 8, 8, generator=g), "target": target}


def loss_on(data: dict[str, Any]) -> Any:
    target = data["target"]
    return lambda y: F.cross_entropy(y[:, :4], target["digit"]) + F.mse_loss(y[:, 4:], target["slant"])


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize("shape", [(3, 8, 4, 5), (3, 6, 8)], ids=["maps", "tokens"])
def test_a_distance_is_zero_to_itself_and_does_not_see_scales(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    wide = torch.randn(shape, dtype=torch.float64)
    other = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert feature_distance([wide], [wide], kind=kind).item() == pytest.approx(0, abs=1e-12)
    assert feature_distance([3 * wide], [wide], kind=kind).item() == pytest.approx(0, abs=1e-12)
    narrow = other[:, :4] if len(shape) == 4 else other[..., :4]
    distance = feature_distance([narrow], [wide], kind=kind)
    distance.backward()
    assert 0 < distance.item() <= 4 and other.grad is not None and bool(other.grad.isfinite().all())


def test_distances_are_those_of_their_formulas() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(3, 4, 2, 5).double(), torch.rand(3, 8, 2, 5).double()
    rows: list[Tensor] = []
    for n in range(3):
        p, q = (x[n].square().mean(0) for x in (a, b))
        rows.append((p / p.norm() - q / q.norm()).square().sum())
    torch.testing.assert_close(DISTANCES["attention"](a, b), torch.stack(rows).mean())
    grams = []
    for x in (a, b):
        places = torch.stack([x[n, :, r, c] for n in range(3) for r in range(2) for c in range(5)])
        apart = places - places.mean(0)
        grams.append(apart @ apart.T / (apart @ apart.T).norm())  # (30, 30)
    torch.testing.assert_close(DISTANCES["relation"](a, b), (grams[0] - grams[1]).square().sum())


def test_relations_do_not_ask_which_channel_says_it() -> None:
    """Turned features relate their places as before, and shifted ones, too; constant ones relate none."""
    torch.manual_seed(0)
    wide = torch.randn(3, 8, 2, 5).double()
    turn = torch.linalg.qr(torch.randn(8, 8).double())[0]
    turned = torch.einsum("nchw,cd->ndhw", wide, turn)
    assert DISTANCES["relation"](turned + 1, wide).item() == pytest.approx(0, abs=1e-12)
    constant = torch.ones(3, 4, 2, 5).double().requires_grad_()
    distance = DISTANCES["relation"](constant, wide)
    distance.backward()
    assert distance.item() == 2 and constant.grad is not None and bool(constant.grad.isfinite().all())


def test_answers_are_compared_where_something_is_asked() -> None:
    torch.manual_seed(0)
    kind = Maps(height=2, width=3, parts=PARTS)
    ours, theirs = torch.randn(2, 5, 2, 3).double(), torch.randn(2, 5, 2, 3).double()
    digit, slant = torch.randint(4, (2, 2, 3)), torch.randn(2, 1, 2, 3).double()
    digit[0, 0, 0], slant[1, 0, 1, 2] = IGNORE, torch.nan
    expected, absolute = [], []
    for b in range(2):
        for r in range(2):
            for c in range(3):
                if digit[b, r, c] != IGNORE:
                    p = theirs[b, :4, r, c].softmax(0)
                    expected.append(-(p * ours[b, :4, r, c].log_softmax(0)).sum())
                if not slant[b, 0, r, c].isnan():
                    absolute.append((ours[b, 4, r, c] - theirs[b, 4, r, c]).abs())
    asked = {"digit": digit, "slant": slant}
    found = answer_distance(ours, theirs, kind, asked)
    torch.testing.assert_close(found, torch.stack(expected).mean() + torch.stack(absolute).mean())
    nothing = {"digit": torch.full_like(digit, IGNORE), "slant": torch.full_like(slant, torch.nan)}
    assert answer_distance(ours, theirs, kind, nothing) == 0
    with pytest.raises(ValueError, match="classes and values, not for one of 3 labels per token"):
        answer_distance(ours, theirs, Labels(count=3), digit)


def test_features_are_distilled_once_the_teacher_has_learnt() -> None:
    whole, data = model(), batch()
    losses = {}
    for distill, step in ((0.0, 0), (0.5, 0), (0.5, 24), (0.5, 25)):
        sandwich = Sandwich(SandwichConfig(distill=distill, distill_from=0.25, passes=2))
        sandwich.on_start(SimpleNamespace(step=step, steps=100))  # type: ignore[arg-type]
        losses[distill, step] = sandwich.objective(whole, data, loss_on(data))
    assert losses[0.5, 0] == losses[0.5, 24] == losses[0.0, 0]
    teachers = [each.detach() for each in whole.forward_intermediates(data["input"])]
    set_width(whole, 0.25)
    taught = feature_distance(whole.forward_intermediates(data["input"]), teachers)
    torch.testing.assert_close(losses[0.5, 25], losses[0.0, 0] + 0.5 * taught / 2)


def test_answers_are_distilled_once_the_teacher_has_learnt() -> None:
    whole, data = model(), batch()
    losses = {}
    for answers, step in ((0.0, 0), (0.5, 0), (0.5, 49), (0.5, 50)):
        sandwich = Sandwich(SandwichConfig(distill=0.0, answers=answers, passes=2))
        sandwich.on_start(SimpleNamespace(step=step, steps=100))  # type: ignore[arg-type]
        losses[answers, step] = sandwich.objective(whole, data, loss_on(data))
    assert losses[0.5, 0] == losses[0.5, 49] == losses[0.0, 0]
    teacher = whole(data["input"]).detach()
    set_width(whole, 0.25)
    taught = answer_distance(whole(data["input"]), teacher, whole.plan.targets, data["target"])
    torch.testing.assert_close(losses[0.5, 50], losses[0.0, 0] + 0.5 * taught / 2)


def test_a_teacher_gets_no_gradient() -> None:
    """With the loss of the data left out, only the narrow network's part of the weights moves."""
    whole, data = model(), batch()
    config = SandwichConfig(distill=1.0, answers=1.0, answers_from=0.0, passes=2)
    Sandwich(config).objective(whole, data, lambda y: 0.0 * y.sum()).backward()
    enter = whole.backbone.stages[0].enter.weight.grad
    assert enter[:4].any() and not enter[4:].any()


class Step(nn.Module):
    """One step as a module, so that gradients of two processes can be averaged."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, data: dict[str, Any]) -> Tensor:
        torch.manual_seed(7)  # every process draws the same widths, as in a run
        return Sandwich(SandwichConfig(answers=0.5)).objective(self.net, data, loss_on(data))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        step, data = Step(model()), batch()
        half = slice(4 * rank, 4 * rank + 4)
        mine = {"input": data["input"][half], "target": {k: t[half] for k, t in data["target"].items()}}
        replica = nn.parallel.DistributedDataParallel(step)
        replica(mine).backward()
        torch.save([p.grad for p in step.parameters()], f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    step = Step(model())
    step(batch()).backward()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for a, b, p in zip(first, second, step.parameters(), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, p.grad, atol=1e-6, rtol=1e-4)


if __name__ == "__main__":
    work(int(sys.argv[2]), sys.argv[1])
