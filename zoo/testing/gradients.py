"""Training: gradients reach every parameter and are right, and the loss falls."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.random_inputs import normal
from zoo.testing.check import NotApplicable
from zoo.testing.measure import require, require_finite, weights_like
from zoo.testing.subject import MAX_TOKENS, ModelSubject, Subject, seeded
from zoo.testing.whole import batch_of, build_whole

EPSILON = 1e-5
#: Of a directional derivative, between autograd and finite differences.
TOLERANCE = 1e-3
STEPS = 80


def check_gradients(subject: Subject) -> None:
    for causal in subject.directions:
        module = subject.build(causal=causal, train=True)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise NotApplicable("it has no parameters")
        # What works on whole blocks may have nothing to do for a few tokens.
        for n in subject.lengths(11, MAX_TOKENS):
            for seed in (0, 1):
                with seeded(seed):
                    y = subject.run(module, subject.sample(3, n, seed=seed, dtype=torch.float64))
                (y * weights_like(y)).sum().backward()
            trained = [p for p in module.parameters() if p.requires_grad]
            if all(p.grad is not None and bool(p.grad.any()) for p in trained):
                break
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            require(parameter.grad is not None, f"{name} gets no gradient, causal={causal}")
            gradient = parameter.grad if parameter.grad is not None else parameter
            require_finite(gradient, f"the gradient of {name}, causal={causal}")
            require(bool(gradient.any()), f"the gradient of {name} is all zeros, causal={causal}")


def check_gradient_values(subject: Subject) -> None:
    for causal in subject.directions:
        module = subject.build(causal=causal)
        x = subject.sample(2, subject.lengths(9)[-1], dtype=torch.float64)
        leaves: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if x.is_floating_point():
            leaves["the input"] = x.requires_grad_()
        loss = _loss(subject, module, x)
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for (name, leaf), gradient in zip(leaves.items(), grads, strict=True):
            direction = normal(tuple(leaf.shape), seed=3, dtype=torch.float64)
            if leaf is x:
                direction *= subject.sized(x)
            said = 0.0 if gradient is None else (gradient * direction).sum().item()
            measured = _slope(subject, module, x, leaf, direction)
            allowed = TOLERANCE * max(abs(said), abs(measured)) + 1e-6 * max(1.0, abs(loss.item()))
            require(
                abs(said - measured) <= allowed,
                f"causal={causal}: along a random direction of {name} the loss rises by {measured:.6g}, "
                f"its gradient says {said:.6g}",
            )


def check_loss_falls(subject: Subject) -> None:
    first, last = _fit_whole(subject) if isinstance(subject, ModelSubject) else _fit_teacher(subject)
    require(
        last <= 0.5 * first,
        f"{STEPS} steps of Adam on one batch brought the loss from {first:.4g} to {last:.4g}",
    )


def _loss(subject: Subject, module: nn.Module, x: Tensor) -> Tensor:
    y = subject.run(module, x)
    return (y * weights_like(y)).sum()


@torch.no_grad()
def _slope(subject: Subject, module: nn.Module, x: Tensor, leaf: Tensor, direction: Tensor) -> float:
    """The loss's change along a direction, by central differences."""
    kept, ends = leaf.clone(), []
    for sign in (1, -1):
        leaf.copy_(kept + sign * EPSILON * direction)
        ends.append(_loss(subject, module, x).item())
    leaf.copy_(kept)
    return (ends[0] - ends[1]) / (2 * EPSILON)


def _fit_teacher(subject: Subject) -> tuple[float, float]:
    """The loss against another instance of the same layer, which is something that it can learn."""
    teacher = subject.build(seed=1, dtype=torch.float32)
    student = subject.build(seed=0, dtype=torch.float32, train=True)
    if not list(student.parameters()):
        raise NotApplicable("it has no parameters")
    x = subject.sample(4, subject.lengths(16)[-1])
    with torch.no_grad():
        target = subject.run(teacher, x)
    return _fit(student, lambda: F.mse_loss(subject.run(student, x), target))


def _fit_whole(subject: ModelSubject) -> tuple[float, float]:
    """The loss of the whole model on eight examples."""
    model = build_whole(subject)
    x, target = batch_of(model.plan, 8)
    if target.is_floating_point():
        return _fit(model, lambda: F.mse_loss(model(x), target))
    return _fit(model, lambda: F.cross_entropy(model(x).flatten(0, -2), target.flatten()))


def _fit(module: nn.Module, loss_of: Callable[[], Tensor]) -> tuple[float, float]:
    """First and last loss of a short training."""
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses: list[float] = []
    with seeded(0):
        for _ in range(STEPS):
            loss = loss_of()
            require_finite(loss, "the loss")
            losses.append(loss.item())
            if losses[-1] <= 0.4 * losses[0]:
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return losses[0], losses[-1]
