"""Aaren against what it replaces: time and memory of a training step, error in float32, cost of decoding.

    python benchmarks/aaren.py [--only training memory errors decoding] [--tokens 512 2048 8192]
        [--threads 1 2] [--repeats 15] [--json PATH]

What is compared runs in one process, in turns, so that a busy machine slows all of it alike; the minimum over
the turns counts. `aaren_scan` meets each rival by itself: what a third one leaves of the caches and of the
allocator's free memory is no matter of either. Times are for forward and backward, from queries, keys and
values on; longer sequences take fewer turns. Peak memory is that of a fresh process, beyond what it held
before the step. It prints the tables of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan
from turns import Row, Step, decoded, keep_freed_memory, one_more_token, pivot, show, show_machine
from zoo_aaren import Aaren, AarenConfig, aaren_combine, aaren_scan

from zoo.bench import in_turns
from zoo.layers.attention import KVCache, SoftmaxAttention
from zoo.layers.config import SoftmaxConfig

BATCH, HEADS, CHANNELS = 8, 4, 32
Tables = dict[str, list[Row]]
PARTS = ("training", "memory", "errors", "decoding")
SDPA, SCAN = "causal SDPA", "torch associative_scan"
OURS = "aaren_scan"
RIVALS = (SDPA, "aaren_scan tree", SCAN)
#: Peak memory is read from what Linux says of a process.
MEASURABLE = Path("/proc/self/clear_refs").exists()
#: Tokens seen before the one that is decoded.
SEEN = (1024, 4096, 16384, 65536)
#: What must be reached, on one thread: at so many tokens so many times faster than this.
BARS = (
    (512, SDPA, 5.0),
    (2048, SDPA, 10.0),
    (8192, SDPA, 10.0),
    (512, SCAN, 1.5),
    (2048, SCAN, 1.5),
    (8192, SCAN, 1.0),
)


def steps(tokens: int) -> dict[str, tuple[Callable[[], Tensor], Callable[[], object]]]:
    """By form, forward alone and forward with backward: a query per token, or one query by three scans."""
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

    def both(forward: Callable[[], Tensor], query: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(forward(), (query, keys, values), gradient)

    forms: dict[str, Callable[[], Tensor]] = {
        "aaren_scan": lambda: aaren_scan(scores(), values),
        "aaren_scan tree": lambda: aaren_scan(scores(), values, impl="tree"),
        SCAN: by_associative_scan,
    }
    scans = {name: (forward, both(forward, query)) for name, forward in forms.items()}
    return {SDPA: (sdpa, both(sdpa, queries)), **scans}


def training(tokens: int, threads: int, repeats: int) -> list[Row]:
    """Milliseconds of each rival and of `aaren_scan` beside it, and how many times faster that is."""
    torch.set_num_threads(threads)
    forms = steps(tokens)
    expected = forms[OURS][0]()
    for name, (forward, _) in forms.items():
        if name != SDPA:  # each token has a query of its own there: another function
            torch.testing.assert_close(forward(), expected, rtol=1e-5, atol=1e-5)
    turns = max(2, repeats * 512 // tokens)
    rows: list[Row] = []
    for rival in RIVALS:
        times = in_turns({name: forms[name][1] for name in (rival, OURS)}, turns)
        other, ours = times[rival], times[OURS]
        rows.append(
            {
                "form": rival,
                "tokens": tokens,
                "threads": threads,
                "wall_ms": round(other.wall, 2),
                "ours_ms": round(ours.wall, 2),
                "times_wall": round(other.wall / ours.wall, 1),
                "times_cpu": round(other.cpu / ours.cpu, 1),
            }
        )
    return rows


def memory(tokens: int) -> list[Row]:
    """Peak memory of one forward and backward."""
    context = multiprocessing.get_context("spawn")
    rows: list[Row] = []
    for name in (OURS, *RIVALS):
        with context.Pool(1) as pool:
            rows.append(
                {"form": name, "tokens": tokens, "peak_mib": round(pool.apply(_peak, (name, tokens)))}
            )
    return rows


def _peak(form: str, tokens: int) -> float:
    """MiB beyond what the process held before the step."""
    torch.set_num_threads(1)
    steps(16)[form][1]()  # what loads with the first call is not the step's
    _, both = steps(tokens)[form]
    before = _resident(reset=True)
    both()
    return _resident() - before


def _resident(*, reset: bool = False) -> float:
    """The most memory of this process so far in MiB (Linux); `reset`: what it holds now, and count anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS" if reset else "VmHWM"].split()[0]) / 1024


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
        "one spike of 500": noise + 500 * (torch.arange(tokens) == tokens // 2),
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
def decoding(seen: int) -> dict[str, Step]:
    """One more token after `seen`: width 512, 8 heads, batch 1, one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    aaren = Aaren(AarenConfig(), width=512, heads=8, causal=True)
    softmax = SoftmaxAttention(SoftmaxConfig(), width=512, heads=8, causal=True)
    context, token = torch.randn(1, seen, 512), torch.randn(1, 1, 512)
    _, state = aaren.step(context, aaren.initial_state(1))
    # A cache of random keys and values: reading the context would take time quadratic in it.
    keys, values = torch.randn(2, 1, 8, seen, 64)
    cache = KVCache(keys, values, torch.tensor([seen]))
    return {
        "Aaren": (partial(aaren.step, token, state), state),
        "softmax with KV cache": (partial(softmax.step, token, cache), cache),
    }


def verdicts(training: Sequence[Row], memory: Sequence[Row]) -> list[list[str]]:
    """What must be reached, what was, and whether."""
    lines = [["bar", "must reach", "measured", ""]]
    found = {(row["tokens"], row["form"]): row for row in training if row["threads"] == 1}
    for tokens, rival, least in BARS:
        if (tokens, rival) in found:
            ratio = float(found[tokens, rival]["times_wall"])
            ends = [f"{least:g}x", f"{ratio:g}x", "reached" if ratio >= least else "missed"]
            lines.append([f"times faster than {rival}, {tokens:,} tokens", *ends])
    peaks = {(row["form"], row["tokens"]): float(row["peak_mib"]) for row in memory}
    for (form, tokens), peak in peaks.items():
        if form == OURS:
            most = peaks[SCAN, tokens]
            ends = [f"{most:g} MiB", f"{peak:g} MiB", "reached" if peak <= most else "missed"]
            lines.append([f"no more memory than {SCAN}, {tokens:,} tokens", *ends])
    return lines


def measure(parts: Sequence[str], tokens: Sequence[int], threads: Sequence[int], repeats: int) -> Tables:
    """The rows of each part."""
    parts_of: dict[str, Callable[[], list[Row]]] = {
        "training": lambda: [row for t in threads for n in tokens for row in training(n, t, repeats)],
        "memory": lambda: [row for n in tokens for row in memory(n)] if MEASURABLE else [],
        "errors": lambda: errors(min(2048, max(tokens))),
        "decoding": lambda: one_more_token({seen: decoding(seen) for seen in SEEN}, 5 * repeats),
    }
    return {part: parts_of[part]() for part in parts}


def report(tables: Tables) -> None:
    """Print what there is, as Markdown."""
    timed = tables.get("training", [])
    for threads in dict.fromkeys(row["threads"] for row in timed):
        title = f"Wall time in ms, and of {OURS} beside it; threads: {threads}"
        rows = [row for row in timed if row["threads"] == threads]
        show(
            title,
            pivot(
                rows,
                "form",
                "tokens",
                lambda row: f"{row['wall_ms']} ({row['ours_ms']}: {row['times_wall']}x)",
            ),
        )
    if peaks := tables.get("memory"):
        title = "Peak memory in MiB beyond the inputs, 1 thread:"
        show(title, pivot(peaks, "form", "tokens", lambda row: str(row["peak_mib"])))
    if timed or peaks:
        show("On 1 thread:", verdicts(timed, peaks or []))
    if "errors" in tables:
        title = "Largest error of aaren_scan in float32:"
        show(title, pivot(tables["errors"], "scores", "tokens", lambda row: str(row["largest_error"])))
    if "decoding" in tables:
        title = "Decoding one token after so many, width 512, 8 heads, 1 thread:"
        show(title, pivot(tables["decoding"], "layer", "seen", decoded))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    keep_freed_memory()
    show_machine()
    tables = measure(options.only, options.tokens, options.threads, options.repeats)
    report(tables)
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, **tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
