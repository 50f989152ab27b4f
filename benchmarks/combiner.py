"""Combiner against causal softmax attention: time and memory of a training step, scores, recall in one layer.

    python benchmarks/combiner.py [--only time memory retrieval] [--threads 1] [--repeats 5] [--json PATH]

`--only time` takes two minutes, `--only memory` one, `--only retrieval` ten for each seed. The tables are
those of benchmarks/README.md and of the plugin's README.

Everything to be timed runs in one process, in turns, so that a busy machine slows all of it alike; the
minimum over the turns counts. Times are for forward and backward, from queries, keys and values on: B 1,
H 4, D 64, float32. Memory (on Linux) is the highest of a process of its own for each form, less what it
has before.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from turns import Row, keep_freed_memory, lines, resident, show
from zoo_combiner import combiner_attention

from zoo.bench import in_turns

HEADS, CHANNELS = 4, 64
PLANS = ("fixed", "logsparse", "axial_vertical", "axial_horizontal", "axial_mixture", "axial_rowmajor")
#: Tokens, tokens per block, and what the time may be of that of causal SDPA.
TARGETS: dict[int, tuple[int, dict[str, float]]] = {
    4096: (64, {"fixed": 0.2, "logsparse": 0.75, "axial_vertical": 0.4, "axial_rowmajor": 0.25}),
    16384: (128, {"fixed": 0.1, "logsparse": 0.2, "axial_vertical": 0.3, "axial_rowmajor": 0.2}),
}
#: How many times longer a step may take for twice the tokens, with spans that grow like the root of them.
DOUBLING = 3.9


def inputs(tokens: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Queries, keys and values, and the gradient of the outputs."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, tokens, CHANNELS, requires_grad=True) for _ in range(3))
    return (q, k, v), torch.randn(1, HEADS, tokens, CHANNELS)


def attention(form: str, tokens: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The form by name: a plan, "causal SDPA" or "materialised"."""
    if form == "causal SDPA":
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if form == "materialised":
        return materialised
    size = None if form == "logsparse" else TARGETS[tokens][0]
    return lambda q, k, v: combiner_attention(q, k, v, plan=form, block_size=size)


