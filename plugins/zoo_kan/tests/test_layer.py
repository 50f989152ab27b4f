"""`KANLinear`: against the reference, edge by edge, and all its paths against each other."""

from __future__ import annotations

import copy
import io
import math
import shutil
from typing import Any

import pytest
import torch
from torch import nn
from zoo_kan import KANLinear
from zoo_kan.bases import make_basis
from zoo_kan.edges import _plain, _planes
from zoo_kan.functional import curve2coef, extend_grid
from zoo_kan.native import obstacle
from zoo_kan.reference import kan_linear
from zoo_kan.splines import EXTRAPOLATE, SplineBasis

F64 = torch.float64
BASES = ["bspline", "rbf", "chebyshev", "fourier"]


@pytest.fixture(params=["loops", "torch"], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here holds for the loops in C and for tensor operations."""
    if request.param == "torch":
        monkeypatch.setenv("ZOO_KERNELS", "0")
        torch.compiler.reset()  # graphs that hold the loops
    elif reason := obstacle(torch.zeros(1), 3):
        pytest.skip(reason)
    elif request.node.callspec.params.get("basis", "bspline") != "bspline":
        pytest.skip("only splines have loops in C")
    return str(request.param)


def layer(inputs: int = 3, outputs: int = 2, *, seed: int = 0, **options: Any) -> KANLinear:
    torch.manual_seed(seed)
    made = KANLinear(inputs, outputs, **options).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    if isinstance(made.basis, SplineBasis):  # knots that are exact in float64
        low, high = (
            made.basis.grid[0, made.basis.order].item(),
            made.basis.grid[0, -1 - made.basis.order].item(),
        )
        made.basis.set_grid(
            make_basis(
                "bspline",
                features=inputs,
                intervals=made.basis.intervals,
                order=made.basis.order,
                low=round(low, 3),
                high=round(high, 3),
            ).grid.double()
        )
    return made


def inputs(rows: int, features: int = 3, *, scale: float = 1.0, seed: int = 1) -> torch.Tensor:
    return scale * torch.randn(rows, features, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "options",
    [{}, {"edge_scale": True}, {"order": 1}, {"order": 2, "grid_intervals": 1}, {"grid_range": (-3, 2)}],
)
def test_equals_the_reference(options: dict[str, Any]) -> None:
    made = layer(**options)
    made.prune_(torch.tensor([[True, False, True], [True, True, True]]))
    x = inputs(9)
    torch.testing.assert_close(made(x), kan_linear(made, x), rtol=0, atol=1e-7)
    made.update_grid(inputs(200))  # no longer uniform
    assert made.basis.uniform == (made.grid_intervals == 1)
    torch.testing.assert_close(made(x), kan_linear(made, x), rtol=0, atol=1e-12)


def test_products_of_sums_equal_the_reference() -> None:
    made = layer(2, 3, products=2, bias=True)
    assert made.sums == 5 and [made.node_of(o) for o in range(5)] == [0, 1, 1, 2, 2]
    assert made.bias is not None
    with torch.no_grad():
        made.bias.zero_()  # which the reference does not have
    x = inputs(9, 2)
    assert made(x).shape == (9, 3)
    torch.testing.assert_close(made(x), kan_linear(made, x), rtol=0, atol=1e-7)
    before = made(x)
    made.refine(10)
    inside = x.abs().amax(1) < 1
    torch.testing.assert_close(made(x)[inside], before[inside])
    assert torch.autograd.gradcheck(made, x.clone().requires_grad_())
    three = KANLinear(2, 1, products=1, factors=3)
    assert three.sums == 3 and three(x.float()).shape == (9, 1)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("rows", [1, 5, 700])
def test_blocks_equal_plain_operations(basis: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo_kan.edges.BLOCK", 3 * 8 * rows)  # three features per block, one left over
    made = layer(7, 4, basis=basis)
    x = inputs(rows, 7).requires_grad_()
    results = []
    planes, base = _planes(made.effective_coef()), made.effective_base()
    for form in (made, lambda x: _plain(x, planes, base, made.basis, "silu")):
        y = form(x)
        grads = torch.autograd.grad((y * y.detach().cos()).sum(), [x, made.coef, made.base_weight])
        results.append([y.detach(), *grads])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("intervals", [1, 5, 20])
def test_outside_of_their_support_splines_are_nothing_at_all(intervals: int, dtype: torch.dtype) -> None:
    made = KANLinear(1, 1, grid_intervals=intervals, base="none").to(dtype)
    far = 1 + 3 * 2 / intervals  # where the last spline ends
    x = torch.tensor([far, -far, 1.1 * far, -1e30, math.inf, -math.inf], dtype=dtype)[:, None]
    x = torch.nextafter(x, 2 * x).requires_grad_()
    y = made(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert not y.any() and not slope.any()


@pytest.mark.parametrize("shape", [(256, 2), (5, 1), (1, 5)])
def test_inputs_are_left_as_they_are(shape: tuple[int, int]) -> None:
    for x in (inputs(*shape), inputs(*shape[::-1]).T):
        made, before = layer(shape[1], 2), x.clone()
        made(x.requires_grad_()).sum().backward()
        assert torch.equal(x, before)


@pytest.mark.parametrize("wanted", ["x", "coef", "base_weight"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(wanted: str) -> None:
    made, x = layer(), inputs(9).requires_grad_()
    leaves = {"x": x, "coef": made.coef, "base_weight": made.base_weight}
    whole = dict(zip(leaves, torch.autograd.grad(made(x).square().sum(), list(leaves.values())), strict=True))
    for name, leaf in leaves.items():
        leaf.requires_grad_(name == wanted)
    made(x).square().sum().backward()
    torch.testing.assert_close(leaves[wanted].grad, whole[wanted])
    assert all(leaf.grad is None for name, leaf in leaves.items() if name != wanted)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("extrapolate", EXTRAPOLATE)
@pytest.mark.parametrize("adaptive", [False, True])
def test_gradients_of_first_and_second_order(basis: str, extrapolate: Any, adaptive: bool) -> None:
    if basis != "bspline" and (adaptive or extrapolate != "zero"):
        pytest.skip("only splines have a grid")
    made = layer(2, 2, basis=basis, extrapolate=extrapolate)
    if adaptive:
        made.update_grid(inputs(50, 2))
    x = torch.tensor([[0.13, -0.71], [1.53, -2.9], [0.31, 0.97]], dtype=F64, requires_grad=True)

    def run(x: torch.Tensor, coef: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(made, {"coef": coef, "base_weight": base}, (x,))

    weights = (
        x,
        made.coef.detach().clone().requires_grad_(),
        made.base_weight.detach().clone().requires_grad_(),
    )
    assert torch.autograd.gradcheck(run, weights)
    assert torch.autograd.gradgradcheck(run, weights)


def test_extrapolation_is_what_it_is_called() -> None:
    x = torch.tensor([[-5.0], [-1.0], [1.0], [1.5], [40.0]], dtype=F64)
    values, slopes = {}, {}
    for kind in EXTRAPOLATE:
        basis = make_basis("bspline", features=1, extrapolate=kind).double()
        values[kind], slopes[kind] = basis.values(x), basis.slopes(x)
    assert not values["zero"][[0, 4]].any() and values["zero"][3].sum() < 0.7
    assert (values["clamp"][[3, 4]] == values["clamp"][2]).all() and not slopes["clamp"][[0, 3, 4]].any()
    torch.testing.assert_close(values["clamp"].sum(1), torch.ones(5, 1, dtype=F64))
    torch.testing.assert_close(values["linear"][3], values["linear"][2] + 0.5 * slopes["linear"][2])
    for kind in EXTRAPOLATE:  # the same within the grid
        torch.testing.assert_close(values[kind][1:3], values["zero"][1:3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("extrapolate", ["clamp", "linear"])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_beyond_the_grid_goes_on_what_is_within(order: int, extrapolate: Any, dtype: torch.dtype) -> None:
    """A line of slope 2 on the grid, or steps of order 0, also where all knots outside lie on its ends."""
    core = torch.tensor([[-1.0, -0.3, 0.5, 1.0]], dtype=F64)
    ends = torch.cat([core[:, :1].repeat(1, order), core, core[:, -1:].repeat(1, order)], dim=1)
    for grid in (extend_grid(core, order), ends):
        made = KANLinear(1, 1, order=order, grid_intervals=3, base="none", extrapolate=extrapolate)
        made = made.to(dtype)
        made.basis.set_grid(grid)
        at = torch.linspace(-1, 1, 60, dtype=F64)[:, None]
        line = 2 * (at if order else at.floor() + 0.5)[..., None]
        with torch.no_grad():
            made.coef.copy_(curve2coef(at, line, grid, order))
        x = torch.tensor([[-7.0], [-1.0], [1.0], [1.1], [9.0]], dtype=dtype, requires_grad=True)
        y = made(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        on, goes = x.detach().clamp(-1, 1), order > 0
        expected = 2 * (x.detach() if extrapolate == "linear" and goes else on) if goes else made(on)
        torch.testing.assert_close(y.detach(), expected.detach(), rtol=1e-4, atol=1e-4)
        assert y.detach().abs().min() > 0.5
        inside = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0], dtype=dtype)[:, None]
        inside = inside if extrapolate == "clamp" else torch.ones_like(inside)
        torch.testing.assert_close(slope, 2 * goes * inside, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("extrapolate", EXTRAPOLATE)
def test_transforms_of_functions(basis: str, extrapolate: Any) -> None:
    """`vmap`, of rows and of layers; gradients of each example; derivatives forwards."""
    if basis != "bspline" and extrapolate != "zero":
        pytest.skip("only splines have a grid")
    made, x = layer(basis=basis, extrapolate=extrapolate), inputs(5)
    weights = {name: p.detach() for name, p in made.named_parameters()}
    torch.testing.assert_close(torch.func.vmap(made)(x), made(x))

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(made, weights, (x,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x)
    made(x).square().sum().backward()
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(each[name].sum(0), parameter.grad)
    two = {name: torch.stack([p, 2 * p]) for name, p in weights.items()}
    both = torch.func.vmap(lambda w: torch.func.functional_call(made, w, (x,)))(two)
    torch.testing.assert_close(both, torch.stack([made(x), 2 * made(x)]))
    jacobian: Any = torch.autograd.functional.jacobian(lambda x: made(x).sum(0), x)  # (O, S, I)
    torch.testing.assert_close(torch.func.jacfwd(lambda x: made(x).sum(0))(x), jacobian)
    with torch.autograd.forward_ad.dual_level():
        y = made(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
        tangent = torch.autograd.forward_ad.unpack_dual(y).tangent
    torch.testing.assert_close(tangent, jacobian.sum(2).T)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_float32_is_finite_and_close_to_float64(basis: str, scale: float) -> None:
    made = layer(5, 3, basis=basis)
    single = copy.deepcopy(made).float()
    x = inputs(33, 5, scale=scale).float().requires_grad_()
    y = single(x)
    y.square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    if basis != "fourier" or scale < 10:  # turns of thousands are beyond float32
        torch.testing.assert_close(y.double(), made(x.detach().double()), rtol=1e-5, atol=2e-5)


def test_autocast_and_half_weights_keep_the_basis_in_float32() -> None:
    made = layer(4, 3, grid_intervals=20).float()
    x = inputs(50, 4, scale=0.4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(made(x), made(x).float(), rtol=0, atol=1e-6)
        assert made.basis(x).dtype == torch.float32
    half = copy.deepcopy(made).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - made(x)).abs().max() < 0.1 * made(x).abs().max()


def test_leading_shapes_and_no_rows() -> None:
    made = layer()
    x = inputs(24).view(2, 3, 4, 3)
    torch.testing.assert_close(made(x).flatten(0, 2), made(x.flatten(0, 2)))
    assert made(x[:0]).shape == (0, 3, 4, 2)
    torch.testing.assert_close(made(x[0, 0, 0]), made(x)[0, 0, 0])
    assert made.basis(x[0, 0, 0]).shape == (3, made.basis.count)


def test_curves_sum_to_the_outputs() -> None:
    made = layer(edge_scale=True)
    x = inputs(11)
    torch.testing.assert_close(made.curves(x).sum(2), made(x))


def test_export_and_compile_equal_eager() -> None:
    made = layer(4, 3).eval()
    x, other = inputs(6, 4), inputs(6, 4, seed=5)
    exported = torch.export.export(made, (x,)).module()
    torch.testing.assert_close(exported(other), made(other))
    assert "zoo_kan" not in str(exported.graph)  # so that it runs where the zoo is not
    compiled: Any = torch.compile(made, backend="aot_eager")
    made.update_grid(inputs(100, 4))
    made.refine(10)
    torch.testing.assert_close(compiled(other), made(other))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles C++")
@pytest.mark.parametrize("extrapolate", EXTRAPOLATE)
def test_compiled_layers_equal_eager_ones_with_all_gradients(extrapolate: Any) -> None:
    made = layer(5, 3, extrapolate=extrapolate).float()
    x = inputs(70, 5).float().requires_grad_()
    compiled: Any = torch.compile(made)
    found = []
    for form in (made, compiled):
        y = form(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *made.parameters()])])
    for eager, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, eager, rtol=1e-5, atol=2e-5)


def test_keeps_less_than_a_fifth_of_plain_operations_memory() -> None:
    made = KANLinear(64, 16)
    x = torch.randn(256, 64, requires_grad=True)
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        made(x)
    fast, kept = kept, 0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        _plain(x, _planes(made.coef), made.base_weight, made.basis, "silu")
    assert fast < kept / 5


def test_edge_scores_are_deviations_of_the_curves() -> None:
    made = layer(4, 3, edge_scale=True)
    made.prune_(torch.rand(3, 4) > 0.3)
    x = inputs(300, 4)
    torch.testing.assert_close(made.edge_scores(x), made.curves(x).std(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("samples", [True, False])
def test_the_penalty_makes_edges_vanish(samples: bool) -> None:
    made = layer(4, 3)
    x = inputs(64, 4) if samples else None
    before = made.regularization_loss(x)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        made.regularization_loss(x).backward()
        optimiser.step()
    assert made.regularization_loss(x) < 0.3 * before
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    made.zero_grad()
    made.regularization_loss(x).backward()  # at zero, where others are NaN
    assert all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)


def test_pruned_edges_have_no_effect_and_no_gradient() -> None:
    made = layer()
    keep = torch.tensor([[True, False, True], [False, True, True]])
    made.prune_(keep)
    x = inputs(5)
    changed = x.clone()
    changed[:, 1] += 1
    torch.testing.assert_close(made(changed)[:, 0], made(x)[:, 0])
    made(x).square().sum().backward()
    assert made.coef.grad is not None and not made.coef.grad[~keep].any() and made.coef.grad[keep].any()
    with pytest.raises(ValueError, match="keep must be bool"):
        made.prune_(keep.float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_features": 0}, "at least 1"),
        ({"out_features": 2.0}, "out_features must be at least 1, and a whole number, got 2.0"),
        ({"grid_intervals": 0}, "at least one interval"),
        ({"grid_intervals": 2.5}, "a whole number of them, got 2.5"),
        ({"order": -1}, "order"),
        ({"order": True}, "a whole number, got True"),
        ({"order": 3.0}, "order of a spline must be at least 0, and a whole number, got 3.0"),
        ({"grid_range": (1.0, -1.0)}, "low to high"),
        ({"grid_range": (-math.inf, 1.0)}, "both finite: got -inf and 1.0"),
        ({"grid_range": (-1.0, math.nan)}, "both finite"),
        ({"grid_range": (-1.0, math.inf), "basis": "rbf"}, "both finite"),
        ({"sparsity": -1.0}, "sparsity must be at least 0"),
        ({"sparsity": math.inf}, "sparsity must be at least 0 and finite"),
        ({"basis": "hats"}, "bspline, rbf"),
        ({"base": "relu"}, "base must be"),
        ({"extrapolate": "mirror"}, "extrapolate must be"),
        ({"products": 9}, "of the outputs can be products"),
        ({"products": 1, "factors": 1}, "factors must be at least 2"),
        ({"products": 0.5}, "products must be at least 0, and a whole number"),
        ({"basis": "rbf", "grid_intervals": 1, "order": 0}, "at least 2 bumps"),
        ({"basis": "chebyshev", "grid_intervals": 1, "order": 0}, "degree"),
        ({"basis": "fourier", "grid_intervals": 1, "order": 0}, "one wave"),
    ],
)
def test_sizes_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KANLinear(**{"in_features": 2, "out_features": 2, **options})


@pytest.mark.parametrize("call", ["forward", "curves", "edge_scores", "regularization_loss", "update_grid"])
def test_inputs_that_cannot_be(call: str) -> None:
    """No other number of features, and no whole numbers, whose sums would be cut to whole ones."""
    call_ = getattr(layer(), call)
    with pytest.raises(ValueError, match=r"expected (x|samples) \(\.\.\., 3\).* got \(2, 4\)"):
        call_(inputs(2, 4))
    with pytest.raises(ValueError, match=r"expected (x|samples) \(\.\.\., 3\).* got \(\)"):
        call_(torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"floating-point type, got torch.int64: convert it"):
        call_(torch.ones(2, 3, dtype=torch.int64))


def test_scores_take_inputs_of_another_type_than_the_weights() -> None:
    made, x = layer(sparsity=0.1).float(), inputs(50).bfloat16()
    made(x)
    penalty = made.penalty()
    assert penalty is not None
    torch.testing.assert_close(penalty, 0.1 * made.regularization_loss(x.float()))


def test_scores_need_samples() -> None:
    with pytest.raises(ValueError, match=r"one or more, got \(0, 3\)"):
        layer().edge_scores(inputs(0))


@pytest.mark.parametrize("basis", BASES)
def test_bases_take_no_whole_numbers(basis: str) -> None:
    with pytest.raises(ValueError, match="floating-point type"):
        make_basis(basis, features=2)(torch.ones(4, 2, dtype=torch.int32))


def test_grids_of_another_shape_are_refused() -> None:
    made = layer()
    before = made.basis.grid
    for other in (before[:2], before[:, :-1], before[0]):
        with pytest.raises(ValueError, match=r"expected a grid \(3, 12\), got"):
            made.basis.set_grid(other)
    assert made.basis.grid is before


def test_a_layer_is_copied_and_saved_between_a_forward_and_its_penalty() -> None:
    made = layer(sparsity=0.1)
    made(inputs(4).requires_grad_() * 2)  # no leaf: what autograd cannot copy
    other = copy.deepcopy(made)
    buffer = io.BytesIO()
    torch.save(made, buffer)
    assert other.penalty() is None and made.penalty() is not None
    x = inputs(4)
    torch.testing.assert_close(other(x), made(x))


def test_weights_of_another_grid_are_taken_by_state_dict() -> None:
    made, fresh = layer(), layer(seed=3)
    made.refine(10)
    made.update_grid(inputs(100))
    net, other = nn.Sequential(made), nn.Sequential(fresh)
    other.load_state_dict(net.state_dict())
    x = inputs(20)
    torch.testing.assert_close(other(x), net(x))
    assert fresh.grid_intervals == 10 and fresh.basis.uniform == made.basis.uniform
    with pytest.raises(RuntimeError, match="size mismatch"):
        nn.Sequential(layer(4, 2)).load_state_dict(net.state_dict())


def test_weights_of_another_order_are_refused() -> None:
    """Also where there are as many coefficients; the layer stays of one piece."""
    quadratic = layer(order=2, grid_intervals=6)
    for intervals in (5, 9):
        made = layer(grid_intervals=intervals)
        with pytest.raises(RuntimeError, match=r"size mismatch for basis\.grid"):
            made.load_state_dict(quadratic.state_dict())
        assert made.grid_intervals == intervals and made.coef.shape[2] == intervals + 3
        assert made(inputs(4)).isfinite().all()


def test_a_layer_without_memory_gets_it_and_its_weights() -> None:
    made = layer().float()
    with torch.device("meta"):
        other = KANLinear(3, 2)
    other.to_empty(device="cpu").load_state_dict(made.state_dict())
    x = inputs(5).float()
    torch.testing.assert_close(other(x), made(x), rtol=0, atol=0)


def test_nan_stays_in_its_row() -> None:
    for adaptive in (False, True):
        made = layer()
        if adaptive:
            made.update_grid(inputs(50))
        x = inputs(4)
        x[2, 1] = math.nan
        y = made(x)
        assert y[2].isnan().all() and y[[0, 1, 3]].isfinite().all()
