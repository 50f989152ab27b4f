"""torch.export and torch.compile against eager."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.sharing import graph
from zoo.sharing.verify import verify
from zoo.testing.check import NotApplicable
from zoo.testing.measure import CLOSE, gradients_of, require_close, require_same_gradients, weights_like
from zoo.testing.subject import ModelSubject, Subject
from zoo.testing.whole import build_whole


def check_exports(subject: Subject) -> None:
    for causal in subject.directions:
        module = subject.build(causal=causal)
        n = subject.lengths(33)[-1]
        x = subject.sample(2, n, dtype=torch.float64)
        with torch.no_grad():
            exported = torch.export.export(module, (x,)).module()
            other = subject.sample(2, n, seed=4, dtype=torch.float64)
            require_close(
                exported(other),
                subject.run(module, other),
                CLOSE,
                f"exported, causal={causal}, against eager",
            )


def check_exports_whole(subject: Subject) -> None:
    _round_trip(subject, "torch-export")


def check_exports_onnx(subject: Subject) -> None:
    try:
        graph.require_onnx()
    except ZooError as reason:
        raise NotApplicable(str(reason)) from reason
    _round_trip(subject, "onnx")


def check_compiles(subject: Subject) -> None:
    """With the backend "aot_eager": graph and autograd are those of any backend, only the kernels are not."""
    for causal in subject.directions:
        module = subject.build(causal=causal)
        torch._dynamo.reset()
        compiled: Any = torch.compile(module, backend="aot_eager")
        try:
            for n in subject.lengths(33):
                x = subject.sample(2, n, dtype=torch.float64)
                what = f"compiled, causal={causal}, {n} tokens, against eager"
                found, expected = _both(subject, compiled, module, x), _both(subject, module, module, x)
                require_close(found[0], expected[0], CLOSE, what)
                require_same_gradients(found[1], expected[1], CLOSE, what)
        finally:
            torch._dynamo.reset()


def _round_trip(subject: Subject, format: graph.GraphFormat) -> None:
    """Stem, backbone and head as one graph in a file, read again: what `zoo export` does."""
    model = build_whole(cast(ModelSubject, subject)).eval()
    shapes = graph.Shapes.of(model.plan.inputs)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / graph.FILES[format]
        graph.write(graph.trace(model, shapes), format, file)
        verify(graph.read(format, file), model, model.plan, shapes.tried(model.plan))


def _both(subject: Subject, form: Any, module: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs and gradients of a form of `module`."""
    module.zero_grad()
    y = subject.run(form, x)
    (y * weights_like(y)).sum().backward()
    return y, gradients_of(module)
