"""Lightning attention against what it replaces: training time and its growth, cost of one more token.

    python benchmarks/transnormer.py [--only training|growth|decoding] [--threads 1] [--repeats 5]
                                      [--json PATH]

What is compared runs in one process, in turns, so that a busy machine slows all of it alike; the minimum over
the turns counts. `lightning_attention` meets each rival by itself: what a third one leaves of the caches and
of the allocator's free memory is no matter of either. Times are wall times of forward and backward, B 1, H 8,
D 64, float32. It prints the tables of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from turns import Row, Step, decoded, keep_freed_memory, lines, one_more_token, pivot, show, show_machine
from zoo_transnormer import decay_slopes, lightning_attention, lightning_attention_step

from zoo.bench import in_turns
from zoo.layers import attend

HEADS, CHANNELS = 8, 64
SLOPES = decay_slopes(HEADS)
#: Tokens per block of the published PyTorch form.
BLOCK = 256


def block_loop(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
    """The published way without kernels: a loop over blocks of 256 tokens, each a slice of the inputs.

    Written anew from its description (TransNormerLLM's and MiniMax's Hugging Face models work like this).
    """
    rate = slopes.view(1, -1, 1, 1)
    place = torch.arange(1, BLOCK + 1).view(-1, 1)
    age = place - place.T
    within = torch.where(age >= 0, (-rate * age.clamp_min(0)).exp(), 0.0)
    since, until = (-rate * place).exp(), (-rate * (BLOCK - place)).exp()
    state = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3])
    out = torch.empty_like(v)
    for start in range(0, q.shape[2], BLOCK):
        stop = min(start + BLOCK, q.shape[2])
        m = stop - start
        qi, ki, vi = q[:, :, start:stop], k[:, :, start:stop], v[:, :, start:stop]
        inner = (qi @ ki.mT * within[..., :m, :m]) @ vi
        out[:, :, start:stop] = inner + (qi * since[:, :, :m]) @ state
        state = (-rate * m).exp() * state + (ki * until[:, :, BLOCK - m :]).mT @ vi
    return out


def sdpa(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
    """Causal softmax attention, torch's own."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def ours(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
    return lightning_attention(q, k, v, slopes)[0]


def in_torch(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
    """The same in tensor operations alone."""
    return lightning_attention(q, k, v, slopes, backend="torch")[0]


BLOCKS, SDPA = "block loop, 256", "causal SDPA"
RIVALS = {'lightning_attention(backend="torch")': in_torch, BLOCKS: block_loop, SDPA: sdpa}
#: What must be reached, on one thread: at so many tokens so many times faster than this.
BARS = ((1024, BLOCKS, 2.0), (8192, BLOCKS, 3.0), (1024, SDPA, 5.0), (8192, SDPA, 20.0))


def step_of(form: Callable[..., Tensor], tokens: int) -> Callable[[], object]:
    """Forward and backward on fixed inputs."""
    torch.manual_seed(0)
    q, k, v, gradient = (torch.randn(1, HEADS, tokens, CHANNELS) for _ in range(4))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    return lambda: torch.autograd.grad(form(*leaves, SLOPES), leaves, gradient)


def training(tokens: tuple[int, ...], repeats: int) -> list[Row]:
    """Each rival at each length, ours beside it, and how many times faster that is."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, 600, CHANNELS) for _ in range(3))
    for form in (in_torch, block_loop):
        torch.testing.assert_close(ours(q, k, v, SLOPES), form(q, k, v, SLOPES), rtol=1e-4, atol=1e-3)
    rows: list[Row] = []
    for n in tokens:
        # Short runs are hurt most by what else the machine does: more turns for them.
        turns = repeats * 8192 // n
        for name, form in RIVALS.items():
            times = in_turns({name: step_of(form, n), "ours": step_of(ours, n)}, turns)
            other, mine = times[name].wall, times["ours"].wall
            rows.append(
                {
                    "form": name,
                    "tokens": n,
                    "ms": round(other, 1),
                    "ours_ms": round(mine, 1),
                    "times": round(other / mine, 1),
                }
            )
    return rows


def beside(row: Row) -> str:
    return f"{row['ms']:,} ({row['ours_ms']:,}: {row['times']}x)"


def bars(rows: list[Row]) -> list[Row]:
    """What must be reached, and what was."""
    found = {(row["tokens"], row["form"]): row["times"] for row in rows}
    return [
        {
            "times faster than": f"{rival}, {tokens:,} tokens",
            "must reach": f"{bar:g}x",
            "measured": f"{found[tokens, rival]}x",
            "": "reached" if found[tokens, rival] >= bar else "missed",
        }
        for tokens, rival, bar in BARS
    ]


def growth(tokens: tuple[int, ...], repeats: int) -> list[Row]:
    """Ours over a range of lengths, all in turns; the exponent is the slope of log time over log tokens."""
    times = [time.wall for time in in_turns({str(n): step_of(ours, n) for n in tokens}, repeats).values()]
    x = torch.tensor([math.log(n) for n in tokens], dtype=torch.float64)
    y = torch.tensor([math.log(ms) for ms in times], dtype=torch.float64)
    exponent = (((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()).item()
    rows: list[Row] = [
        {"tokens": n, "ms": round(ms, 1), "µs per token": round(1e3 * ms / n, 1)}
        for n, ms in zip(tokens, times, strict=True)
    ]
    ratio = times[tokens.index(8192)] / times[tokens.index(4096)]
    end: Row = {"tokens": "exponent (must stay under 1.1)", "ms": round(exponent, 3)}
    return [*rows, end, {"tokens": "8,192 over 4,096 (under 2.2)", "ms": round(ratio, 2)}]


@torch.inference_mode()
def decoding(seen: int) -> dict[str, Step]:
    """One more token after `seen`, by a prefill of that length; and the same of attention with a KV cache."""
    torch.manual_seed(0)
    token = torch.randn(1, HEADS, CHANNELS)
    q, k, v = (torch.randn(1, HEADS, seen, CHANNELS) for _ in range(3))
    _, state = lightning_attention(q, k, v, SLOPES, output_final_state=True)
    assert state is not None
    return {
        "lightning": (partial(lightning_attention_step, token, token, token, SLOPES, state), [state]),
        "softmax with KV cache": (partial(attend, token.unsqueeze(2), k, v, causal=True), [k, v]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["training", "growth", "decoding"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    show_machine()
    parts: dict[str, Callable[[], list[Row]]] = {
        "training": lambda: training((1024, 8192), options.repeats),
        "growth": lambda: growth((1024, 2048, 4096, 8192, 16384, 32768), options.repeats),
        "decoding": lambda: one_more_token(
            {seen: decoding(seen) for seen in (1024, 4096, 16384, 65536)}, 20 * options.repeats
        ),
    }
    tables = {name: part() for name, part in parts.items() if options.only in (None, name)}
    threads = f"{options.threads} thread{'s' * (options.threads > 1)}"
    if "training" in tables:
        title = f"Forward and backward in ms, and of lightning_attention beside it; {threads}:"
        show(title, pivot(tables["training"], "form", "tokens", beside))
        show("Bars, for one thread:", lines(bars(tables["training"])))
    if "growth" in tables:
        show(f"Growth, {threads}:", lines(tables["growth"]))
    if "decoding" in tables:
        title = f"Decoding one token after so many, {threads}:"
        show(title, pivot(tables["decoding"], "layer", "seen", decoded))
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, **tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
