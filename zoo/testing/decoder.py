"""Decoders, held to what `zoo.decoders.Decoder` says, on made-up predictions. B rows, V symbols."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from zoo.data.random_inputs import generator, normal
from zoo.testing.measure import require
from zoo.testing.subject import Subject

_SYMBOLS, _ROWS, _STEPS = 40, 5, 12


def check_decoder_chooses(subject: Subject) -> None:
    decoder = decoder_of(subject)
    state = decoder.initial_state(_ROWS)
    edges = [torch.zeros(_ROWS), torch.full((_ROWS,), 1 - 1e-16, dtype=torch.float64).clamp(max=1 - 1e-12)]
    for step, (logits, chance) in enumerate(_steps()):
        chosen, state = decoder.step(logits, state, edges[step] if step < len(edges) else chance)
        require(
            chosen.shape == (_ROWS,) and chosen.dtype == torch.int64,
            f"it gives {chosen.dtype} of shape {tuple(chosen.shape)}, expected int64 ({_ROWS},)",
        )
        inside = bool(((chosen >= 0) & (chosen < _SYMBOLS)).all())
        require(inside, f"it chooses {chosen.tolist()} among {_SYMBOLS} symbols")
        likely = logits.gather(-1, chosen.unsqueeze(-1))
        require(bool(likely.isfinite().all()), "it chooses a symbol whose logit is -inf")
    one, _ = decoder.step(torch.zeros(2, 1), decoder.initial_state(2), torch.rand(2, generator=generator(0)))
    require(one.tolist() == [0, 0], f"of one symbol it chooses {one.tolist()}")


def check_decoder_rows_apart(subject: Subject) -> None:
    decoder = decoder_of(subject)
    together = decoder.initial_state(_ROWS)
    alone = [decoder.initial_state(1) for _ in range(_ROWS)]
    for logits, chance in _steps():
        chosen, together = decoder.step(logits, together, chance)
        for row in range(_ROWS):
            own, alone[row] = decoder.step(logits[row : row + 1], alone[row], chance[row : row + 1])
            require(
                int(own) == int(chosen[row]),
                f"row {row} gets symbol {int(chosen[row])} in a batch and {int(own)} alone",
            )


def check_decoder_repeats(subject: Subject) -> None:
    decoder = decoder_of(subject)
    state = decoder.initial_state(_ROWS)
    for logits, chance in _steps():
        kept = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else copy.copy(leaf), state)
        first, after = decoder.step(logits, state, chance)
        again, _ = decoder.step(logits, kept, chance)
        twice, _ = decoder.step(logits, state, chance)
        require(torch.equal(first, again), "the same state and chance give other symbols")
        require(torch.equal(first, twice), "a step changes the state it is given")
        state = after


def decoder_of(subject: Subject) -> Any:
    """The decoder, built from its parameters."""
    return subject.spec.load()(subject.config)


def _steps() -> list[tuple[Tensor, Tensor]]:
    """Logits, sharp and flat, some symbols impossible, with the chance of each step."""
    draws = generator(1)
    steps = []
    for step in range(_STEPS):
        logits = normal((_ROWS, _SYMBOLS), seed=step) * (0.1, 1.0, 8.0)[step % 3]
        logits[:, step % 3 :: 3] = -torch.inf
        steps.append((logits, torch.rand(_ROWS, generator=draws, dtype=torch.float64)))
    return steps
