"""Needles beyond the length of training: a neural memory and transformers with as many parameters.

    python benchmarks/needle.py [--only memory] [--seeds 0 1 2] [--results PATH] [--figure PATH] [--show]

Trains the recipe `titans/needle`, then `core/transformer` on the same data with rotary positions and without
any, each with a learning rate of its own and as many updates as it needs, and scores the weights on longer
texts: the share in which all four needles are found. The learning rates are those that did best at the length
of training (README).
"""

from __future__ import annotations

from pathlib import Path

from beyond import Comparison, Overrides, main


def transformer(positions: str, *, lr: float, steps: int) -> Overrides:
    params = f"{{depth: 2, heads: 2, positions: {positions}}}"
    return (
        f"model={{name: core/transformer, width: 52, params: {params}}}",
        f"optim.lr={lr}",
        "schedule.warmup_steps=100",
        "data.params={pairs: 4, length: 32, shortest: 16, vocab: 32, examples: 131072, eval_length: 32}",
        f"trainer.max_steps={steps}",
        f"trainer.eval_every_steps={steps}",
    )


NEEDLE = Comparison(
    recipe="titans/needle",
    models={
        "memory": (),
        "rotary": transformer("rope", lr=5e-4, steps=1500),
        "none": transformer("none", lr=1e-3, steps=2000),
    },
    ways={
        "memory": {"titans/lmm": ()},
        "rotary": {"core/transformer, rotary": ()},
        "none": {"core/transformer, no positions": ()},
    },
    lengths={32: (256, 64), 128: (256, 32), 1024: (128, 16), 8192: (16, 2)},
    length_param="eval_length",
    metric="test/exact_match",
    what="texts with all needles found",
    chance=15**-4,
)

if __name__ == "__main__":
    main(NEEDLE, __doc__, Path("runs/needle.jsonl"))
