"""Landmark attention against causal softmax attention: time and memory of a step, and of decoding a token.

    python benchmarks/landmark.py [--only time memory decode] [--threads 1] [--repeats 5] [--json PATH]

Forms to be timed take turns in one process, so that a busy machine slows all of them alike; the minimum over
the turns counts, in CPU time. Times are for forward and backward, from queries, keys and values on, float32,
blocks of 50 and a landmark. Memory is the highest of a process of its own for each form, less what it has
before the step.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from turns import keep_freed_memory, resident
from zoo_landmark import LandmarkAttention, LandmarkConfig, landmark_attention

from zoo.layers import Rotary, SoftmaxAttention, SoftmaxConfig

Row = dict[str, float | int | str]
BLOCK = 50
SHAPES = ((8, 8, 510, 64), (2, 8, 1020, 64), (1, 8, 2040, 64))
MOST = 2.0  # times causal SDPA
CONTEXTS = (1_000, 4_000, 16_000, 64_000)
FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "causal SDPA": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "blocked": lambda q, k, v: landmark_attention(q, k, v, block_len=BLOCK, impl="blocked"),
    "dense": lambda q, k, v: landmark_attention(q, k, v, block_len=BLOCK, impl="dense"),
}


def inputs(shape: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """Queries, keys and values, and the gradient of the outputs."""
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=True) for _ in range(3)], torch.randn(shape)


def times(repeats: int) -> list[Row]:
    """Milliseconds of a step, in turns."""
    rows: list[Row] = []
    for shape in SHAPES:
        leaves, gradient = inputs(shape)
        best = dict.fromkeys(FORMS, math.inf)
        for turn in range(repeats + 1):
            for form, run in FORMS.items():
                if form == "dense" and turn > 1:
                    continue  # slow, and only for comparison
                started = time.process_time()
                torch.autograd.grad(run(*leaves), leaves, gradient)
                if turn:
                    best[form] = min(best[form], 1e3 * (time.process_time() - started))
        for form, cpu in best.items():
            ratio = cpu / best["causal SDPA"]
            row: Row = {
                "(B, H, N, d)": str(shape),
                "form": form,
                "cpu_ms": round(cpu, 1),
                "of_sdpa": round(ratio, 2),
            }
            rows.append(row | ({"at_most": MOST} if form == "blocked" else {}))
    return rows


def memory() -> list[Row]:
    """Peak memory of a step beyond the inputs, each form and length in a process of its own."""
    rows: list[Row] = []
    for form in FORMS:
        for tokens in (1020, 2040) if form == "dense" else (2040, 4080, 8160):
            command = [sys.executable, __file__, "--peak", form, str(tokens)]
            peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rows.append({"form": form, "tokens": tokens, "peak_mib": round(float(peak))})
    return rows


def peak(form: str, tokens: int) -> float:
    """MiB that this process needs for one step of B 1, H 8, after one on few tokens has loaded the code."""
    torch.set_num_threads(1)
    leaves, gradient = inputs((1, 8, tokens, 64))
    small = [x[:, :, :102] for x in leaves]
    torch.autograd.grad(FORMS[form](*small), leaves, gradient[:, :, :102])
    before = resident("VmHWM")
    torch.autograd.grad(FORMS[form](*leaves), leaves, gradient)
    return resident("VmHWM") - before


@torch.no_grad()
def decode(repeats: int, *, width: int = 512, heads: int = 8) -> list[Row]:
    """Microseconds and MiB of state for one more token of one layer, after so many."""
    turn = Rotary(head_width=width // heads)
    layers = {
        "landmark, top_k 4": LandmarkAttention(
            LandmarkConfig(top_k=4), width=width, heads=heads, causal=True, rotary=turn
        ).eval(),
        "softmax, KV cache": SoftmaxAttention(
            SoftmaxConfig(), width=width, heads=heads, causal=True, rotary=turn
        ),
    }
    rows: list[Row] = []
    for name, layer in layers.items():
        state, seen = layer.initial_state(1), 0
        first = 0.0
        for context in CONTEXTS:
            while seen < context:  # prefill, in pieces
                count = min(1_000, context - seen)
                _, state = layer.step(torch.randn(1, count, width), state)
                seen += count
            taken = []
            for _ in range(BLOCK * repeats):  # whole blocks: what happens once a block is in it
                token = torch.randn(1, 1, width)
                started = time.process_time()
                _, state = layer.step(token, state)
                taken.append(1e6 * (time.process_time() - started))
            seen += len(taken)
            mean = sum(taken) / len(taken)
            first = first or mean
            tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(state) if isinstance(leaf, Tensor)]
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            rows.append(
                {
                    "layer": name,
                    "tokens_seen": context,
                    "us_per_token": round(mean),
                    "of_the_first": round(mean / first, 2),
                    "state_mib": round(size / 2**20, 1),
                }
            )
    return rows


def show(title: str, rows: list[Row]) -> None:
    print(f"\n{title}")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    widths = {key: max(len(key), *(len(str(row.get(key, ""))) for row in rows)) for key in keys}
    print("  ".join(key.ljust(width) for key, width in widths.items()))
    for row in rows:
        print("  ".join(str(row.get(key, "")).ljust(width) for key, width in widths.items()), flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        print(peak(sys.argv[2], int(sys.argv[3])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = ("time", "memory", "decode")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tables: dict[str, list[Row]] = {}
    if "time" in options.only:
        keep_freed_memory()
        tables["time"] = times(options.repeats)
        show("Forward and backward, float32, blocks of 50", tables["time"])
    if "memory" in options.only:
        tables["memory"] = memory()
        show("Peak memory beyond the inputs, B 1, H 8, d 64", tables["memory"])
    if "decode" in options.only:
        tables["decode"] = decode(options.repeats)
        show("Decoding a token, width 512, 8 heads", tables["decode"])
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, **tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
