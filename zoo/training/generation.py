"""Text from a trained language model, symbol by symbol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.catalogue import Part
from zoo.decoders import Decoder
from zoo.errors import ZooError
from zoo.kinds import Ids, NextId
from zoo.layers.model import Model
from zoo.runs import Run, find_run
from zoo.training.evaluation import best_model, recipe_of
from zoo.training.setup import load_splits

#: What a text that is not given begins with.
BEGINNING = "\n"
#: What bytes that are no whole character are decoded to, and how many may make up one.
_UNFINISHED, _LONGEST = "\N{REPLACEMENT CHARACTER}", 4


def generate(
    run: Run | str | Path,
    prompt: str = BEGINNING,
    *,
    symbols: int = 200,
    decoder: str = "sample",
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[str]:
    """The continuation of a prompt by a run's best checkpoint, in pieces as they come.

    A model that streams reads each symbol once, with a state that does not grow where it claims so. One
    that does not reads the last symbols again for each new one, as many as it was trained with.

    Args:
        symbols: how many to make.
        decoder, params: how they are chosen, see `zoo list decoders`.
        seed: of the draws.
        say: told what the user should know.

    Raises:
        ZooError: the run is of no language model of text, or a decoder or prompt that cannot be.
    """
    run = run if isinstance(run, Run) else find_run(run)
    loaded = recipe_of(run)
    catalogue, plan = loaded.catalogue, loaded.plan
    if not isinstance(plan.targets, NextId):
        raise ZooError(
            f"run {str(run.path)!r} answers {plan.targets}, it is no language model; use 'zoo predict'"
        )
    part: Part = catalogue.part("decoder", decoder, params)
    splits = load_splits(loaded)
    if not splits.text or splits.encode is None or splits.decode is None:
        name = plan.dataset.id if plan.dataset else ""
        raise ZooError(f"dataset {name!r} is no text: there is nothing to read a prompt with")
    if symbols < 1:
        raise ZooError(f"the symbols to generate must be at least 1, got {symbols}")
    given = splits.encode(prompt)
    if not len(given):
        raise ZooError(r"the prompt is empty; leave it out to begin with a new line")
    model = best_model(run, loaded)
    chooser: Decoder = catalogue.get("decoder", part.id).load()(part.config)
    ids = _continue(model, given.unsqueeze(0), chooser, symbols=symbols, seed=seed, say=say)
    return _text(ids, splits.decode)


@torch.no_grad()
def _continue(
    model: Model, given: Tensor, decoder: Decoder, *, symbols: int, seed: int, say: Callable[[str], None]
) -> Iterator[int]:
    """given: (1, N) -> the symbols that follow."""
    draws = torch.Generator().manual_seed(seed)
    reader = _reader(model, given, say)
    state, logits = decoder.initial_state(1), reader.first
    for left in range(symbols, 0, -1):
        chosen, state = decoder.step(logits, state, torch.rand(1, generator=draws, dtype=torch.float64))
        yield int(chosen)
        if left > 1:
            logits = reader.after(chosen)


class _Stream:
    """Reads each symbol once. first: the logits (1, V) after the prompt."""

    def __init__(self, model: Model, given: Tensor) -> None:
        self._model = model
        outputs, self._state = model.step(given, model.initial_state(1))
        self.first = outputs[:, -1]

    def after(self, symbol: Tensor) -> Tensor:
        try:
            outputs, self._state = self._model.step(symbol.unsqueeze(0), self._state)
        except ValueError as error:
            raise ZooError(f"the text cannot go on: {error}") from None
        return outputs[:, -1]


class _Window:
    """Reads the last symbols again each time, at most so many."""

    def __init__(self, model: Model, given: Tensor, most: int) -> None:
        self._model, self._ids, self._most = model, given, most
        self.first = self._read()

    def after(self, symbol: Tensor) -> Tensor:
        self._ids = torch.cat([self._ids, symbol.unsqueeze(0)], dim=1)
        return self._read()

    def _read(self) -> Tensor:
        self._ids = self._ids[:, -self._most :]
        outputs: Tensor = self._model(self._ids)
        return outputs[:, -1]


def _reader(model: Model, given: Tensor, say: Callable[[str], None]) -> _Stream | _Window:
    try:
        return _Stream(model, given)
    except ValueError as error:  # it does not stream, or not for so long
        most = model.plan.inputs.length if isinstance(model.plan.inputs, Ids) else given.shape[1]
        say(f"each symbol reads the last {most} again: {error}")
        return _Window(model, given, most)


def _text(ids: Iterator[int], decode: Callable[[Tensor], Any]) -> Iterator[str]:
    """Symbols as text, held back while it could still change: bytes in the middle of a character."""
    waiting: list[int] = []
    for symbol in ids:
        waiting.append(symbol)
        text = decode(torch.tensor(waiting))
        if not text.endswith(_UNFINISHED) or len(waiting) >= _LONGEST:
            waiting.clear()
            yield text
    if waiting:
        yield decode(torch.tensor(waiting))
