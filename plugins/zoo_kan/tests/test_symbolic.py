"""From curves to known functions, from networks to formulas, and pictures of them."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from zoo_kan import KANLinear
from zoo_kan.formula import fit_numbers, r2, round_numbers, snap
from zoo_kan.functional import curve2coef
from zoo_kan.network import Network, prune
from zoo_kan.plot import plot_kan
from zoo_kan.symbolic import symbolic_fit

F64 = torch.float64
CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sin": lambda x: 2 * torch.sin(math.pi * x + 0.3) - 1,
    "x^2": lambda x: 1.7 * (x - 0.3) ** 2 + 2,
    "exp": lambda x: 0.3 * torch.exp(1.9 * x) - 2,
    "log": lambda x: torch.log(2 * x + 3),
    "1/x": lambda x: 1 / (x + 2.2),
    "x": lambda x: 2 * x - 1,
    "x^3": lambda x: 2 * (x + 0.2) ** 3 - 1,
    "x^4": lambda x: (x - 0.1) ** 4,
    "1/x^2": lambda x: 0.5 / (x + 1.7) ** 2,
    "sqrt": lambda x: torch.sqrt(1.3 * x + 1.6),
    "tanh": lambda x: 2 * torch.tanh(3 * x - 0.4),
    "abs": lambda x: 3 * (x - 0.25).abs(),
    "gaussian": lambda x: torch.exp(-((2.5 * x + 0.3) ** 2)),
}
NUMBERS = {
    "x^2": (1, -0.3, 1.7, 2),
    "exp": (1.9, 0, 0.3, -2),
    "tanh": (3, -0.4, 2, 0),
    "abs": (1, -0.25, 3, 0),
    "gaussian": (2.5, 0.3, 1, 0),
    "1/x^2": (1, 1.7, 0.5, 0),
}


@pytest.mark.parametrize("name", CURVES)
def test_a_known_function_is_recognised_with_its_numbers(name: str) -> None:
    x = torch.linspace(-1, 1, 100, dtype=F64)
    best = symbolic_fit(x, CURVES[name](x))[0]
    assert best.name == name and best.r2 > 0.9999
    if name in NUMBERS:
        assert (best.a, best.b, best.c, best.d) == pytest.approx(NUMBERS[name], abs=1e-3)


def test_what_cannot_be_fitted_is_refused() -> None:
    x = torch.linspace(-1, 1, 10)
    for call, message in (
        (lambda: symbolic_fit(x, x[:5]), "expected x and y"),
        (lambda: symbolic_fit(x[:3], x[:3]), "S >= 4"),
        (lambda: symbolic_fit(x, x * math.nan), "finite"),
        (lambda: symbolic_fit(x, x, library=["cosinus"]), "unknown function 'cosinus'"),
        (lambda: symbolic_fit(x, x, library=[]), "the library is empty; there is: x, x"),
        (lambda: symbolic_fit(x, x, simplicity=1.5), "simplicity must lie within 0 and 1, got 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    constant = symbolic_fit(x, torch.ones(10))[0]
    assert math.isfinite(constant.score) and constant.d == pytest.approx(1)


def network() -> tuple[nn.Sequential, Tensor]:
    """y = exp(sin(pi x1) + x2^2), written into the edges of a network [3, 2, 1]; x3 and a node do nothing."""
    torch.manual_seed(0)
    net = nn.Sequential(
        KANLinear(3, 2, base="none", grid_intervals=20, grid_range=(-1.1, 1.1)),
        KANLinear(2, 1, base="none", grid_intervals=20, grid_range=(-1.1, 2.1)),
    ).double()
    grid = net[0].basis.core()
    x = torch.linspace(grid[0, 0].item(), grid[0, -1].item() - 1e-9, 400, dtype=F64)[:, None].expand(-1, 3)
    curves = torch.zeros(400, 2, 3, dtype=F64)
    curves[:, 0, 0], curves[:, 0, 1] = torch.sin(math.pi * x[:, 0]), x[:, 0] ** 2
    curves[:, 1] = 1e-3 * x
    hidden = torch.linspace(-1.1, 2.1 - 1e-9, 400, dtype=F64)[:, None].expand(-1, 2)
    last = torch.stack([hidden[:, 0].exp(), 1e-3 * hidden[:, 0]], dim=1)[:, None]
    with torch.no_grad():
        net[0].coef.copy_(curve2coef(x, curves, net[0].basis.grid, 3))
        net[1].coef.copy_(curve2coef(hidden, last, net[1].basis.grid, 3))
    return net, 2 * torch.rand(500, 3, dtype=F64) - 1


def test_importance_and_pruning_find_what_matters() -> None:
    net, x = network()
    before = net(x)
    found = Network.of(net, x)
    assert found.scores["0"][0, :2].min() > 0.1 and found.scores["0"][1].max() < 1e-2
    prune(net, x)
    assert net[0].edge_mask.tolist() == [[1, 1, 0], [0, 0, 0]] and net[1].edge_mask.tolist() == [[1, 0]]
    assert (net(x) - before).abs().max() < 0.05
    with pytest.raises(ValueError, match="nothing would be left"):
        prune(net, x, edge=1e6)


def test_a_formula_is_found_and_written() -> None:
    sympy = pytest.importorskip("sympy")
    net, x = network()
    symbolic, fits = snap(prune(net, x))
    assert {fit.name for found in fits.values() for fit in found.values()} == {"sin", "x^2", "exp"}
    y = torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:2] ** 2)
    fit_numbers(symbolic, x, y)
    assert r2(symbolic(x), y)[0] > 0.9999
    symbols = sympy.symbols("x1 x2 x3")
    (written,) = symbolic.write(symbols)
    assert written.free_symbols == set(symbols[:2])
    for row in x[:5].tolist():
        value = float(written.subs(dict(zip(symbols, row, strict=True))))
        assert value == pytest.approx(math.exp(math.sin(math.pi * row[0]) + row[1] ** 2), rel=2e-2)


def test_numbers_of_a_formula_are_rounded_once_and_whole_ones_written_so() -> None:
    sympy = pytest.importorskip("sympy")
    x = sympy.Symbol("x")
    long = 1.00003 * sympy.exp(-0.99999 * x) + 3.0 * (0.57735 * x + 1e-9) ** 2 + 0.12345 * x - 4e-6
    assert str(round_numbers(long, 4)) == "x**2 + 0.1235*x + exp(-x)"  # 0.5774^2 * 3 would be 1.0002
    assert str(round_numbers(123456.7 * x, 4)) == "1.235e+5*x"


def test_a_product_is_drawn_pruned_and_written(tmp_path: Path) -> None:
    """y = (x1 x2)^2 by a network [3, 1 + 1 product, 1]."""
    sympy = pytest.importorskip("sympy")
    torch.manual_seed(0)
    net = nn.Sequential(
        KANLinear(3, 2, products=1, base="none", grid_range=(-1.1, 1.1)),
        KANLinear(2, 1, base="none", grid_range=(-1.1, 1.1)),
    ).double()
    at = torch.linspace(-1.1, 1.1 - 1e-9, 200, dtype=F64)[:, None]
    first = torch.zeros(200, 3, 3, dtype=F64)  # sums: one that nothing asks for, and two factors
    first[:, 0, 2] = first[:, 1, 0] = first[:, 2, 1] = at[:, 0]
    last = torch.stack([0 * at[:, 0], at[:, 0] ** 2], dim=1)[:, None]
    with torch.no_grad():
        net[0].coef.copy_(curve2coef(at.expand(-1, 3), first, net[0].basis.grid, 3))
        net[1].coef.copy_(curve2coef(at.expand(-1, 2), last, net[1].basis.grid, 3))
    x = 2 * torch.rand(300, 3, dtype=F64) - 1
    y = (x[:, :1] * x[:, 1:2]) ** 2
    torch.testing.assert_close(net(x), y)
    network = prune(net, x)
    assert net[0].edge_mask.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert plot_kan(network, tmp_path / "product.png") == 3
    symbolic, fits = snap(network)
    assert [fit.name for found in fits.values() for fit in found.values()] == ["x", "x", "x^2"]
    torch.testing.assert_close(symbolic(x), y, atol=1e-5, rtol=0)
    symbols = sympy.symbols("x1 x2 x3")
    (written,) = symbolic.write(symbols)
    assert float(written.subs({symbols[0]: 0.5, symbols[1]: -0.8})) == pytest.approx(0.16, abs=1e-3)
    keep = torch.tensor([[True] * 3, [True, False, False], [False] * 3])
    net[0].prune_(keep)  # without one of its factors a product is nothing
    with pytest.raises(ValueError, match="nothing would be left"):
        prune(net, x, edge=0.5)


def test_pictures_are_drawn_and_say_what_they_leave_out(tmp_path: Path) -> None:
    net, x = network()
    assert plot_kan(Network.of(net, x), tmp_path / "all.png") == 8
    assert plot_kan(Network.of(net, x), tmp_path / "few.png", most=2) == 4
    assert plot_kan(prune(net, x), tmp_path / "pruned.png", names=["a", "b", "c"]) == 3
    sizes = [(tmp_path / name).stat().st_size for name in ("all.png", "few.png", "pruned.png")]
    assert min(sizes) > 3000


def test_names_and_titles_are_whole_however_long(tmp_path: Path) -> None:
    net, x = network()
    network_ = Network.of(net, x)
    sizes = []
    for names, title in (("abc", ""), (("a" * 40, "b" * 40, "c" * 40), ""), ("abc", "what it is " * 20)):
        plot_kan(network_, tmp_path / "picture.png", names=names, title=title, most=3)
        sizes.append(struct.unpack(">II", (tmp_path / "picture.png").read_bytes()[16:24]))  # width, height
    assert sizes[1][0] > sizes[0][0] + 200  # the first name goes on beyond the first node
    assert sizes[2][1] > sizes[0][1] + 50 and sizes[2][0] < sizes[0][0] + 50  # in lines


def test_networks_that_are_no_chain_are_refused() -> None:
    with pytest.raises(ValueError, match="no KAN layers"):
        Network.of(nn.Linear(2, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="no chain"):
        Network.of(nn.Sequential(KANLinear(2, 3), nn.Linear(3, 4), KANLinear(4, 1)), torch.zeros(3, 2))


def test_examples_that_show_nothing_are_refused() -> None:
    net, x = network()
    with pytest.raises(ValueError, match="how outputs vary over examples: give two, not 1"):
        Network.of(net, x[:1])
    with pytest.raises(ValueError, match="0 is given NaN or infinite numbers"):
        prune(net, torch.where(x > 0, x, math.nan))


def test_a_network_in_training_is_looked_at_in_evaluation() -> None:
    net, x = network()
    dropped = nn.Sequential(net[0], nn.Dropout(0.5), net[1]).train()
    scores = Network.of(dropped, x).scores
    assert dropped.training and dropped[1].training
    for ours, theirs in zip(scores.values(), Network.of(net, x).scores.values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_product_with_a_constant_factor_is_no_zero() -> None:
    """y = 0.8 x1^2, as a product of x1^2 and of a function of x2 that never varies."""
    torch.manual_seed(0)
    net = nn.Sequential(
        KANLinear(2, 1, products=1, base="none", grid_range=(-1.1, 1.1)),
        KANLinear(1, 1, base="none", grid_range=(-1.1, 1.1)),
    ).double()
    at = torch.linspace(-1.1, 1.1 - 1e-9, 200, dtype=F64)[:, None]
    first = torch.zeros(200, 2, 2, dtype=F64)
    first[:, 0, 0], first[:, 1, 1] = at[:, 0] ** 2, 0.8
    with torch.no_grad():
        net[0].coef.copy_(curve2coef(at.expand(-1, 2), first, net[0].basis.grid, 3))
        net[1].coef.copy_(curve2coef(at, at[:, None], net[1].basis.grid, 3))
    x = 2 * torch.rand(300, 2, dtype=F64) - 1
    before = net(x)
    prune(net, x)
    assert net[0].edge_mask.tolist() == [[1, 0], [0, 1]]
    torch.testing.assert_close(net(x), before, atol=2e-3, rtol=0)


class Between(nn.Module):
    """Two KAN layers of 3 values, with something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.between = KANLinear(3, 3), KANLinear(3, 1), between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


def test_only_what_leaves_each_value_its_own_may_stand_between_the_layers() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 3)
    norm = nn.BatchNorm1d(3)
    nn.init.uniform_(norm.weight)
    for fits in (nn.Identity(), norm, nn.LayerNorm(3), lambda h: 2 * h - 1):
        assert list(Network.of(Between(fits), x).layers) == ["first", "second"]
    mixed = torch.randn(3, 3)
    for mixes in (lambda h: h @ mixed, lambda h: h + x, lambda h: h.flip(1), torch.relu):
        with pytest.raises(ValueError, match="second is given other things than what first gives"):
            Network.of(Between(mixes), x)
