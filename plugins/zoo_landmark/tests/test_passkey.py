"""The paper's claim, small: fetching finds what one pass over a long text, or the window alone, does not."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from zoo.training import evaluate

#: Symbols of a text, eight and thirty-two times those of training; how many texts, and how many at a time.
LENGTHS = {960: (64, 16), 3840: (32, 4)}


@pytest.mark.slow
def test_passkeys_are_found_at_thirty_two_times_the_length_of_training(tmp_path: Path) -> None:
    result = zoo.train("landmark/passkey", [f"output.dir={tmp_path}"], quiet=True)
    assert result.run is not None

    def found(length: int, *changes: str) -> float:
        texts, batch = LENGTHS[length]
        data = {"length": length, "eval_examples": texts, "examples": 1}
        overrides = [f"data.params.{name}={value}" for name, value in data.items()]
        overrides += [f"data.eval_batch_size={batch}", *changes]
        return evaluate(result.run, overrides=overrides, quiet=True).metrics["test/accuracy"]

    assert found(960) > 0.95 and found(3840) > 0.95
    assert found(960, "model.params.attention.top_k=0") < 0.3  # the window alone
    assert found(3840, "model.params.attention.top_k=null") < 0.4  # one pass at true positions
