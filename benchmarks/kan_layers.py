"""KAN layers against other formulations and an MLP of equal parameters: time and memory of a training step.

    python benchmarks/kan_layers.py [--only time memory] [--batch 1024] [--threads 1] [--repeats 15]

A minute and a half, most of it compiling; the tables of benchmarks/README.md. A stack [784, 64, 10],
grid 5, cubic, float32; forward and backward with gradients of the input. All forms run in one process, in
turns of two steps: the second, which follows a step of its own form as in training, counts, and the least of
all turns; "cold" is the first, after another form has filled the caches. pykan is measured where it is
installed (`pip install pykan`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turns import Row, keep_freed_memory, lines, show, show_machine
from zoo_kan import KANLinear

from zoo.bench import Time, laps

SIZES = (784, 64, 10)
INTERVALS, ORDER = 5, 3
OURS, PLAIN, PYKAN, MLP = "KANLinear", "efficient-kan's formulation", "pykan", "MLP of equal parameters"
COMPILED = "{}, compiled"
COLD, WARM = "cold", "warm"
#: (a, b, times, sense): the time of a is at least or at most so many times that of b.
BARS = (
    (PLAIN, OURS, 4.0, "at least"),
    (PYKAN, OURS, 20.0, "at least"),
    (OURS, MLP, 3.0, "at most"),
    (COMPILED.format(OURS), COMPILED.format(MLP), 1.8, "at most"),
)
#: Of what efficient-kan's formulation keeps for the way back.
MEMORY = 1 / 5


class Plain(nn.Module):
    """efficient-kan's formulation, from its published description.

    The recursion in plain operations on (N, I, functions), shared by all outputs, then one product; a base
    branch on silu(x); a scale of each edge.
    """

    grid: Tensor

    def __init__(self, like: KANLinear) -> None:
        super().__init__()
        self.base = nn.Parameter(like.base_weight.detach().clone())  # type: ignore[union-attr]
        self.coef = nn.Parameter(like.coef.detach().clone())
        self.scale = nn.Parameter(torch.ones_like(self.base))
        self.register_buffer("grid", like.basis.grid.float())

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, I) -> (N, O)."""
        t, x_ = self.grid, x.unsqueeze(-1)
        basis = ((x_ >= t[:, :-1]) & (x_ < t[:, 1:])).to(x.dtype)
        for p in range(1, ORDER + 1):
            left = (x_ - t[:, : -p - 1]) / (t[:, p:-1] - t[:, : -p - 1])
            right = (t[:, p + 1 :] - x_) / (t[:, p + 1 :] - t[:, 1:-p])
            basis = left * basis[..., :-1] + right * basis[..., 1:]
        weights = self.coef * self.scale.unsqueeze(-1)
        return F.linear(F.silu(x), self.base) + F.linear(basis.flatten(1), weights.flatten(1))


def models() -> dict[str, nn.Module]:
    """Every form by name; ours and efficient-kan's with the same weights."""
    torch.manual_seed(0)
    ours = nn.Sequential(
        *(KANLinear(i, o, grid_intervals=INTERVALS, order=ORDER) for i, o in pairwise(SIZES))
    )
    parameters = count(ours)
    hidden = round((parameters - SIZES[-1]) / (SIZES[0] + SIZES[-1] + 1))
    found: dict[str, nn.Module] = {
        OURS: ours,
        PLAIN: nn.Sequential(*(Plain(layer) for layer in ours)),  # type: ignore[arg-type]
        MLP: nn.Sequential(nn.Linear(SIZES[0], hidden), nn.SiLU(), nn.Linear(hidden, SIZES[-1])),
    }
    if importlib.util.find_spec("kan") is not None:
        from kan.MultKAN import MultKAN  # type: ignore[import-untyped]

        pykan = MultKAN(list(SIZES), grid=INTERVALS, k=ORDER, symbolic_enabled=False, auto_save=False)
        found[PYKAN] = pykan.speed()
    return found


