"""A model as one graph that runs without the zoo: `torch.export`, and ONNX made from it.

B batch, N tokens or time steps. Where the data are ragged, a graph takes the mask as its second input.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from zoo.contract import Plan
from zoo.data.random_inputs import generator, sample_of
from zoo.errors import ZooError, one_line
from zoo.kinds import DataKind, Episodes, Image, Vector
from zoo.layers.model import Model

GraphFormat = Literal["torch-export", "onnx"]
#: Name of the file by format.
FILES = {"torch-export": "model.pt2", "onnx": "model.onnx"}
INPUTS = ("x", "mask")
OUTPUT = "outputs"
#: What a tracer is shown where the batch is open: neither 0 nor 1, which it takes for constants.
_TRACED_BATCH = 2


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """What a graph takes: any batch or one size, inputs of any length up to N or of exactly N.

    batch: its size; `None`: any. length: N, the longest input; `None`: the data have no steps.
    """

    batch: int | None = None
    length: int | None = None
    any_length: bool = False

    @classmethod
    def of(cls, inputs: DataKind, *, batch: int | None = None, any_length: bool = False) -> Shapes:
        """For inputs of this kind.

        Raises:
            ZooError: a batch below 1, or any length of what has none.
        """
        if batch is not None and batch < 1:
            raise ZooError(f"the batch size must be at least 1, got {batch}")
        stepwise = not isinstance(inputs, (Image, Vector))
        if any_length and not stepwise:
            raise ZooError(f"{inputs} has no length that could be left open: leave out --any-length")
        length = inputs.length if not isinstance(inputs, (Image, Vector)) else None
        return cls(batch=batch, length=length, any_length=any_length)

    def tried(self, plan: Plan) -> Iterator[tuple[int, int]]:
        """Batch sizes and lengths that a graph is held to: every edge that it claims."""
        whole = self.length or 1
        for batch in (1, 2, 5) if self.batch is None else (self.batch,):
            yield batch, whole
        if not self.any_length:
            return
        step = len(Episodes.roles) if isinstance(plan.inputs, Episodes) else 1
        wanted = {1, 2, 3, 5, 8, whole // 3, whole // 2, whole // 2 + 1, whole - 1}
        for n in sorted({step * max(1, n // step) for n in wanted}):
            if plan.claims.min_tokens <= n < whole:
                yield self.batch or 3, n


class _Callable(nn.Module):
    """The model with its mask as an ordinary argument."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `zoo.layers.Model`."""
        return cast(Tensor, self.model(x, mask=mask))


def takes_mask(plan: Plan) -> bool:
    """Whether a graph of this plan has a second input."""
    return bool(getattr(plan.inputs, "ragged", False))


def random_inputs(plan: Plan, batch: int, n: int, *, seed: int) -> tuple[Tensor, ...]:
    """x, and where the data are ragged a mask bool (B, N), True = keep: only the first row is whole."""
    x = sample_of(plan.inputs, batch, n, seed=seed)
    if not takes_mask(plan):
        return (x,)
    lengths = torch.randint(1, n + 1, (batch,), generator=generator(seed))
    lengths[0] = n
    return x, torch.arange(n) < lengths[:, None]


def trace(model: Model, shapes: Shapes) -> torch.export.ExportedProgram:
    """The graph of a model in evaluation mode.

    Raises:
        ZooError: the model's code depends on its inputs in a way that no graph can say; with the reason.
    """
    n = shapes.length or 1
    given = random_inputs(model.plan, shapes.batch or _TRACED_BATCH, n, seed=0)
    axes: dict[int, Any] = {}
    if shapes.batch is None:
        axes[0] = torch.export.Dim.DYNAMIC
    if shapes.any_length:
        axes[1] = torch.export.Dim.DYNAMIC
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(
                _Callable(model), given, dynamic_shapes=tuple(dict(axes) for _ in given) if axes else None
            )
    except Exception as error:  # torch.export raises whatever the traced code and its own parts raise
        raise ZooError(f"{_open(shapes)} cannot be traced: {_first(error)}.{_hint(shapes)}") from error


def write(program: torch.export.ExportedProgram, format: GraphFormat, path: Path) -> None:
    """Put a graph into a file.

    Raises:
        ZooError: the extra of ONNX is not installed, or it has no words for an operation of the model.
    """
    if format == "torch-export":
        torch.export.save(program, path)
        return
    require_onnx()
    try:
        with quiet():
            made = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
            assert made is not None
            made.save(path)
    except Exception as error:  # a foreign converter: anything may be raised
        raise ZooError(f"the graph cannot be written as ONNX: {_first(error)}") from error


def read(format: GraphFormat, path: Path) -> Callable[..., Tensor]:
    """The function that a file holds, run by what runs such files: torch, or onnxruntime."""
    if format == "torch-export":
        return cast(Callable[..., Tensor], torch.export.load(path).module())
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*given: Tensor) -> Tensor:
        feed = {name: x.numpy() for name, x in zip(INPUTS, given, strict=False) if name in names}
        return torch.from_numpy(session.run(None, feed)[0])

    return run


def require_onnx() -> None:
    """Say which extra is missing.

    Raises:
        ZooError: it is.
    """
    import importlib.util

    missing = [name for name in ("onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ZooError(f"ONNX needs {' and '.join(missing)}: pip install 'archzoo[onnx]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the remarks that tracers and converters make on the way; what goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _open(shapes: Shapes) -> str:
    batch = "any batch size" if shapes.batch is None else f"batches of {shapes.batch}"
    return f"a graph for {batch}" + (" and any length" if shapes.any_length else "")


def _hint(shapes: Shapes) -> str:
    if shapes.any_length:
        return " Leave out --any-length: inputs then have one length"
    return " --batch-size N makes a graph for one batch size" if shapes.batch is None else ""


def _first(error: BaseException) -> str:
    """The first sentence or so of the cause, whose explanations may be pages, in colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", one_line(error))
    return text if len(text) <= 300 else f"{text[:300]}..."
