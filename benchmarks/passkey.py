"""Passkeys beyond the length of training: landmark attention and a transformer of equal size.

    python benchmarks/passkey.py [--seeds 0 1 2] [--results PATH] [--figure PATH] [--show]

Trains the recipe `landmark/passkey` and the same with `core/transformer`, then scores the weights on longer
texts. The landmark model is scored three times: as it is, without fetching (it sees its window only), and
with everything in one pass at true positions, as in training.
"""

from __future__ import annotations

from pathlib import Path

from beyond import Comparison, main

PASSKEY = Comparison(
    recipe="landmark/passkey",
    models={
        "landmark": (),
        "transformer": (
            "model={name: core/transformer, width: 64, params: {depth: 2, heads: 2, positions: rope}}",
        ),
    },
    ways={
        "landmark": {
            "landmark/lm, fetching 2 blocks": (),
            "without fetching": ("model.params.attention.top_k=0",),
            "all at true positions": ("model.params.attention.top_k=null",),
        },
        "transformer": {"core/transformer": ()},
    },
    lengths={120: (256, 64), 240: (256, 64), 960: (256, 16), 3840: (64, 4)},
    length_param="length",
    metric="test/accuracy",
    what="passkeys found",
    chance=0.1,
)

if __name__ == "__main__":
    main(PASSKEY, __doc__, Path("runs/passkey.jsonl"))
