"""Weights and modules, stored and brought back."""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.testing.measure import require, require_close
from zoo.testing.subject import ModelSubject, Subject
from zoo.testing.whole import batch_of, build_whole


def check_state_dict(subject: Subject) -> None:
    module, fresh = (subject.build(seed=seed, dtype=torch.float32) for seed in (0, 1))
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    _require_same(subject, fresh, module, "another instance with the loaded weights")


def check_copies(subject: Subject) -> None:
    module = subject.build(dtype=torch.float32)
    expected = _run(subject, module)
    for what, twin in (
        ("deepcopy", copy.deepcopy(module)),
        ("pickle", pickle.loads(pickle.dumps(module))),
    ):
        require_close(_run(subject, twin), expected, 0.0, what)
        with torch.no_grad():
            for tensor in [*twin.parameters(), *twin.buffers()]:
                tensor.zero_()
        require_close(_run(subject, module), expected, 0.0, f"after the {what} was changed, the original")


def check_weights_file(subject: Subject) -> None:
    if not isinstance(subject, ModelSubject):
        return
    from zoo.layers.weights import load_weights, save_weights

    model = build_whole(subject).eval()
    x, _ = batch_of(model.plan, 3)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.safetensors"
        save_weights(model, path, catalogue=subject.catalogue)
        again = load_weights(path, catalogue=subject.catalogue)
        require(again.plan.to_dict() == model.plan.to_dict(), "the plan in the file is another one")
        require_close(again(x), model(x), 0.0, "the model from its file")


def _run(subject: Subject, module: nn.Module) -> Tensor:
    with torch.no_grad():
        return subject.run(module, subject.sample(2, subject.lengths(9)[-1]))


def _require_same(subject: Subject, found: nn.Module, expected: nn.Module, what: str) -> None:
    require_close(_run(subject, found), _run(subject, expected), 0.0, what)
