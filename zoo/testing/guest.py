"""A component is a guest in somebody's process: it leaves what belongs to all as it found it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any

import torch

from zoo.testing.measure import require
from zoo.testing.subject import MAX_TOKENS, Subject, seeded

#: What torch keeps for the whole process: how it is read and set, and what it is while the check runs.
_SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any], Any]] = {
    "the default type of numbers": (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    "whether gradients are recorded": (torch.is_grad_enabled, torch.set_grad_enabled, True),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads, 1),
    "the precision of products": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        "highest",
    ),
    "whether algorithms are deterministic": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
        False,
    ),
}


def check_guest(subject: Subject) -> None:
    before = {name: read() for name, (read, _, _) in _SETTINGS.items()}
    said = io.StringIO()
    try:
        for _, put, usual in _SETTINGS.values():
            put(usual)
        with redirect_stdout(said):
            first, second = (_drawn_after(subject, seed) for seed in (1, 2))
        changed = [name for name, (read, _, usual) in _SETTINGS.items() if read() != usual]
    finally:
        for name, (_, put, _) in _SETTINGS.items():
            put(before[name])
    for what in first:
        require(
            first[what] != second[what],
            f"{what} sets the seed of torch's random numbers, which is the user's: draw without it, or from "
            "a torch.Generator of your own",
        )
    require(not changed, f"building or running it changes, for the whole process, {' and '.join(changed)}")
    require(not said.getvalue(), f"building or running it prints {said.getvalue()[:80]!r}")


def _drawn_after(subject: Subject, seed: int) -> dict[str, float]:
    """The next random number after each of what a component does, from this seed."""
    drawn = {}
    x = subject.sample(2, subject.lengths(7)[-1])
    with seeded(seed):
        module = subject.make(causal=subject.directions[-1], max_tokens=MAX_TOKENS)
        drawn["building it"] = torch.rand(()).item()
    for what, training in (("evaluating it", False), ("running it in training mode", True)):
        with seeded(seed):
            subject.run(module.train(training), x)
            drawn[what] = torch.rand(()).item()
    return drawn
