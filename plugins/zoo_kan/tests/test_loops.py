"""The loops in C: against plain tensor operations wherever their blocks, strips and intervals end."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from zoo_kan import KANLinear
from zoo_kan.edges import _plain, _planes, sum_over_edges
from zoo_kan.functional import extend_grid
from zoo_kan.native import HIGHEST_ORDER, SplineSums, obstacle
from zoo_kan.splines import EXTRAPOLATE, SplineBasis

from zoo.layers import native
from zoo.layers.operations import OperationCounter

F64 = torch.float64
with warnings.catch_warnings():
    warnings.simplefilter("error")  # a compiler that is there and fails
    REASON = obstacle(torch.zeros(1, dtype=F64), 3)
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "none")


def basis_of(
    features: int, order: int, intervals: int, *, kind: str = "uniform", **options: Any
) -> SplineBasis:
    made = SplineBasis(features=features, order=order, intervals=intervals, **options)
    if kind != "uniform":
        core = torch.randn(features, intervals + 1, dtype=F64).sort(1).values
        if kind == "repeated":
            core[:, 1] = core[:, 2]
        made.set_grid(extend_grid(core, order))
    return made


def weights(outputs: int, basis: SplineBasis, *, base: bool = True) -> tuple[Tensor, Tensor | None]:
    coef = torch.randn(outputs, len(basis.grid), basis.count, dtype=F64, requires_grad=True)
    return coef, torch.randn(coef.shape[:2], dtype=F64, requires_grad=True) if base else None


def assert_same(x: Tensor, coef: Tensor, base: Tensor | None, basis: SplineBasis, b: str = "silu") -> None:
    """Values and all gradients of both forms."""
    assert isinstance(basis.sums(x), SplineSums)
    x = x.detach().requires_grad_()
    leaves = [x, coef] + ([] if base is None else [base])
    results = []
    for y in (sum_over_edges(x, coef, base, basis, b), _plain(x, _planes(coef), base, basis, b)):
        upstream = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
        results.append([y, *torch.autograd.grad(y, leaves, upstream, materialize_grads=True)])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9 * max(1.0, slow.abs().max().item()))


@pytest.mark.parametrize("rows", [1, 127, 300])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (65, 3), (2, 16), (3, 40), (2, 70)])
def test_any_size_equals_plain_operations(rows: int, inputs: int, outputs: int) -> None:
    torch.manual_seed(rows)
    basis = basis_of(inputs, 3, 5, kind="irregular")
    assert_same(torch.randn(rows, inputs, dtype=F64), *weights(outputs, basis), basis)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4, HIGHEST_ORDER])
@pytest.mark.parametrize("kind", ["uniform", "irregular", "repeated"])
@pytest.mark.parametrize("extrapolate", EXTRAPOLATE)
def test_any_order_and_grid_equals_plain_operations(order: int, kind: str, extrapolate: Any) -> None:
    torch.manual_seed(order)
    basis = basis_of(2, order, 4, kind=kind, extrapolate=extrapolate)
    assert_same(3 * torch.randn(50, 2, dtype=F64), *weights(3, basis), basis)


@pytest.mark.parametrize("intervals", [1, 200])
@pytest.mark.parametrize("b", ["silu", "identity", "none"])
def test_any_base_and_number_of_intervals_equals_plain_operations(intervals: int, b: str) -> None:
    torch.manual_seed(0)
    basis = basis_of(3, 3, intervals)
    coef, base = weights(5, basis, base=b != "none")
    assert_same(torch.randn(40, 3, dtype=F64), coef, base, basis, b)


def test_inputs_that_are_all_equal_or_on_knots() -> None:
    torch.manual_seed(0)
    basis = basis_of(2, 3, 5)
    coef, base = weights(4, basis)
    assert_same(torch.full((200, 2), 0.3, dtype=F64), coef, base, basis)
    assert_same(basis.grid.T.contiguous(), coef, base, basis)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("extrapolate", EXTRAPOLATE)
def test_inputs_on_knots_of_low_orders_and_far_out(order: int, extrapolate: Any) -> None:
    torch.manual_seed(0)
    basis = basis_of(2, order, 4, kind="repeated", extrapolate=extrapolate)
    far = torch.tensor([[1e200, -1e200]], dtype=F64)
    if extrapolate != "linear":
        far = torch.cat([far, torch.tensor([[math.inf, -math.inf]], dtype=F64)])
    coef, _ = weights(4, basis, base=False)
    assert_same(torch.cat([basis.grid.T, far if order else basis.grid.T + 1]), coef, None, basis)


def test_a_higher_order_is_left_to_tensor_operations() -> None:
    made = KANLinear(2, 2, order=HIGHEST_ORDER + 1).double()
    x = torch.rand(4, 2, dtype=F64)
    assert made.basis.sums(x) is None and made(x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_base_function_is_silu_to_rounding(dtype: torch.dtype) -> None:
    x = torch.cat(
        [torch.linspace(-900, 900, 10001), torch.linspace(-9, 9, 501), torch.tensor([-0.0, 1e30, -1e30])]
    )
    x = torch.cat([x, torch.tensor([math.inf, -math.inf, math.nan])]).to(dtype)[:, None].requires_grad_()
    basis = SplineBasis(features=1)
    one = torch.ones(1, 1, dtype=dtype)
    found = []
    for y in (sum_over_edges(x, torch.zeros(1, 1, 8, dtype=dtype), one, basis, "silu"), F.silu(x)):
        found.append([y, *torch.autograd.grad(y.sum(), x)])
    eps = torch.finfo(dtype).eps
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=4 * eps, atol=4 * eps, equal_nan=True)


def test_results_are_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PER_THREAD", 1)
    torch.manual_seed(0)
    basis = basis_of(9, 3, 5)
    coef, base = weights(4, basis)
    x = torch.randn(301, 9, dtype=F64).requires_grad_()
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            y = sum_over_edges(x, coef, base, basis, "silu")
            found.append([y, *torch.autograd.grad(y.square().sum(), [x, coef, base])])
    finally:
        torch.set_num_threads(threads)
    for one in found[1:]:
        for other, first in zip(one, found[0], strict=True):
            torch.testing.assert_close(other, first, rtol=1e-14, atol=1e-13)


def test_no_rows_give_no_outputs_and_gradients_of_zero() -> None:
    made = KANLinear(3, 2)
    x = torch.zeros(0, 3, requires_grad=True)
    y = made(x)
    y.sum().backward()
    assert y.shape == (0, 2) and x.grad is not None and x.grad.shape == (0, 3)
    assert made.coef.grad is not None and not made.coef.grad.any()


@pytest.mark.parametrize("base", [True, False])
def test_the_operators_keep_the_rules_of_torch(base: bool) -> None:
    """Their fakes, schemas and that they change nothing they are given."""
    basis = basis_of(3, 2, 4)
    coef, base_weight = (None if t is None else t.detach() for t in weights(5, basis, base=base))
    x, gradient = torch.randn(7, 3, dtype=F64), torch.randn(7, 5, dtype=F64)
    choices = [2, 1, int(base)]
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.zoo_kan.splines.default, (x, coef, base_weight, basis.grid, choices), test_utils=tests
    )
    for wanted in ([True, True, base], [False, True, False], [True, False, False]):
        arguments = (gradient, x, coef, base_weight, basis.grid, choices, wanted)
        torch.library.opcheck(torch.ops.zoo_kan.splines_backward.default, arguments, test_utils=tests)


def test_operations_are_counted() -> None:
    made = KANLinear(6, 4)
    x = torch.randn(10, 6, requires_grad=True)
    edges = 10 * 6 * 4
    with OperationCounter() as forward:
        y = made(x)
    with OperationCounter() as backward:
        y.sum().backward()
    assert forward.total == 2 * edges * 5  # four splines and the base function
    assert backward.total == 2 * edges * (5 + 6)


def test_compiled_code_takes_the_loops() -> None:
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph.print_readable(print_output=False))
        return graph.forward

    made = KANLinear(3, 2).requires_grad_(False)
    x = torch.randn(4, 3)
    compiled: Any = torch.compile(made, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x), made(x))
    assert "zoo_kan.splines" in graphs[0]
