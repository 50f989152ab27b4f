"""What training and evaluation hand back: scores beside those of simple baselines, as a table or as data."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from zoo.baselines.measure import BEST
from zoo.quantities import number
from zoo.recipe.schema import Expect
from zoo.runs import Run

#: Name of a baseline -> `split/metric` -> score.
Baselines = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """Scores on one split. Names are `split/metric`.

    baselines: the same of each baseline, by its name, the naive one first; none but on test.
    overrides: what differs from the run's own recipe.
    """

    run: Run
    split: str
    metrics: Mapping[str, float]
    baselines: Baselines = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    @property
    def baseline(self) -> Mapping[str, float]:
        """The naive one."""
        return naive_of(self.baselines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "run": str(self.run.path),
            "split": self.split,
            "overrides": list(self.overrides),
            "metrics": plain(self.metrics),
            "baseline": plain(self.baseline),
            "baselines": {name: plain(scores) for name, scores in self.baselines.items()},
        }

    def print(self) -> None:
        """A table on stdout."""
        print_scores(self.metrics, self.baselines, split=self.split)
        if worse := outdone(self.metrics, self.baselines, self.run.info):
            print(worse)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended. `metrics` and `baselines` are of the test split; empty unless it finished.

    baselines: the scores of each baseline, by its name, the naive one first.
    run: the folder; `None` after a dry run.
    expected: whether the recipe's `expect` was met; `None` where it has none, or was not judged.
    """

    status: Literal["finished", "interrupted", "dry run"]
    run: Run | None
    step: int
    parameters: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=dict)
    expect: Expect | None = None
    expected: bool | None = None

    @property
    def baseline(self) -> Mapping[str, float]:
        """The naive one."""
        return naive_of(self.baselines)

    @property
    def exit_code(self) -> int:
        """0, or 130 after Ctrl-C."""
        return 130 if self.status == "interrupted" else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "status": self.status,
            "run": str(self.run.path) if self.run else None,
            "step": self.step,
            "parameters": self.parameters,
            "metrics": plain(self.metrics),
            "baseline": plain(self.baseline),
            "baselines": {name: plain(scores) for name, scores in self.baselines.items()},
            "expected": self.expected,
        }

    def print(self) -> None:
        """The table of test scores, the run folder and the verdict; a hint where the run was interrupted."""
        if self.status == "interrupted":
            print(self.hint(), file=sys.stderr)
            return
        if self.status == "dry run":
            scores = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
            print(
                f"Dry run: one update and one evaluation went well. {self.parameters:,} parameters. {scores}"
            )
            return
        print_scores(self.metrics, self.baselines, split="test")
        if worse := self.outdone():
            print(worse)
        if self.expect is not None:
            print(self.verdict())
        print(f"Run: {self.run.path if self.run else ''}")

    def hint(self) -> str:
        """The one line after Ctrl-C."""
        return (
            f"Interrupted at step {self.step}. Resume: zoo train --resume {self.run.path if self.run else ''}"
        )

    def outdone(self) -> str:
        """Which baseline did better, in a sentence; empty where none did."""
        return outdone(self.metrics, self.baselines, self.run.info if self.run else {})

    def verdict(self) -> str:
        """Whether the recipe's claim held, in a sentence."""
        if self.expect is None:
            return ""
        at_least = self.expect.at_least is not None
        bound = self.expect.at_least if at_least else self.expect.at_most
        claim = f"{self.expect.metric} {'at least' if at_least else 'at most'} {bound:g}"
        if self.expected is None:
            return f"Expected {claim}: there is no such metric."
        return f"Expected {claim}: {'met' if self.expected else 'NOT met'}."


def judge(expect: Expect | None, metrics: Mapping[str, float]) -> bool | None:
    """Whether the claim holds; `None` where there is no claim, or no such metric."""
    if expect is None or expect.metric not in metrics:
        return None
    value = metrics[expect.metric]
    if expect.at_least is not None:
        return value >= expect.at_least
    return expect.at_most is not None and value <= expect.at_most


def naive_of(baselines: Baselines) -> Mapping[str, float]:
    """The scores of the first baseline, the naive one; empty where there is none."""
    return next(iter(baselines.values()), {})


def outdone(metrics: Mapping[str, float], baselines: Baselines, info: Mapping[str, Any]) -> str:
    """Which baseline did better by the task's own metric, in a sentence; empty: none.

    info: the record of the run, whose plan says what that metric is.
    """
    plan = info.get("plan", {})
    metric = f"test/{str(plan.get('monitor')).partition('/')[2]}"
    scores = {name: s[metric] for name, s in baselines.items() if name != BEST and metric in s}
    scores = {name: score for name, score in scores.items() if math.isfinite(score)}
    if metric not in metrics or not scores:
        return ""
    more_is_better = plan.get("mode") == "max"
    name = (max if more_is_better else min)(scores, key=scores.__getitem__)
    ours, theirs = metrics[metric], scores[name]
    if ours >= theirs if more_is_better else ours <= theirs:
        return ""
    return f"A baseline does better: {name}, {metric} {number(theirs)} against {number(ours)}."


def print_scores(metrics: Mapping[str, float], baselines: Baselines, *, split: str) -> None:
    """metric | score | each baseline, with rich on a terminal and in plain columns elsewhere."""
    heading, *rows = score_rows(metrics, baselines, split=split)
    console = Console()
    if console.is_terminal:
        table = Table(*heading)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    widths = [max(len(row[i]) for row in [heading, *rows]) for i in range(len(heading))]
    for row in [heading, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def score_rows(metrics: Mapping[str, float], baselines: Baselines, *, split: str) -> list[list[str]]:
    """A heading, then a row per metric: its name, the score, that of each baseline."""
    return [
        ["metric", split, *baselines],
        *(
            [name.partition("/")[2], number(value), *(number(b.get(name)) for b in baselines.values())]
            for name, value in metrics.items()
        ),
    ]


def plain(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which knows no NaN: `None` instead."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
