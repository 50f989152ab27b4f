"""Runs -> groups that differ in nothing but the seed, on the same data (torch-free)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, suggest
from zoo.recipe.fingerprint import fingerprint_of
from zoo.runs import Run, list_runs, open_run, runs_of
from zoo.sweep import RECORD


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one setting. label: what sets it apart. runs: by seed, one each, the latest."""

    label: str
    runs: Mapping[int, Run]

    @property
    def first(self) -> Run:
        """Any of them: but for the seed they are alike."""
        return next(iter(self.runs.values()))

    def values(self, metric: str) -> dict[int, float]:
        """The metric by seed, of the runs that have a number for it."""
        found = {seed: run.info["metrics"].get(metric) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Groups that may be compared. metric: `test/...`. mode: which way is better, where the runs say so.

    data: the dataset with its parameters. notes: what was left out.
    """

    groups: tuple[Group, ...]
    metric: str
    mode: str | None
    data: str
    notes: tuple[str, ...] = ()


def find_runs(names: Sequence[str], *, root: str = "runs") -> list[Run]:
    """The runs that are meant: of a run's or a sweep's folder, "latest", or all of a recipe's below `root`.

    Raises:
        ZooError: a name means nothing; says what there is.
    """
    known = list(list_runs(root))
    found: dict[Path, Run] = {}
    for name in names:
        path = Path(name)
        if (path / RECORD).is_file():
            runs = _of_sweep(path)
        elif name == "latest":
            runs = known[-1:]
        else:  # before a folder that is called so: a recipe `photos` may well learn from one
            runs = [run for run in known if run.info["recipe"] == name]
        if not runs and path.is_dir():
            runs = [open_run(path)]
        if not runs:
            names_known = {"latest", *(run.info["recipe"] for run in known)} if known else set()
            raise ZooError(
                f"there is no run {name!r}: it is the folder of no run or sweep, and no recipe of that name "
                f"ran below {root!r}.{suggest(name, names_known)}"
            )
        found |= {run.path.resolve(): run for run in runs}
    return list(found.values())


def collect(runs: Iterable[Run], *, metric: str | None = None) -> Collection:
    """Group finished runs by all that decides their result but the seed, in the order of their first runs.

    Of two runs with one seed the later counts.

    Args:
        metric: e.g. `test/accuracy`; by default the one that their task watches.

    Raises:
        ZooError: none is finished; they are on different data, or watched by different metrics; or
            there is no such metric.
    """
    runs = list(runs)
    ended = [run for run in runs if run.status == "finished" and "settings" in run.info]
    if not ended:
        raise ZooError(f"none of these {len(runs)} runs is finished; there is nothing to compare yet")
    data = _agreed(ended, "on different data", lambda run: _data(run.info["settings"]))
    watched = _agreed(ended, "watched by different metrics", lambda run: f"{run.info['monitor']}")
    watched_on_test = f"test/{watched.partition('/')[2]}"
    chosen = metric or watched_on_test
    if missing := [run for run in ended if chosen not in run.info.get("metrics", {})]:
        known = missing[0].info.get("metrics", {})
        raise ZooError(f"run {str(missing[0].path)!r} has no metric {chosen!r}.{suggest(chosen, known)}")
    grouped: dict[str, dict[int, Run]] = {}
    for run in ended:
        rest = {key: value for key, value in run.info["settings"].items() if key != "seed"}
        by_seed = grouped.setdefault(fingerprint_of(rest, run.info["revisions"]), {})
        by_seed[run.info["seed"]] = max(by_seed.get(run.info["seed"], run), run, key=_created)
    left_out = len(runs) - len(ended)
    return Collection(
        groups=tuple(
            Group(label=label, runs=dict(sorted(by_seed.items())))
            for label, by_seed in zip(_labels(list(grouped.values())), grouped.values(), strict=True)
        ),
        metric=chosen,
        mode=str(ended[0].info["mode"]) if chosen == watched_on_test else None,
        data=data,
        notes=(f"{left_out} of {len(runs)} runs are left out: they are not finished",) if left_out else (),
    )


def collect_each(runs: Iterable[Run], *, metric: str | None = None) -> list[Collection]:
    """As `collect`, one collection for each dataset and watched metric, in the order of their first runs.

    What is on different data is not compared, only shown one after the other.
    """
    apart: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if "settings" in run.info:
            apart.setdefault((_data(run.info["settings"]), str(run.info["monitor"])), []).append(run)
    return [collect(each, metric=metric) for each in apart.values()] or [collect([], metric=metric)]


def _of_sweep(folder: Path) -> list[Run]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        places = {point["id"]: place for place, point in enumerate(record["points"])}
        roots = record["runs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ZooError(f"the record of the sweep {str(folder)!r} cannot be read: {error!r}") from None
    found = [run for root in roots for run in runs_of(root, places)]
    return sorted(found, key=lambda run: places[run.info["fingerprint"]])


def _created(run: Run) -> str:
    return str(run.info.get("created", ""))


def _agreed(runs: Sequence[Run], how: str, of: Any) -> str:
    """What all runs have in common, or a refusal that names two that differ."""
    by_value: dict[str, Run] = {}
    for run in runs:
        by_value.setdefault(of(run), run)
    if len(by_value) > 1:
        (one, a), (other, b), *_ = by_value.items()
        raise ZooError(
            f"these runs cannot be compared: they are {how}. {str(a.path)!r}: {one}; "
            f"{str(b.path)!r}: {other}. --by-data shows them one after the other"
        )
    return next(iter(by_value))


def _data(settings: Mapping[str, Any]) -> str:
    params = settings["data"]["params"]
    given = ", ".join(f"{key}={value}" for key, value in params.items())
    return settings["data"]["name"] + (f"({given})" if given else "")


def _labels(groups: Sequence[Mapping[int, Run]]) -> list[str]:
    """What sets each group apart: its model if that does, else its recipe and the overrides not all share."""
    runs = [next(iter(by_seed.values())) for by_seed in groups]
    given = [[text for text in run.info["overrides"] if not text.startswith("seed=")] for run in runs]
    shared = set.intersection(*map(set, given))
    several = len({run.info["recipe"] for run in runs}) > 1
    models = [str(run.info["settings"]["model"]["name"]) for run in runs]
    if not several and len(runs) > 1 and len(set(models)) == len(models):
        return models
    labels = []
    for run, overrides in zip(runs, given, strict=True):
        own = [text.removeprefix("model.name=") for text in overrides if text not in shared]
        labels.append(" ".join([run.info["recipe"]] * (several or not own) + own))
    return [
        label if labels.count(label) == 1 else f"{label} ({run.path.name})"
        for label, run in zip(labels, runs, strict=True)
    ]
