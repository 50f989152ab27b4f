"""A passage read again and again: what a Titans model learns from it while no weight of the model changes.

    python examples/learning_at_test_time.py                 # trains titans/reread first: minutes on one core
    python examples/learning_at_test_time.py RUN [--tokens 64] [--times 6] [--passages 128]

Passages of the test text, which the model has never seen, are joined with themselves and read in one go.
Printed are bits per token in each reading: as trained, and with the memory's step set to zero, so that it
learns nothing while reading. Nothing else of the model in `titans/reread` sees further back than the four
tokens of its convolutions, so that what a later reading gains can only come from the memory.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from zoo.layers import Model


def passages(model: Model, tokens: int, count: int) -> Tensor:
    """Stretches of the test text, evenly spread, int64 (count, tokens)."""
    if model.plan.dataset is None or model.plan.targets.kind != "next_id":
        raise SystemExit("this asks for a language model, such as a run of titans/reread")
    splits = zoo.create_dataset(model.plan.dataset.id)
    text = torch.cat([splits.test[i]["input"] for i in range(len(splits.test))])
    if len(text) < tokens * count:
        raise SystemExit(
            f"{count} passages of {tokens} tokens are asked for, but the test text has {len(text)}"
        )
    starts = torch.linspace(0, len(text) - tokens, count).long()
    return torch.stack([text[start : start + tokens] for start in starts])


@torch.inference_mode()
def bits(model: Model, text: Tensor, times: int) -> list[float]:
    """Bits per token in each reading; the first token of a reading is not asked."""
    outputs = model(text.repeat(1, times))
    readings = outputs.unflatten(1, (times, -1))[:, :, :-1]  # (B, times, tokens - 1, vocab)
    return [
        F.cross_entropy(readings[:, i].flatten(0, 1), text[:, 1:].flatten()).item() / math.log(2)
        for i in range(times)
    ]


def stop_learning(model: Model) -> int:
    """Set every memory's step to zero; how many there are."""
    memories = [module for module in model.modules() if hasattr(module, "theta_max")]
    for memory in memories:
        memory.theta_max = 0.0
    return len(memories)


def trained() -> Path:
    """The folder of a run of `titans/reread`."""
    result = zoo.train("titans/reread")
    if result.run is None or result.status != "finished":
        raise SystemExit("the training did not finish")
    return result.run.path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", help="a run folder, or its model.safetensors; none: train one")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a passage")
    parser.add_argument("--times", type=int, default=6, help="how often each is read")
    parser.add_argument("--passages", type=int, default=128)
    options = parser.parse_args()
    model = zoo.load_model(options.run or trained()).eval()
    text = passages(model, options.tokens, options.passages)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = {"learning": bits(model, text, options.times)}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    if stop_learning(model):
        rows["not learning"] = bits(model, text, options.times)
    print(f"bits per token, {options.passages} passages of {options.tokens} tokens")
    print("reading       " + "".join(f"{i + 1:>8}" for i in range(options.times)))
    for name, values in rows.items():
        print(f"{name:14}" + "".join(f"{value:8.3f}" for value in values))


if __name__ == "__main__":
    main()