def materialised(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    return (q @ k.mT / math.sqrt(CHANNELS)).masked_fill(future, -math.inf).softmax(-1) @ v


def step(run: Callable[..., Tensor], leaves: tuple[Tensor, ...], gradient: Tensor) -> None:
    """Forward and backward."""
    torch.autograd.grad(run(*leaves), leaves, gradient)


def times(tokens: int, repeats: int) -> list[Row]:
    """Milliseconds of a step, in turns, and the scores that are computed for each query."""
    leaves, gradient = inputs(tokens)
    runs = {
        form: partial(step, attention(form, tokens), leaves, gradient) for form in ("causal SDPA", *PLANS)
    }
    best = {form: taken.cpu for form, taken in in_turns(runs, repeats).items()}
    rows: list[Row] = []
    for form, cpu in best.items():
        plan = form != "causal SDPA"
        row = {
            "form": form,
            "tokens": f"{tokens:,}",
            "CPU ms": round(cpu, 1),
            "of SDPA": round(cpu / best["causal SDPA"], 3),
            "at most": TARGETS[tokens][1].get(form, ""),
            "scores": f"{counted(form, tokens):,}" if plan else "",
            "by formula": f"{expected(form, tokens):,}" if plan else "",
        }
        rows.append(row)
    return rows


class Scores(TorchDispatchMode):
    """Counts products of a query and a key that end in a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if name == "aten::_softmax":
            self.count += out.numel()
        elif "scaled_dot_product" in name:
            q, k = args[:2]
            self.count += q.shape[:-1].numel() * k.shape[-2]
        return out


def counted(form: str, tokens: int) -> int:
    """Scores of one head, joint and within spans."""
    leaves, _ = inputs(tokens)
    with torch.no_grad(), Scores() as scores:
        attention(form, tokens)(*leaves)
    return scores.count // HEADS


def expected(form: str, tokens: int) -> int:
    """The same by formula: the width of the joint softmax times the tokens, and the local laws.

    A causal model asks for no summary of its last block or row, which leaves out one of n.
    """
    if form == "logsparse":
        levels = (tokens - 1).bit_length()
        return tokens * (levels + 1) + (levels - 1) * tokens // 2  # nobody asks for a right sibling
    s = TARGETS[tokens][0]
    n = tokens // s
    width = {
        "fixed": s + n,
        "axial_rowmajor": s + n,
        "axial_vertical": n + 2 * s,
        "axial_horizontal": s + 3 * n,
        "axial_mixture": 2 * s + 3 * n,
    }[form]
    rows = tokens * s
    local = {
        "fixed": tokens,
        "axial_rowmajor": rows,
        "axial_vertical": tokens * n,
        "axial_horizontal": 2 * rows,
        "axial_mixture": tokens * n + 2 * rows,
    }[form]
    return tokens * width + local


def growth(rows: list[Row]) -> list[Row]:
    """How many times longer a step on 16,384 tokens takes than one on 4,096, and for each doubling."""
    cpu = {(row["form"], row["tokens"]): row["CPU ms"] for row in rows}
    longer = {form: cpu[form, "16,384"] / cpu[form, "4,096"] for form in ("causal SDPA", *PLANS)}
    return [
        {
            "form": form,
            "16,384 over 4,096": round(times, 2),
            "per doubling": round(math.sqrt(times), 2),
            "at most": "" if form == "causal SDPA" else DOUBLING,
        }
        for form, times in longer.items()
    ]


def memory(tokens: int) -> list[Row]:
    """Peak memory of a step beyond the inputs, each form in a process of its own."""
    forms = [*(() if tokens > 4096 else ("materialised",)), "causal SDPA", *PLANS]
    rows: list[Row] = []
    for form in forms:
        command = [sys.executable, __file__, "--peak", form, str(tokens)]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        rows.append({"form": form, "tokens": f"{tokens:,}", "peak MiB": round(peak)})
    sdpa = next(row["peak MiB"] for row in rows if row["form"] == "causal SDPA")
    return [row | {"of SDPA": round(row["peak MiB"] / sdpa, 2)} for row in rows]


def peak(form: str, tokens: int) -> float:
    """MiB that this process needs for one step, after a step on few tokens has loaded the code."""
    torch.set_num_threads(1)
    leaves, gradient = inputs(tokens)
    run = attention(form, tokens)
    small = [x[:, :, :256] for x in leaves]
    torch.autograd.grad(run(*small), leaves, gradient[:, :, :256])
    Path("/proc/self/clear_refs").write_text("5")  # the highest from here on
    before = resident("VmRSS")
    torch.autograd.grad(run(*leaves), leaves, gradient)
    return resident("VmHWM") - before


class OneLayer(nn.Module):
    """Embedding, one attention layer, logits of the last position."""

    def __init__(
        self, plan: str, pooling: str, *, width: int = 64, values: int = 16, tokens: int = 64
    ) -> None:
        super().__init__()
        self.options = {"plan": plan, "pooling": pooling, "block_size": None if plan == "logsparse" else 8}
        self.embedding = nn.Embedding(values, width)
        self.marker = nn.Parameter(torch.randn(width))
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, values)

    def forward(self, ids: Tensor, marked: Tensor) -> Tensor:
        """ids: (B, N), marked: bool (B, N) -> (B, values)."""
        x = self.embedding(ids) + self.positions + marked.unsqueeze(-1) * self.marker
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        if self.options["plan"] == "full":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mixed = combiner_attention(q, k, v, **self.options)
        return self.head(x[:, -1] + self.out(mixed.transpose(1, 2).flatten(2))[:, -1])


def retrieval(plan: str, pooling: str, *, seed: int = 0, steps: int = 500) -> float:
    """Accuracy after training: which of 16 values was marked? 64 tokens, one layer, blocks of 8."""
    torch.manual_seed(seed)
    model = OneLayer(plan, pooling)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)

    def batch(count: int) -> tuple[Tensor, Tensor, Tensor]:
        ids, at = torch.randint(16, (count, 64)), torch.randint(64, (count, 1))
        marked = torch.zeros(count, 64, dtype=torch.bool).scatter(1, at, True)
        return ids, marked, ids.gather(1, at).squeeze(1)

    for _ in range(steps):
        ids, marked, answer = batch(64)
        optimiser.zero_grad()
        F.cross_entropy(model(ids, marked), answer).backward()
        optimiser.step()
    with torch.no_grad():
        ids, marked, answer = batch(2048)
        return (model(ids, marked).argmax(-1) == answer).float().mean().item()


def retrievals(plans: list[str], seeds: list[int]) -> list[Row]:
    """Every form with its summaries, and the same sparse pattern without them."""
    rows: list[Row] = []
    for plan in plans:
        row: Row = {"plan": plan}
        for pooling, name in (("max", "accuracy (above 0.95)"), ("none", "without summaries (below 0.40)")):
            scores = [retrieval(plan, pooling, seed=seed) for seed in seeds]
            row[name] = ", ".join(f"{score:.3f}" for score in scores)
        rows.append(row)
    return rows


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        print(peak(sys.argv[2], int(sys.argv[3])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = ("time", "memory", "retrieval")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument("--tokens", type=int, nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS), help="of the retrieval")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the retrieval")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    tables: dict[str, list[Row]] = {}
    if "time" in options.only:
        tables["time"] = [
            row
            for tokens in options.tokens
            for row in times(tokens, options.repeats * max(TARGETS) // tokens)
        ]
        show(f"Forward and backward, B 1, H {HEADS}, D {CHANNELS}, float32", lines(tables["time"]))
        if set(options.tokens) == set(TARGETS):
            tables["growth"] = growth(tables["time"])
            show("From 4,096 to 16,384 tokens", lines(tables["growth"]))
    if "memory" in options.only:
        tables["memory"] = [row for tokens in options.tokens for row in memory(tokens)]
        show("Peak memory beyond the inputs", lines(tables["memory"]))
    if "retrieval" in options.only:
        tables["retrieval"] = retrievals(options.plans, options.seeds)
        show("Marked-token retrieval in one layer", lines(tables["retrieval"]))
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, **tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
