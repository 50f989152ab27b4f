"""KANs fitted to formulas, beside MLPs of equal parameters: refinement, scaling, symbols, Feynman.

    python benchmarks/kan_fits.py [--only toy scaling symbols feynman] [--seeds 0 1 2 3 4] [--knots quantiles]

`toy` takes four minutes, `scaling` half a one, `symbols` two, `feynman` ten (three seeds). Networks are
trained by LBFGS in float64 on 1,000 points of `kan/feynman`; errors are root mean squares on 1,000 others, in
deviations of the target. `symbols` trains the recipe `kan/toy`, prunes it and writes it as a formula.
MLPs have as many weights as the KAN has after its last refinement and as many LBFGS iterations as all
refinements together; of one and of two hidden layers the better one on test counts. Of every network, KAN or
MLP, several are started, and the best one on train goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from turns import Row, lines, show
from zoo_kan import KANLinear, prune, snap
from zoo_kan.config import EQUATIONS, FeynmanConfig
from zoo_kan.feynman import load
from zoo_kan.formula import fit_numbers, r2
from zoo_kan.splines import Extrapolate

import zoo

#: LBFGS iterations on each grid; after how many on the first one grids move to their inputs.
ITERATIONS, FOLLOW = 400, (0, 20, 40, 60)
#: Starts of each network, KANs and MLPs alike: after the first iterations the best one on train goes on.
STARTS = 4
GRIDS = (5, 10, 20)
#: Knots equally spaced, and splines that fade outside of them; or at quantiles of the inputs (but for the
#: share of the paper's code), and splines that go on straight.
Knots = Literal["even", "quantiles"]
UNIFORM_SHARE: dict[Knots, float] = {"even": 1.0, "quantiles": 0.02}
EXTRAPOLATE: dict[Knots, Extrapolate] = {"even": "zero", "quantiles": "linear"}
#: Hidden nodes on the toy formula: as many as it needs, and as many as one would try.
TOY = ((1,), (5,))
#: At most so much of the MLP's error on the toy formula, and at least so steep a fall with the grid.
BETTER, SLOPE, R2 = 1 / 5, -2.5, 0.999


class Data(NamedTuple):
    """Points (S, I) and values (S, 1) of a formula, standardised: to train on, and to test on."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def data_of(equation: str, seed: int) -> Data:
    splits = load(FeynmanConfig(equation=equation, seed=seed))  # type: ignore[arg-type]
    parts = (splits.train, splits.test)
    return Data(*(part.double() for split in parts for part in (split.inputs, split.targets)))  # type: ignore[attr-defined]


def minimise(model: nn.Module, data: Data, iterations: int) -> None:
    """LBFGS on the mean squared error."""
    if not iterations:
        return
    optimiser = torch.optim.LBFGS(
        model.parameters(),
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=20,
        tolerance_grad=1e-14,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimiser.zero_grad()
        loss = (model(data.x) - data.y).square().mean()
        loss.backward()
        return loss.item()

    optimiser.step(closure)  # type: ignore[arg-type]


def kan(model: nn.Module) -> list[KANLinear]:
    return [layer for layer in model if isinstance(layer, KANLinear)]  # type: ignore[attr-defined]


def follow(model: nn.Module, x: Tensor, knots: Knots) -> None:
    """Move the grids of all layers, one after the other, to what they are given."""
    for layer in kan(model):
        layer.update_grid(x, uniform_share=UNIFORM_SHARE[knots], margin=0.05)
        x = layer(x).detach()


def fit_kan(
    data: Data, hidden: Sequence[int], grids: Sequence[int], *, seed: int, knots: Knots = "even"
) -> tuple[nn.Module, list[float]]:
    """A KAN that is refined from grid to grid, and its error after each."""
    sizes = (data.x.shape[1], *hidden, 1)

    def start(start_seed: int) -> nn.Module:
        torch.manual_seed(start_seed)
        layers = [
            KANLinear(i, o, grid_intervals=grids[0], bias=o == 1, extrapolate=EXTRAPOLATE[knots])
            for i, o in pairwise(sizes)
        ]
        model = nn.Sequential(*layers).double()
        for before, at in pairwise(FOLLOW):
            follow(model, data.x, knots)
            minimise(model, data, at - before)
        return model

    model = best_of(start, data, seed)
    errors = []
    for grid in grids:
        follow(model, data.x, knots)
        for layer in kan(model):
            layer.refine(grid)
        minimise(model, data, ITERATIONS - (FOLLOW[-1] if grid == grids[0] else 0))
        errors.append(error(model, data))
    return model, errors


def fit_mlp(data: Data, parameters: int, iterations: int, *, seed: int) -> float:
    """The least error of MLPs with one and with two hidden layers."""
    inputs, found = data.x.shape[1], []
    for depth in (1, 2):
        width = next(w for w in range(1, 10_000) if mlp_size(inputs, w + 1, depth) > parameters)
        sizes = (inputs, *[width] * depth)

        def start(start_seed: int, sizes: Sequence[int] = sizes) -> nn.Module:
            torch.manual_seed(start_seed)
            hidden = [part for i, o in pairwise(sizes) for part in (nn.Linear(i, o), nn.SiLU())]
            model = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1)).double()
            minimise(model, data, FOLLOW[-1])
            return model

        model = best_of(start, data, seed)
        minimise(model, data, iterations - FOLLOW[-1])
        found.append(error(model, data))
    return min(found)


