"""sigmaReparam against plain layers: a training step, inference, conversion, collapse, and the entropy bound.

    python benchmarks/sigmareparam.py [--parts step inference convert bound] [--repeats 5] [--json PATH]
    python benchmarks/sigmareparam.py --parts collapse [--figure PATH]         # trains six models, minutes

Both models run in one process, in turns, so that a busy machine slows both alike; the least of the turns
counts.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from turns import Row, lines, show

import zoo
from zoo import torchvision_shim
from zoo.bench import in_turns

torchvision_shim.install()

import timm  # noqa: E402
from zoo_sigmareparam import (  # noqa: E402
    apply_sigma_reparam,
    attention_entropy,
    entropy_lower_bound,
    fold_sigma_reparam_,
)

CASES = 10_000
ENTROPY = "train/attention_entropy_lowest"
#: What the runs of `collapse` logged, for the figure.
CURVES: dict[str, list[dict[str, float]]] = {}


def cost(what: str, must: str, *, ratio: float | str = "", **seconds: float) -> Row:
    """A line of the table of costs."""
    shown = {
        name: f"{seconds[name]:.3g} s" if name in seconds else "" for name in ("plain", "converted", "folded")
    }
    ratio = f"{ratio:.3f}" if isinstance(ratio, float) else ratio
    return {"": what, **shown, "ratio to plain": ratio, "must reach": must}


def step(repeats: int) -> list[Row]:
    """A training step of ViT-Ti/16 at 224 x 224, batch 16, norms kept: forward, backward, AdamW."""
    plain = timm.create_model("vit_tiny_patch16_224").train()
    converted = copy.deepcopy(plain)
    apply_sigma_reparam(converted)
    x, y = torch.randn(16, 3, 224, 224), torch.randint(1000, (16,))

    def train(model: torch.nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def one() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

        return one

    times = in_turns({"plain": train(plain), "converted": train(converted)}, repeats)
    best = {name: time.wall / 1e3 for name, time in times.items()}
    what = "training step, ViT-Ti/16, batch 16, norms kept"
    return [cost(what, "at most 1.10", ratio=best["converted"] / best["plain"], **best)]


def inference(repeats: int) -> list[Row]:
    """The same model evaluated on 16 images: converted, and folded."""
    plain = timm.create_model("vit_tiny_patch16_224").eval()
    converted = copy.deepcopy(plain)
    apply_sigma_reparam(converted)
    folded = fold_sigma_reparam_(copy.deepcopy(converted))
    x = torch.randn(16, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(folded(x), converted(x))
        models = {"plain": plain, "converted": converted, "folded": folded}
        times = in_turns({name: partial(model, x) for name, model in models.items()}, repeats)
    best = {name: time.wall / 1e3 for name, time in times.items()}
    return [cost("inference, the same model", "folded 1", ratio=best["folded"] / best["plain"], **best)]


def convert(repeats: int) -> list[Row]:
    """Converting a ViT-B/16: power iterations, no SVD."""
    times = []
    for _ in range(max(1, repeats // 2)):
        model = timm.create_model("vit_base_patch16_224")
        started = time.perf_counter()
        apply_sigma_reparam(model)
        times.append(time.perf_counter() - started)
    return [cost("converting a ViT-B/16", "under 2 s", converted=min(times))]


def bound(repeats: int) -> list[Row]:
    """Theorem 3.1 on random tokens and weights: the smallest distance between entropy and bound."""
    generator = torch.Generator().manual_seed(0)
    least, violated = math.inf, 0
    for _ in range(CASES):
        keys, width = (int(torch.randint(a, b, (), generator=generator)) for a, b in ((2, 41), (1, 17)))
        size = 10 ** (2.5 * torch.rand((), generator=generator).item() - 2)
        shapes = ((keys, width), (width, width), (width, width))
        x, w_q, w_k = (size * torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
        total = torch.linalg.matrix_norm(w_k @ w_q.T, 2) * torch.linalg.matrix_norm(x @ x.T, 2)
        logits = (x @ w_k @ w_q.T @ x.T)[None, None]
        gap = (attention_entropy(logits=logits, reduce=None).min() - entropy_lower_bound(total, keys)).item()
        least, violated = min(least, gap), violated + (gap < -1e-9)
    return [{"random cases": CASES, "violated": violated, "least distance": f"{least:.1g}"}]


def collapse(repeats: int) -> list[Row]:
    """The recipe `sigmareparam/recall_collapse` with and without its transform, three seeds each.

    The lowest entropy of a layer is that at the end.
    """
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        for seed in range(3):
            for name, override in (("plain", ["transforms.sigmareparam=null"]), ("converted", [])):
                options = [f"seed={seed}", f"output.dir={folder}", *override]
                result = zoo.train("sigmareparam/recall_collapse", options, quiet=True)
                assert result.run is not None
                with result.run.metrics.open() as file:
                    logged = [
                        {key: float(value) for key, value in row.items() if value}
                        for row in csv.DictReader(file)
                    ]
                CURVES[f"{name}, seed {seed}"] = logged
                rows.append(
                    {
                        "model": name,
                        "seed": seed,
                        "test loss (chance 2.77)": round(result.metrics["test/loss"], 2),
                        "lowest entropy of a layer at the end, nats": round(
                            [row[ENTROPY] for row in logged if ENTROPY in row][-1], 2
                        ),
                        "must reach": "above 2.5, under 0.3" if name == "plain" else "below 2.5, above 1.0",
                    }
                )
    return rows


def draw_collapse(picture: Path) -> None:
    """Loss and lowest entropy of both models in one figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = zip(figure.subplots(1, 2), ("val/loss", ENTROPY), strict=True)
    for axis, column in panels:
        for name, logged in CURVES.items():
            points = [(row["step"], row[column]) for row in logged if column in row]
            colour = "C3" if name.startswith("plain") else "C0"
            label = name.partition(",")[0] if name.endswith("seed 0") else None
            axis.plot(*zip(*points, strict=True), color=colour, label=label)
        axis.set(xlabel="step", title=column, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle("recall at learning rate 0.01, no warm-up, three seeds")
    figure.savefig(picture, dpi=90)


TITLES = {
    "bound": "The entropy bound (theorem 3.1)",
    "collapse": "sigmareparam/recall_collapse with its transform and without",
}
PARTS = {"step": step, "inference": inference, "convert": convert, "bound": bound, "collapse": collapse}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[p for p in PARTS if p != "collapse"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    parser.add_argument("--figure", type=Path, help="draw the curves of the part collapse here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tables: dict[str, list[Row]] = {}
    for part in options.parts:
        tables.setdefault(TITLES.get(part, f"Cost, {options.threads} threads"), []).extend(
            PARTS[part](options.repeats)
        )
    for title, rows in tables.items():
        show(f"{title}:", lines(rows))
    if options.figure and CURVES:
        draw_collapse(options.figure)
    if options.json:
        options.json.write_text(json.dumps(tables, indent=2) + "\n")


if __name__ == "__main__":
    main()
