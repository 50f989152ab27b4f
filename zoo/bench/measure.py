"""Measuring backbones side by side: time in turns, peak memory, the next token of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from zoo.bench.report import Bench, Cell
from zoo.bench.subjects import Subject
from zoo.bench.turns import Laps, Time, laps
from zoo.catalogue import Catalogue
from zoo.errors import ZooError, one_line
from zoo.layers.model import build_model
from zoo.training.memory import peak_of
from zoo.training.record import circumstances

#: Tokens that a stream is given at a time before its next one is timed, and how often that is.
_CHUNK, _STEPS = 256, 15


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is the same for all.

    lengths: tokens of a sequence. batch: sequences at a time.
    causal: built so that no token sees a later one; else so that each sees all.
    repeats: turns of which the least counts.
    limit: seconds; what takes longer for one step of training is not tried at greater lengths.
    """

    lengths: tuple[int, ...]
    width: int = 128
    depth: int = 2
    heads: int = 4
    batch: int = 1
    causal: bool = True
    device: str = "cpu"
    repeats: int = 5
    limit: float = 60.0


def bench(
    subjects: Sequence[Subject],
    settings: Settings,
    catalogue: Catalogue,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Measure all subjects at all lengths, the baseline first. Ctrl-C ends it early, with what there is."""
    done = Bench(settings=settings.__dict__, circumstances=_circumstances(catalogue, settings))
    device = torch.device(settings.device)
    at_work = list(subjects)
    try:
        for tokens in sorted(set(settings.lengths)):
            if not at_work:
                break
            say(f"{tokens:,} tokens: {len(at_work)} to measure")
            for slow in _at_length(at_work, tokens, settings, catalogue, device, done):
                at_work.remove(slow)
    except KeyboardInterrupt:
        done.interrupted = True
    return done


def _at_length(
    subjects: Sequence[Subject],
    tokens: int,
    settings: Settings,
    catalogue: Catalogue,
    device: torch.device,
    done: Bench,
) -> list[Subject]:
    """Measure one length; what came out is put into `done`. The subjects too slow for a greater one."""
    x = torch.randn(settings.batch, tokens, settings.width, generator=torch.Generator().manual_seed(0))
    x = x.to(device)
    cells: dict[str, Cell] = {}
    works: dict[str, _Work] = {}
    slow = []
    for subject in subjects:
        try:
            work = _Work(subject, x, settings, catalogue)
            if not done.cells:
                work.train()  # what libraries take once is nobody's memory
            cell = Cell(subject.name, tokens, parameters=work.parameters)
            began = time.perf_counter()
            cell.peak_bytes = peak_of(work.train, device)
            took = time.perf_counter() - began
        except (ZooError, ValueError, RuntimeError, MemoryError) as error:
            done.note(f"{subject.name} at {tokens:,} tokens: {one_line(error)}")
            continue
        works[subject.name], cells[subject.name] = work, cell
        if took > settings.limit:
            slow.append(subject)
            done.note(f"{subject.name} takes {took:.0f} s for a step at {tokens:,} tokens: no greater length")
    done.cells += cells.values()
    _time({name: work.laps for name, work in works.items()}, cells, settings, device)
    for name, work in works.items():
        try:
            cells[name].decode_us, cells[name].state_bytes = work.next_token(settings)
        except (ZooError, ValueError, RuntimeError, MemoryError) as error:
            done.note(f"{name} at {tokens:,} tokens does not stream: {one_line(error)}")
    return slow


def _time(
    runs: Mapping[str, Callable[[], Iterator[str]]],
    cells: Mapping[str, Cell],
    settings: Settings,
    device: torch.device,
) -> None:
    """Forward and backward of all, in turns; the cells are filled from the first turn on."""
    if not runs:
        return
    settle = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    turns: Iterator[Laps] = laps(runs, settle=settle)
    for _ in range(settings.repeats):
        for name, times in next(turns).items():
            cells[name].forward_ms, cells[name].backward_ms = times["forward"].wall, times["backward"].wall


class _Work:
    """One backbone at one length."""

    def __init__(self, subject: Subject, x: Tensor, settings: Settings, catalogue: Catalogue) -> None:
        plan = subject.plan(catalogue, width=x.shape[2], tokens=x.shape[1], causal=settings.causal)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._backbone: Any = build_model(plan, catalogue=catalogue).backbone.to(x.device)
        # As it trains (some see other tokens then), without what is random.
        for part in self._backbone.train().modules():
            if isinstance(part, _DropoutNd):
                part.eval()
        self._streams = plan.causal and plan.claims.streaming
        self._x = x
        self.parameters = sum(each.numel() for each in self._backbone.parameters())

    def train(self) -> None:
        for _ in self.laps():
            pass

    def laps(self) -> Iterator[str]:
        """Forward with a graph, then backward to all weights and inputs."""
        x = self._x.requires_grad_()
        y = self._backbone(x)
        yield "forward"
        y.sum().backward()
        yield "backward"
        self._backbone.zero_grad(set_to_none=True)
        x.grad = None

    @torch.no_grad()
    def next_token(self, settings: Settings) -> tuple[float | None, int | None]:
        """Microseconds for the last token after all others, and the bytes of one stream's state before it.

        By itself, not in turns: another's large state would push this one out of the processor's caches.
        """
        if not self._streams:
            return None, None
        self._backbone.eval()
        x = self._x.detach()
        state = self._backbone.initial_state(len(x))
        for chunk in x[:, :-1].split(_CHUNK, dim=1) if x.shape[1] > 1 else ():
            _, state = self._backbone.step(chunk, state)
        leaves = [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]
        settle = torch.cuda.synchronize if x.device.type == "cuda" else lambda: None

        def step() -> Iterator[str]:
            self._backbone.step(x[:, -1:], state)
            yield "step"

        turns = laps({"": step}, settle=settle)
        times: list[Time] = [next(turns)[""]["step"] for _ in range(_STEPS)]
        return 1e3 * times[-1].wall, sum(leaf.nbytes for leaf in leaves) // len(x)


def _circumstances(catalogue: Catalogue, settings: Settings) -> dict[str, Any]:
    known = circumstances(catalogue)
    gpu = torch.cuda.get_device_name() if settings.device.startswith("cuda") else None
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "torch": torch.__version__,
        "system": str(known["platform"]["system"]).partition("-")[0],
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }
