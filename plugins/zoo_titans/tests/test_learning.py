"""A trained model learns a passage that it has never seen by reading it, and only by its memory."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

import zoo
from zoo.layers import Model
from zoo.plugin import Ids, NextId

EXAMPLE = Path(__file__).parents[3] / "examples" / "learning_at_test_time.py"
VOCAB, PASSAGE, TIMES = 24, 24, 3


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("learning_at_test_time", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained(steps: int) -> Model:
    """A memory alone, trained on passages of random symbols that are read three times."""
    torch.manual_seed(0)
    model = zoo.create_model(
        "titans/lmm",
        inputs=Ids(vocab=VOCAB, length=TIMES * PASSAGE),
        targets=NextId(vocab=VOCAB),
        width=32,
        depth=1,
        heads=1,
        mixer_params={"titans/memory": {"init": "recall", "chunk": 8, "alpha_init": 1e-4}},
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        text = torch.randint(VOCAB, (16, PASSAGE)).repeat(1, TIMES)
        loss = F.cross_entropy(model(text)[:, :-1].flatten(0, 1), text[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def test_the_loss_falls_with_every_reading_and_stays_where_the_memory_may_not_learn(
    example: ModuleType,
) -> None:
    model = trained(60)
    text = torch.randint(VOCAB, (64, PASSAGE), generator=torch.Generator().manual_seed(1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learning = example.bits(model, text, TIMES)
    assert learning[1] < 0.9 * learning[0] and learning[2] < learning[1]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert example.stop_learning(model) == 1
    still = example.bits(model, text, TIMES)
    assert max(still) - min(still) < 0.05


@pytest.mark.slow
def test_a_language_model_learns_a_passage_of_real_text(example: ModuleType, tmp_path: Path) -> None:
    result = zoo.train("titans/reread", [f"output.dir={tmp_path}"], quiet=True)
    assert result.run is not None
    model = zoo.load_model(result.run.path)
    text = example.passages(model, 64, 64)
    learning = example.bits(model, text, TIMES)
    assert learning[2] < learning[1] < learning[0] - 0.2
    example.stop_learning(model)
    still = example.bits(model, text, TIMES)
    assert max(still) - min(still) < 0.01