def count(model: nn.Module) -> int:
    """Parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def step(model: Callable[[Tensor], Tensor], leaves: list[Tensor]) -> None:
    """Forward and backward; leaves: x, then parameters."""
    torch.autograd.grad(model(leaves[0]).square().mean(), leaves, allow_unused=True)


def two_steps(model: Callable[[Tensor], Tensor], leaves: list[Tensor]) -> Iterator[str]:
    """A turn of a form."""
    step(model, leaves)
    yield COLD
    step(model, leaves)
    yield WARM


def leaves_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    return [x, *(p for p in model.parameters() if p.requires_grad)]


def times(batch: int, repeats: int) -> tuple[list[Row], list[Row]]:
    """Milliseconds of a step of each form, and the bars."""
    x = (2 * torch.rand(batch, SIZES[0]) - 1).requires_grad_()
    eager = models()
    torch.testing.assert_close(eager[OURS](x), eager[PLAIN](x), rtol=1e-4, atol=1e-5)
    forms: dict[str, Callable[[Tensor], Tensor]] = dict(eager)
    forms |= {COMPILED.format(name): torch.compile(eager[name]) for name in (OURS, MLP)}
    leaves = {name: leaves_of(eager[name.split(",")[0]], x) for name in forms}
    runs = {name: partial(two_steps, forms[name], leaves[name]) for name in forms}
    slow = {name: runs.pop(name) for name in list(runs) if name == PYKAN}
    best = {**least(runs, repeats), **least(slow, 2)}
    own = {name: best[name][WARM].cpu for name in forms}
    rows: list[Row] = [
        {
            "form": name,
            "parameters": f"{sum(p.numel() for p in leaves[name][1:]):,}",
            "CPU ms": round(own[name], 1),
            "wall ms": round(best[name][WARM].wall, 1),
            "cold, CPU ms": round(best[name][COLD].cpu, 1),
            "of KANLinear's": round(own[name] / own[OURS], 2),
        }
        for name in forms
    ]
    bars: list[Row] = []
    for a, b, bar, sense in BARS:
        if a in own and b in own:
            ratio = own[a] / own[b]
            reached = ratio >= bar if sense == "at least" else ratio <= bar
            bars.append(
                {
                    "ratio": f"{a} / {b}",
                    "is": round(ratio, 2),
                    "cold": round(best[a][COLD].cpu / best[b][COLD].cpu, 2),
                    "must be": f"{sense} {bar:g}",
                    "reached": "yes" if reached else "no",
                }
            )
    return rows, bars


def least(runs: Mapping[str, Callable[[], Iterator[str]]], repeats: int) -> dict[str, dict[str, Time]]:
    """The least times of so many turns."""
    return next(islice(laps(runs), repeats - 1, None)) if runs else {}


def kept(model: nn.Module, x: Tensor) -> float:
    """MiB that a forward pass keeps for the way back, but for weights, buffers and the input."""
    known = {t.untyped_storage().data_ptr() for t in (x, *model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)  # kept alive, so that no storage is counted twice
    del y
    return sum(found.values()) / 2**20


def memory(batch: int) -> list[Row]:
    """What each form keeps, and as a share of efficient-kan's formulation."""
    x = (2 * torch.rand(batch, SIZES[0]) - 1).requires_grad_()
    mib = {name: kept(model, x) for name, model in models().items()}
    return [
        {
            "form": name,
            "MiB kept": round(each, 1),
            "of efficient-kan's": round(each / mib[PLAIN], 3),
            "at most": MEMORY if name == OURS else "",
        }
        for name, each in mib.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = ("time", "memory")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tables: dict[str, list[Row]] = {}
    if "time" in options.only:
        keep_freed_memory()
        show_machine()
        tables["time"], tables["bars"] = times(options.batch, options.repeats)
        show(f"Forward and backward, {list(SIZES)}, batch {options.batch}", lines(tables["time"]))
        show("Bars", lines(tables["bars"]))
    if "memory" in options.only:
        tables["memory"] = memory(options.batch)
        show("Kept for the way back", lines(tables["memory"]))
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, **tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
