"""torch.export and torch.compile against eager."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.testing.measure import CLOSE, gradients_of, require_close, require_same_gradients, weights_like
from zoo.testing.subject import Subject


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


def _both(subject: Subject, form: Any, module: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs and gradients of a form of `module`."""
    module.zero_grad()
    y = subject.run(form, x)
    (y * weights_like(y)).sum().backward()
    return y, gradients_of(module)
