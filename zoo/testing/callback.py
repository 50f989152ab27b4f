"""Callbacks, rehearsed on a small model without Lightning, see `zoo.callbacks`."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.callbacks import Callback
from zoo.contract import resolve
from zoo.data.random_inputs import normal
from zoo.errors import UnknownName
from zoo.kinds import Classes, Series
from zoo.testing.check import NotApplicable
from zoo.testing.measure import require
from zoo.testing.subject import Subject, seeded

_STEPS = 4
_TOKENS = 6


def check_callback_looks_on(subject: Subject) -> None:
    with _rehearsal(subject) as run:
        before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        modes = [module.training for module in run.model.modules()]
        hooks = _hooks(run.model)
        run.play(callback_of(subject))
        changed = [n for n, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[n])]
        require(not changed, f"it changes the model's {', '.join(changed)}")
        require(modes == [m.training for m in run.model.modules()], "it leaves the model in another mode")
        require(hooks == _hooks(run.model), "it leaves hooks on the model")


def check_callback_logs(subject: Subject) -> None:
    callback = callback_of(subject)
    with _rehearsal(subject) as run:
        run.play(callback)
        logged = {name for _, values in run.rows for name in values}
    stray = sorted(logged - set(callback.columns))
    require(not stray, f"it logs what is not among its columns, so that metrics.csv lacks it: {stray}")
    unnamed = [name for name in callback.columns if not all(name.partition("/"))]
    require(not unnamed, f"a column is named split/metric, e.g. train/entropy; these are not: {unnamed}")


def check_callback_resumes(subject: Subject) -> None:
    with _rehearsal(subject) as run:
        whole = callback_of(subject)
        run.play(whole)
        rows, files = run.rows, _files(run.folder)
    with _rehearsal(subject) as run:
        first, second = callback_of(subject), callback_of(subject)
        run.play(first, last=_STEPS // 2)
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second.load_state_dict(torch.load(file, weights_only=True))
        run.play(second, first=_STEPS // 2 + 1)
        require(run.rows == rows, f"a resumed run logs {run.rows}, an uninterrupted one {rows}")
        left = {name: size for name, size in _files(run.folder).items() if files.get(name) != size}
        require(not left, f"a resumed run leaves other files than an uninterrupted one: {sorted(left)}")
    require(
        _plain(second.state_dict()) == _plain(whole.state_dict()),
        "after a resume its state is another one than without",
    )


def callback_of(subject: Subject) -> Callback:
    """The callback, built from its parameters."""
    callback = subject.spec.load()(subject.config)
    name = type(callback).__name__
    require(isinstance(callback, Callback), f"the target gave {name}, expected a zoo.callbacks.Callback")
    return callback


class _Rehearsal:
    """A run of a few steps in which nothing is trained; satisfies `zoo.callbacks.LiveRun`."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.step, self.steps = 0, _STEPS
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.notes: list[str] = []

    def play(self, callback: Callback, *, first: int = 1, last: int = _STEPS) -> None:
        self.step = first - 1
        callback.on_start(self)
        for step in range(first, last + 1):
            self.step = step
            lengths = torch.tensor([_TOKENS, 2, _TOKENS - 1])
            batch = {"input": normal((3, _TOKENS, 3), seed=step), "length": lengths}
            callback.after_step(self, {**batch, "target": torch.tensor([0, 1, 2])})
            if step % 2 == 0:
                callback.after_evaluation(self)
        if last == _STEPS:
            callback.on_end(self)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        self.model.eval()
        mask = torch.arange(batch["input"].shape[1]) < batch["length"][:, None]
        outputs: Tensor = self.model(batch["input"], mask=mask)
        self.model.train()
        return outputs

    def forget(self, parameters: Iterable[nn.Parameter]) -> None:
        pass  # there is no optimiser

    def log(self, values: Mapping[str, float]) -> None:
        self.rows.append((self.step, dict(values)))

    def note(self, text: str) -> None:
        self.notes.append(text)


@contextmanager
def _rehearsal(subject: Subject) -> Iterator[_Rehearsal]:
    from zoo.layers.model import build_model

    found = subject.catalogue
    try:
        plan = resolve(
            found,
            model=found.part("model", "core/transformer", {"depth": 1, "heads": 2}),
            width=16,
            inputs=Series(channels=3, length=_TOKENS, ragged=True),
            targets=Classes(count=3),
        )
    except UnknownName as error:
        raise NotApplicable("there is no core/transformer in this catalogue") from error
    with seeded(0), tempfile.TemporaryDirectory() as folder:
        yield _Rehearsal(build_model(plan, catalogue=found).train(), Path(folder))


def _hooks(model: nn.Module) -> list[int]:
    return [
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.modules()
    ]


def _files(folder: Path) -> dict[str, bytes]:
    """Text files by name; pictures may hold a date."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".csv", ".json")}


def _plain(value: Any) -> Any:
    """Tensors as lists, so that states compare."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
