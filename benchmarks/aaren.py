"""Aaren against what it replaces: time to train a step, error in float32, cost of decoding one more token.

    python benchmarks/aaren.py [--tokens 512 2048] [--threads 1 2] [--repeats 15] [--json PATH]

Everything to be compared runs in one process, in turns, so that a busy machine slows all of it alike; the
minimum over the turns counts. Times are for forward and backward, from queries, keys and values on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan
from zoo_aaren import Aaren, AarenConfig, aaren_combine, aaren_scan

from zoo.layers.attention import SoftmaxAttention
from zoo.layers.config import SoftmaxConfig

Row = dict[str, float | int | str]
BATCH, HEADS, CHANNELS = 8, 4, 32


def in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Milliseconds (wall clock, CPU time of the process): the least of `repeats` turns after a warm-up."""
    best = {name: (math.inf, math.inf) for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            wall, cpu = 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)
            if turn:
                best[name] = (min(best[name][0], wall), min(best[name][1], cpu))
    return best


def training(tokens: int, threads: int, repeats: int) -> list[Row]:
    """Causal attention with a query per token, and one query over all prefixes by three scans."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = (BATCH, HEADS, tokens, CHANNELS)
    queries, keys, values = (torch.randn(shape, requires_grad=True) for _ in range(3))
    query, gradient = torch.randn(HEADS, CHANNELS, requires_grad=True), torch.randn(shape)

    def scores() -> Tensor:
        return (keys @ query.unsqueeze(-1)).squeeze(-1) / math.sqrt(CHANNELS)

    def sdpa() -> Tensor:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)

    def by_associative_scan() -> Tensor:
        s = scores()
        leaves = (s, torch.ones_like(s), values)
        _, u, w = associative_scan(lambda a, b: tuple(aaren_combine(a, b)), leaves, 2, combine_mode="generic")
        return w / u.unsqueeze(-1)

    def backward(forward: Callable[[], Tensor], query: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(forward(), (query, keys, values), gradient)

    forms: dict[str, Callable[[], Tensor]] = {
        "aaren_scan": lambda: aaren_scan(scores(), values),
        "aaren_scan tree": lambda: aaren_scan(scores(), values, impl="tree"),
        "torch associative_scan": by_associative_scan,
    }
    for form in forms.values():
        torch.testing.assert_close(form(), forms["aaren_scan"](), rtol=1e-5, atol=1e-5)
    runs = {"causal SDPA": backward(sdpa, queries)}
    times = in_turns(runs | {name: backward(form, query) for name, form in forms.items()}, repeats)
    base_wall, base_cpu = times["causal SDPA"]
    return [
        {
            "form": name,
            "tokens": tokens,
            "threads": threads,
            "wall_ms": round(wall, 2),
            "cpu_ms": round(cpu, 2),
            "faster_wall": round(base_wall / wall, 1),
            "faster_cpu": round(base_cpu / cpu, 1),
        }
        for name, (wall, cpu) in times.items()
    ]


def errors(tokens: int) -> list[Row]:
    """Largest error of a float32 scan against float64, for values of size 1."""
    torch.manual_seed(0)
    noise, values = torch.randn(2, 4, tokens), torch.randn(2, 4, tokens, CHANNELS)
    regimes = {
        "normal": noise,
        "30 x normal": 30 * noise,
        "rising 0 to 400": noise + torch.linspace(0, 400, tokens),
        "falling 400 to 0": noise + torch.linspace(400, 0, tokens),
        "all near 500": noise + 500,
        "all near -500": noise - 500,
    }
    return [
        {
            "scores": name,
            "tokens": tokens,
            "largest_error": f"{(aaren_scan(s, values) - exact(s, values)).abs().max().item():.1e}",
        }
        for name, s in regimes.items()
    ]


def exact(scores: Tensor, values: Tensor) -> Tensor:
    """The softmax over each prefix as a masked matrix, in float64."""
    future = torch.ones(scores.shape[-1], scores.shape[-1], dtype=torch.bool).triu(1)
    weights = scores.double().unsqueeze(-2).masked_fill(future, -math.inf).softmax(-1)
    return weights @ values.double()


@torch.inference_mode()
def decoding(seen: int, repeats: int) -> list[Row]:
    """One more token after `seen`: width 512, 8 heads, batch 1, one thread.

    One layer after the other, not in turns: a large KV cache would push the other layer out of the CPU's.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers: dict[str, Any] = {
        "Aaren": Aaren(AarenConfig(), width=512, heads=8, causal=True),
        "softmax with KV cache": SoftmaxAttention(SoftmaxConfig(), width=512, heads=8, causal=True),
    }
    context, token = torch.randn(1, seen, 512), torch.randn(1, 1, 512)
    rows: list[Row] = []
    for name, layer in layers.items():
        _, state = layer.step(context, layer.initial_state(1))
        wall, _ = in_turns({name: partial(layer.step, token, state)}, 5 * repeats)[name]
        size = sum(part.nbytes for part in state) / 1024
        rows.append({"layer": name, "seen": seen, "wall_us": round(1e3 * wall), "state_kib": round(size, 2)})
    return rows


def show(title: str, rows: list[Row]) -> None:
    print(f"\n{title}")
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    print("  ".join(key.ljust(width) for key, width in widths.items()))
    for row in rows:
        print("  ".join(str(row[key]).ljust(width) for key, width in widths.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    tables = {
        "training": [
            row
            for threads in options.threads
            for tokens in options.tokens
            for row in training(tokens, threads, options.repeats)
        ],
        "errors": errors(max(options.tokens)),
        "decoding": [row for seen in (128, 1024, 4096, 16384) for row in decoding(seen, options.repeats)],
    }
    show(f"Forward and backward, B {BATCH}, H {HEADS}, D {CHANNELS}, float32", tables["training"])
    show("Error in float32", tables["errors"])
    show("Decoding one token", tables["decoding"])
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, **tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
