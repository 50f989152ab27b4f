"""A neural memory layer against titans-pytorch: training speed, peak memory, and the cost of one more token.

    pip install titans-pytorch      # the other side; without it our own figures are printed alone
    python benchmarks/titans.py [--only training|memory|decoding] [--threads 1] [--repeats 12] [--json PATH]

Width 256, 4 heads of 64 channels, a memory of 2 layers with 128 hidden channels, B 2, 512 tokens, float32.
The other side takes its gradients anew for each chunk, as we do (`batch_size` = `chunk_size`); it gates by
chunk and reads at the ends of chunks, we gate and read at every token; "matched" leaves out what it does not
have, our convolutions and the bound on a token's gradient. CPU time of forward and backward, by
turns in one process, minimum over the turns. Peak memory is that of a process of its own for each figure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from turns import resident
from zoo_titans import MemoryConfig, NeuralMemory

from zoo.bench import in_turns

Row = dict[str, float | int | str]
WIDTH, HEADS, BATCH, TOKENS = 256, 4, 2, 512
CHUNKS = (64, 16, 4)
OTHER = "titans-pytorch"


def ours(chunk: int) -> nn.Module:
    return NeuralMemory(MemoryConfig(chunk=chunk), width=WIDTH, heads=HEADS)


def matched(chunk: int) -> nn.Module:
    """Without what the other side does not have: convolutions, a bound on the surprise."""
    return NeuralMemory(MemoryConfig(chunk=chunk, conv=1, max_surprise=None), width=WIDTH, heads=HEADS)


def theirs(chunk: int) -> nn.Module:
    from titans_pytorch import MemoryMLP, NeuralMemory

    return NeuralMemory(
        dim=WIDTH,
        heads=HEADS,
        dim_head=WIDTH // HEADS,
        chunk_size=chunk,
        batch_size=chunk,
        model=MemoryMLP(WIDTH // HEADS, depth=2, expansion_factor=2.0),
        default_step_transform_max_lr=0.01,
    )


OURS: dict[str, Callable[[int], nn.Module]] = {"ours": ours, "ours, matched": matched}
FORMS = {**OURS, OTHER: theirs}


def forms() -> dict[str, Callable[[int], nn.Module]]:
    """Both sides, or ours alone where the other is not installed."""
    try:
        import titans_pytorch  # noqa: F401
    except ModuleNotFoundError:
        print(f"{OTHER} is not installed (pip install {OTHER}): our figures alone")
        return OURS
    return FORMS


def step_of(module: nn.Module) -> Callable[[], object]:
    """Forward and backward on a fixed input."""
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)

    def step() -> None:
        y = module(x)
        (y if isinstance(y, Tensor) else y[0]).square().sum().backward()

    return step


def training(chunks: tuple[int, ...], repeats: int) -> list[Row]:
    rows: list[Row] = []
    for chunk in chunks:
        torch.manual_seed(0)
        turns = repeats if chunk >= 16 else max(1, repeats // 2)
        times = in_turns({name: step_of(make(chunk)) for name, make in forms().items()}, turns)
        for name, (_, ms) in times.items():
            speed = BATCH * TOKENS / ms * 1e3
            ratio = "" if name == OTHER or OTHER not in times else f"{times[OTHER].cpu / ms:.2f}"
            rows.append(
                {
                    "chunk": chunk,
                    "form": name,
                    "ms": round(ms, 1),
                    "tokens_per_s": round(speed),
                    "x": ratio,
                }
            )
    return rows


def memory(chunks: tuple[int, ...]) -> list[Row]:
    """Peak resident memory of one step in a fresh process, and what importing alone takes.

    Not of the matched form: with a chunk of one token and no bound its memory explodes on this random input.
    """
    rows: list[Row] = []
    for name in forms():
        if name == "ours, matched":
            continue
        for chunk in chunks:
            command = [sys.executable, __file__, "--peak", name, str(chunk)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            rows.append(
                {
                    "form": name,
                    "chunk": chunk,
                    "peak_mib": int(out[1]),
                    "imports_mib": int(out[0]),
                }
            )
    return rows


def peak(name: str, chunk: int) -> None:
    step = step_of(FORMS[name](chunk))
    before = resident("VmHWM")
    step()
    print(round(before), round(resident("VmHWM")))


@torch.inference_mode()
def decoding(seen: tuple[int, ...], repeats: int) -> list[Row]:
    """One more token after a prefill of so many, one stream; and the bytes of the state."""
    layer = ours(16).eval()
    runs, sizes = {}, {}
    for n in seen:
        state = layer.initial_state(1)
        for _ in range(n // 1024):
            _, state = layer.step(torch.randn(1, 1024, WIDTH), state)
        sizes[n] = state.memory.nbytes + state.tail.nbytes
        token = torch.randn(1, 1, WIDTH)
        runs[str(n)] = lambda state=state, token=token: [layer.step(token, state) for _ in range(20)]
    times = in_turns(runs, 4 * repeats)
    return [
        {
            "seen": n,
            "us_per_token": round(50 * times[str(n)].cpu, 1),
            "state_bytes": sizes[n],
        }
        for n in seen
    ]


def show(title: str, rows: list[Row]) -> None:
    print(f"\n{title}")
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    print("  ".join(key.ljust(width) for key, width in widths.items()))
    for row in rows:
        print(
            "  ".join(str(row[key]).ljust(width) for key, width in widths.items()),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["training", "memory", "decoding"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    parser.add_argument("--peak", nargs=2, metavar=("FORM", "CHUNK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        peak(options.peak[0], int(options.peak[1]))
        return
    parts: dict[str, Callable[[], list[Row]]] = {
        "training": lambda: training(CHUNKS, options.repeats),
        "memory": lambda: memory((*CHUNKS, 1)),
        "decoding": lambda: decoding((1024, 4096, 16384, 65536), options.repeats),
    }
    tables = {}
    for name, part in parts.items():
        if options.only in (None, name):
            tables[name] = part()
            show(
                f"{name}: width {WIDTH}, {HEADS} heads, {options.threads} threads",
                tables[name],
            )
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, **tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
