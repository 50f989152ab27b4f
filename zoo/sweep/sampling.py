"""Points that a sampler draws instead of listing all: `zoo sweep --sampler random|tpe` (torch-free).

A trial is one drawing, trained with every seed that is asked for. What is drawn depends on the space, the
sampler's seed and, with TPE, on what the trials before it reached: the same command draws the same trials, so
that a search goes on where it ended, however it ended, and `--trials` can be raised later.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from zoo.errors import ZooError
from zoo.recipe import RecipeError
from zoo.recipe.errors import Origin
from zoo.runs import Run, recipe_folder
from zoo.sweep.arguments import Axis, combine
from zoo.sweep.points import Point, check_points
from zoo.sweep.sweep import Sweep

SamplerName = Literal["random", "tpe"]
#: Trials that TPE gives away before it is told what any of them reached: as many can be trained side by side,
#: and the draws do not depend on how many are.
ROUND = 4


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One drawing. values: by key. points: one for each seed; none where they are no recipe (`problem`)."""

    number: int
    values: Mapping[str, str]
    points: tuple[Point, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.values.items())


class Sampler(Protocol):
    """Draws values for each axis; `together`: trials that it gives away at a time."""

    together: int

    def draw(self, number: int) -> dict[str, str]: ...

    def tell(self, number: int, value: float | None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Search:
    """A space and how it is searched.

    recipe: a name or a path. drawn: axes with more than one value. fixed: the others, the seeds among them.
    trials: how many to draw. seed: of the draws. places: as in `check_points`.
    """

    recipe: str
    drawn: tuple[Axis, ...]
    fixed: tuple[Axis, ...]
    sampler: SamplerName
    trials: int
    seed: int
    places: Mapping[str, Origin] = field(default_factory=dict)

    def sweep(self) -> Sweep:
        """The sweep that the trials' points belong to, without any so far; raising `trials` keeps it.

        Raises:
            RecipeError: an end of the space is no recipe: an unknown key, a value of the wrong type.
        """
        ends = check_points(
            self.recipe,
            [point for end in (0, -1) for point in combine(self._at(end))],
            places=self.places,
        )
        what = [self.recipe, self.sampler, self.seed, *sorted(map(repr, (*self.drawn, *self.fixed)))]
        name = hashlib.sha256(repr(what).encode()).hexdigest()[:8]
        first = ends[0].loaded
        return Sweep(
            folder=recipe_folder(Path(first.recipe.output.dir) / "sweeps", first.name) / name, points=()
        )

    def rounds(self, sweep: Sweep) -> Iterator[list[Trial]]:
        """Trials to be trained, some at a time; what they reached is looked up when the next are wanted."""
        sampler = self._sampler()
        for first in range(0, self.trials, sampler.together):
            numbers = range(first, min(first + sampler.together, self.trials))
            trials = [self._trial(number, sampler) for number in numbers]
            yield trials
            runs = replace(sweep, points=tuple(point for trial in trials for point in trial.points)).runs()
            for trial in trials:
                sampler.tell(trial.number, reached(trial, runs))

    def _trial(self, number: int, sampler: Sampler) -> Trial:
        values = sampler.draw(number)
        drawn = [Axis(key, (value,)) for key, value in values.items()]
        try:
            points = check_points(self.recipe, combine([*drawn, *self.fixed]))
        except RecipeError as error:
            return Trial(number=number, values=values, problem=error.mistakes[0].message)
        return Trial(number=number, values=values, points=tuple(points))

    def _at(self, end: int) -> list[Axis]:
        return [*(Axis(axis.key, (axis.ends[end],)) for axis in self.drawn), *self.fixed]

    def _sampler(self) -> Sampler:
        if self.sampler == "random":
            return _Random(self.drawn, seed=self.seed, trials=self.trials)
        first = check_points(self.recipe, combine(self._at(0)))[0]
        return _Tpe(self.drawn, seed=self.seed, maximise=first.loaded.plan.mode == "max")


def make_search(
    recipes: Sequence[str],
    axes: Sequence[Axis],
    *,
    sampler: SamplerName,
    trials: int | None,
    seed: int,
    places: Mapping[str, Origin] | None = None,
) -> Search:
    """A search over the axes with more than one value; `seed` is not drawn, every trial has all of them.

    Raises:
        ZooError: nothing to draw, several recipes, no number of trials, or optuna is missing.
    """
    if len(recipes) != 1:
        raise ZooError(f"a sampler searches one recipe, got {len(recipes)}: {', '.join(recipes)}")
    if trials is None or trials < 1:
        raise ZooError(f"--sampler {sampler} needs --trials N, at least 1: how many points to draw")
    drawn = tuple(axis for axis in axes if axis.key != "seed" and (axis.span or len(axis.values) > 1))
    if not drawn:
        raise ZooError("there is nothing to draw: give a key several values or a range, optim.lr=1e-4..1e-2")
    if sampler == "tpe":
        _optuna()
    fixed = tuple(axis for axis in axes if axis not in drawn)
    return Search(
        recipe=recipes[0],
        drawn=drawn,
        fixed=fixed,
        sampler=sampler,
        trials=trials,
        seed=seed,
        places=places or {},
    )


def reached(trial: Trial, runs: Mapping[str, Run]) -> float | None:
    """The watched metric on the validation split, the mean over seeds; `None` where one has none."""
    found = [runs[point.id] for point in trial.points if point.id in runs]
    values = [run.info.get("best_value") for run in found if run.status == "finished"]
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(known) if known and len(known) == len(trial.points) else None


class _Random:
    """Each number and each value alike; a trial's draws depend on nothing but its number and their keys."""

    def __init__(self, axes: Sequence[Axis], *, seed: int, trials: int) -> None:
        self.together = trials
        self._axes, self._seed = axes, seed

    def draw(self, number: int) -> dict[str, str]:
        return {axis.key: self._one(axis, number) for axis in self._axes}

    def tell(self, number: int, value: float | None) -> None:
        """It does not learn."""

    def _one(self, axis: Axis, number: int) -> str:
        draws = random.Random(f"{self._seed} {number} {axis.key}")
        if axis.values:
            return draws.choice(axis.values)
        span = axis.span
        assert span is not None  # an axis has values or a span of fractions
        if span.log:
            return span.text(math.exp(draws.uniform(math.log(span.low), math.log(span.high))))
        return span.text(draws.uniform(span.low, span.high))


class _Tpe:
    """The tree-structured Parzen estimator (Bergstra et al. 2011), as optuna has it."""

    together = ROUND

    def __init__(self, axes: Sequence[Axis], *, seed: int, maximise: bool) -> None:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # constant_liar: trials of a round, drawn before any of them is told, keep apart from each other.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(sampler=sampler, direction="maximize" if maximise else "minimize")
        self._failed = optuna.trial.TrialState.FAIL
        self._axes = {axis.key: axis for axis in axes}
        self._space = {axis.key: _distribution(optuna, axis) for axis in axes}
        self._asked: dict[int, Any] = {}

    def draw(self, number: int) -> dict[str, str]:
        self._asked[number] = trial = self._study.ask(fixed_distributions=self._space)
        drawn = {}
        for key, value in trial.params.items():
            span = self._axes[key].span
            drawn[key] = span.text(value) if span else str(value)
        return drawn

    def tell(self, number: int, value: float | None) -> None:
        trial = self._asked.pop(number)
        if value is None:
            self._study.tell(trial, state=self._failed)
        else:
            self._study.tell(trial, value)


def _distribution(optuna: Any, axis: Axis) -> Any:
    if axis.span is None:
        return optuna.distributions.CategoricalDistribution(axis.values)
    if axis.span.whole:
        return optuna.distributions.IntDistribution(int(axis.span.low), int(axis.span.high))
    return optuna.distributions.FloatDistribution(axis.span.low, axis.span.high, log=axis.span.log)


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise ZooError(
            f"--sampler tpe needs optuna ({error}): pip install 'archzoo[optuna]', or take --sampler random"
        ) from None
