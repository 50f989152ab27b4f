"""Operations that are counted: of every model, of every kind of product, with and without numbers.

How they grow with the tokens is a claim that the conformance kit checks, by the same count.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.catalogue import catalogue
from zoo.contract import Plan
from zoo.layers import build_model
from zoo.layers.operations import OperationCounter
from zoo.specs import ModelSpec
from zoo.testing.subject import ModelSubject
from zoo.testing.whole import batch_of, plan_of
from zoo.training.cost import cost_of, flops_of

MODELS = [spec for spec in catalogue().specs("model") if isinstance(spec, ModelSpec)]


def a_plan(spec: ModelSpec) -> Plan:
    return plan_of(ModelSubject(spec, catalogue()))


def by_hand(model: nn.Module, x: Tensor) -> int:
    """Operations of the linear maps and convolutions alone, from the shapes that they see."""
    counted = []

    def linear(module: nn.Linear, _: tuple[Tensor, ...], y: Tensor) -> None:
        counted.append(2 * module.in_features * y.numel())

    def convolution(module: nn.Conv2d, _: tuple[Tensor, ...], y: Tensor) -> None:
        counted.append(2 * module.weight[0].numel() * y.numel())

    for module in model.modules():
        if type(module) is nn.Linear:
            module.register_forward_hook(linear)
        elif type(module) in (nn.Conv1d, nn.Conv2d):
            module.register_forward_hook(convolution)
    model(x)
    return sum(counted)


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.id)
def test_the_operations_of_every_model_are_counted(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS", "0")  # the count of tensor operations is the same on every machine
    plan = a_plan(spec)
    model, (x, _) = build_model(plan).eval(), batch_of(plan, 1)
    with torch.no_grad(), OperationCounter() as counter:
        model(x)
    counted = flops_of(plan, catalogue())
    assert counted == counter.total  # on the meta device as with numbers
    with torch.no_grad():
        assert counted >= by_hand(model, x) > 0
    # What is trained is multiplied once for every token at least, but for tables that are looked up.
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() > 1 and "stem" not in name)
    assert counted >= weights * (plan.tokens or 1)


def test_products_inside_an_autograd_function_and_into_a_tensor_count() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, a: Tensor, b: Tensor) -> Tensor:
            return (a @ b).baddbmm_(a, b)

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor]:
            return grad, grad

    a, b = torch.rand(2, 3, 4, requires_grad=True), torch.rand(2, 4, 5)
    with OperationCounter() as counter:
        Twice.apply(a, b)
    assert counter.total == 2 * (2 * 2 * 3 * 4 * 5)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_each_product_costs(device: str) -> None:
    m, v = torch.rand(6, 6, device=device), torch.rand(6, device=device)
    q = torch.rand(1, 2, 5, 4, device=device)
    for run, flops in (
        (lambda: m @ m, 2 * 6**3),
        (lambda: m @ v, 2 * 6**2),
        (lambda: v @ v, 2 * 6),
        (lambda: torch.addmv(v, m, v), 2 * 6**2),
        (lambda: torch.linalg.solve_triangular(m, m, upper=True), 6**3),
        (lambda: F.conv1d(q[0], q[0, :, :, :3]), 2 * (2 * 2 * 2) * (5 * 3)),
        (lambda: F.scaled_dot_product_attention(q, q, q), 2 * (2 * 2 * 5 * 5 * 4)),
        (lambda: m + m, 0),
    ):
        with OperationCounter() as counter:
            run()
        assert counter.total == flops


def test_attention_backwards_costs_what_its_products_cost() -> None:
    q = torch.rand(1, 2, 5, 4, requires_grad=True)
    with OperationCounter() as counter:
        F.scaled_dot_product_attention(q, q, q).sum().backward()
    assert counter.total == (2 + 5) * (2 * 2 * 5 * 5 * 4)


def test_counting_leaves_the_random_numbers_alone() -> None:
    plan = a_plan(MODELS[0])
    before = torch.random.get_rng_state()
    cost = cost_of(plan, catalogue())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert cost.flops == flops_of(plan, catalogue())