def best_of(start: Callable[[int], nn.Module], data: Data, seed: int) -> nn.Module:
    """The one of `STARTS` networks with the least error on train."""
    models = [start(seed * STARTS + n) for n in range(STARTS)]
    return min(models, key=lambda model: error(model, Data(data.x, data.y, data.x, data.y)))


def mlp_size(inputs: int, width: int, depth: int) -> int:
    return (inputs + 1) * width + (depth - 1) * (width + 1) * width + width + 1


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def error(model: nn.Module, data: Data) -> float:
    """Root mean square on test, in deviations of the target."""
    return ((model(data.test_x) - data.test_y).square().mean().sqrt() / data.test_y.std()).item()


def compare(equation: str, hidden: Sequence[int], seeds: Sequence[int], knots: Knots = "even") -> Row:
    """Median errors of a KAN on each grid and of the MLP."""
    kans, mlps, size = [], [], 0
    for seed in seeds:
        data = data_of(equation, seed)
        model, errors = fit_kan(data, hidden, GRIDS, seed=seed, knots=knots)
        size = count(model)
        kans.append(errors)
        mlps.append(fit_mlp(data, size, ITERATIONS * len(GRIDS), seed=seed))
    medians = [statistics.median(errors) for errors in zip(*kans, strict=True)]
    mlp = statistics.median(mlps)
    best = min(medians)
    return {
        "equation": equation,
        "KAN": str([data.x.shape[1], *hidden, 1]),
        **{f"grid {grid}": f"{median:.1e}" for grid, median in zip(GRIDS, medians, strict=True)},
        "MLP": f"{mlp:.1e}",
        "parameters": size,
        "last / MLP": round(medians[-1] / mlp, 2),
        "better": "KAN" if best < mlp / 1.2 else "MLP" if mlp < best / 1.2 else "tie",
    }


def scaling(seeds: Sequence[int]) -> list[Row]:
    """[2, 1, 1] on the toy formula, grids 3 to 12: the slope of log error over log grid."""
    grids = (3, 6, 12)
    errors = [fit_kan(data_of("toy", seed), (1,), grids, seed=seed)[1] for seed in seeds]
    x = torch.tensor(grids, dtype=torch.float64).log()
    rows: list[Row] = []
    for seed, found in zip(
        [*map(str, seeds), "median"],
        [*errors, [statistics.median(e) for e in zip(*errors, strict=True)]],
        strict=True,
    ):
        y = torch.tensor(found, dtype=torch.float64).log()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        row: Row = {"seed": seed, **{f"grid {g}": f"{e:.1e}" for g, e in zip(grids, found, strict=True)}}
        rows.append(row | {"slope": round(slope.item(), 2), "at most": SLOPE if seed == "median" else ""})
    return rows


def symbols(seeds: Sequence[int]) -> list[Row]:
    """The recipe `kan/toy`, pruned and snapped: which functions, and R2 on test."""
    rows: list[Row] = []
    for seed in seeds:
        result = zoo.train("kan/toy", [f"seed={seed}", f"data.params.seed={seed}"], quiet=True)
        if result.run is None or result.status != "finished":
            raise SystemExit(f"kan/toy, seed {seed}: {result.status}")
        data = data_of("toy", seed)
        x = data.x.float()
        formula, fits = snap(prune(zoo.load_model(result.run.weights), x))
        fit_numbers(formula, data.x, data.y)
        names = [fit.name for found in fits.values() for fit in found.values()]
        with torch.no_grad():
            score = r2(formula(data.test_x), data.test_y)[0]
        rows.append(
            {
                "seed": seed,
                "R2 of the network": f"{result.metrics['test/r2']:.6f}",
                "edges left of 15": len(names),
                "functions": ", ".join(names),
                "R2 of the formula": f"{score:.6f}",
                "above": R2,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = ("toy", "scaling", "symbols", "feynman")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--equations", nargs="+", choices=list(EQUATIONS), default=[e for e in EQUATIONS if e != "toy"]
    )
    parser.add_argument("--knots", choices=list(UNIFORM_SHARE), default="even", help="of feynman")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables: dict[str, list[Row]] = {}
    if "toy" in options.only:
        tables["toy"] = [compare("toy", hidden, options.seeds) for hidden in TOY]
        show(
            f"exp(sin(pi x) + y^2), median of {len(options.seeds)}; at most {BETTER:g} of the MLP's",
            lines(tables["toy"]),
        )
    if "scaling" in options.only:
        tables["scaling"] = scaling(options.seeds)
        show("[2, 1, 1] on the same formula", lines(tables["scaling"]))
    if "symbols" in options.only:
        tables["symbols"] = symbols(options.seeds)
        show("[2, 5, 1] pruned and snapped", lines(tables["symbols"]))
    if "feynman" in options.only:
        tables["feynman"] = [
            compare(name, (5,), options.seeds[:3], options.knots) for name in options.equations
        ]
        show(f"Feynman's equations, median of {len(options.seeds[:3])}", lines(tables["feynman"]))
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, **tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
