"""What a recipe reached, put down beside it: `digits.yaml` and `digits.record.json` (torch-free).

A record is of one experiment, a recipe as it stands, over its seeds: every test metric of every seed, what it
cost and when, what simple baselines reach, and the settings, so that a reader is told where the recipe or
a component has changed since.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from zoo.contract import revisions_of
from zoo.errors import ZooError
from zoo.recipe import LoadedRecipe
from zoo.recipe.fingerprint import APART
from zoo.recipe.render import resolved
from zoo.recipe.schema import Expect
from zoo.runs import Run, replacing, writing

SUFFIX = ".record.json"
State = Literal["current", "changed"]


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One run.

    metrics: of the test split. seconds: of its training steps alone. peak_bytes: of the process, or of
    tensors on a GPU. date: when it ended, UTC. machine: a GPU's name, or "CPU, 2 threads".
    """

    metrics: Mapping[str, float]
    steps: int
    seconds: float | None
    peak_bytes: int | None
    date: str
    machine: str
    torch: str | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one recipe reached. metric: the one it is judged by; mode: which way is better.

    settings, revisions: of the experiment, without the seed. baselines: name -> metric -> score, the naive
    one first. seeds: by seed.
    """

    recipe: str
    metric: str
    mode: str | None
    parameters: int
    baselines: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, Any]
    revisions: Mapping[str, int]
    seeds: Mapping[int, Seed]

    def values(self, metric: str | None = None) -> dict[int, float]:
        """By seed."""
        name = metric or self.metric
        return {seed: each.metrics[name] for seed, each in self.seeds.items() if name in each.metrics}

    def mean(self) -> float:
        return statistics.fmean(self.values().values())

    def state(self, loaded: LoadedRecipe) -> State:
        """Whether the recipe, as it stands now, is what was recorded.

        A setting that the record does not know was added to the zoo since, with what was done before.
        """
        same = self.revisions == revisions_of(loaded.plan, loaded.catalogue)
        return "current" if same and _agrees(self.settings, _experiment(loaded)) else "changed"

    def contradictions(self, expect: Expect) -> list[str]:
        """Where a recipe expects what its record does not bear out, a sentence each."""
        values = self.values(expect.metric)
        if not values:
            return [f"expects {expect.metric}, which was not recorded"]
        found = []
        for seed, value in values.items():
            if expect.at_least is not None and value < expect.at_least:
                found.append(
                    f"expects {expect.metric} of at least {expect.at_least:g}, seed {seed} has {value:g}"
                )
            if expect.at_most is not None and value > expect.at_most:
                found.append(
                    f"expects {expect.metric} of at most {expect.at_most:g}, seed {seed} has {value:g}"
                )
        if expect.seeds > len(values):
            found.append(f"expects to be measured over {expect.seeds} seeds, {len(values)} are recorded")
        return found


def path_of(recipe: Path) -> Path:
    """Where the record of a recipe's file stands."""
    return recipe.with_suffix(SUFFIX)


def read_record(path: Path) -> Record | None:
    """The record in a file; `None` where there is no such file.

    Raises:
        ZooError: it is damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        seeds = {int(seed): Seed(**each) for seed, each in data.pop("seeds").items()}
        return Record(**data, seeds=seeds)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ZooError(f"the record {str(path)!r} cannot be read: {error}") from None


def make_record(loaded: LoadedRecipe, runs: Iterable[Run], *, known: Record | None = None) -> Record:
    """The record of a recipe from its finished runs; of two runs with one seed the later counts.

    known: an earlier record; its seeds stay where they are of the same experiment and not run anew.

    Raises:
        ZooError: none of the runs is of the recipe as it stands, finished.
    """
    finished = [run for run in runs if run.status == "finished" and "settings" in run.info]
    settings, revisions = _experiment(loaded), revisions_of(loaded.plan, loaded.catalogue)
    fitting = [
        run
        for run in finished
        if _agrees(_without_seed(run.info["settings"]), settings) and run.info["revisions"] == revisions
    ]
    if not fitting:
        others = sum(run.info["recipe"] == loaded.name for run in finished)
        why = f"; {others} finished with other settings, or before a component was changed" if others else ""
        raise ZooError(
            f"no run of {loaded.name!r} as it stands is finished{why}. "
            f"Train it over some seeds first: zoo sweep {loaded.name} seed=0..2"
        )
    fitting.sort(key=lambda run: str(run.info.get("created", "")))
    last = fitting[-1].info
    metric, mode = f"test/{str(last['monitor']).partition('/')[2]}", last["mode"]
    if expect := loaded.recipe.expect:
        metric, mode = expect.metric, "min" if expect.at_least is None else "max"
    same = known is not None and known.state(loaded) == "current"
    seeds = dict(known.seeds) if known is not None and same else {}
    seeds |= {run.info["seed"]: _seed(run.info) for run in fitting}
    return Record(
        recipe=loaded.name,
        metric=metric,
        mode=mode,
        parameters=last["parameters"],
        baselines=last.get("baselines", {}),
        settings=settings,
        revisions=revisions,
        seeds=dict(sorted(seeds.items())),
    )


def write_record(record: Record, path: Path) -> None:
    """Write it, whole or not at all.

    Raises:
        ZooError: the folder cannot be written.
    """
    with writing(path.parent), replacing(path) as file:
        file.write((json.dumps(asdict(record), indent=1) + "\n").encode())


def _seed(info: Mapping[str, Any]) -> Seed:
    cost, platform = info.get("cost", {}), info.get("platform", {})
    pace, threads = cost.get("seconds_per_step"), platform.get("threads", "?")
    return Seed(
        metrics={name: value for name, value in info["metrics"].items() if value is not None},
        steps=info["step"],
        seconds=None if pace is None else round(pace * info["step"], 2),
        peak_bytes=cost.get("peak_bytes"),
        date=str(info.get("ended", ""))[:10],
        machine=platform.get("gpu") or f"CPU, {threads} thread{'s' * (threads != 1)}",
        torch=info.get("versions", {}).get("torch"),
    )


def _experiment(loaded: LoadedRecipe) -> dict[str, Any]:
    """What decides the result of a recipe, as JSON would give it back."""
    plain: dict[str, Any] = json.loads(json.dumps(resolved(loaded), default=str))
    return _without_seed(plain)


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in (*APART, "seed")}


def _agrees(recorded: Any, now: Any) -> bool:
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        return all(key in now and _agrees(value, now[key]) for key, value in recorded.items())
    return bool(recorded == now)
