"""A sweep: points, what became of each, and the work that is left (torch-free)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.runs import Run, recipe_folder, replacing, runs_of, writing
from zoo.sweep.cluster import carry_out_on_ray
from zoo.sweep.points import Point
from zoo.sweep.pool import carry_out_all
from zoo.sweep.worker import Job, Outcome

RECORD = "sweep.json"
State = Literal["finished", "failed", "interrupted", "new"]
Place = Literal["here", "ray"]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Points, and the folder that remembers which they are and why any of them failed.

    The runs themselves stand where `zoo train` would put them, and are known by their fingerprint: one that
    was trained by hand, by another sweep or on another machine counts as well.
    """

    folder: Path
    points: tuple[Point, ...]

    def runs(self) -> dict[str, Run]:
        """The run that counts for each point, by its id: a finished one, else the latest."""
        counts: dict[str, Run] = {}
        known = {point.id for point in self.points}
        for root in {point.loaded.recipe.output.dir for point in self.points}:
            for run in runs_of(root, known):
                id = run.info["fingerprint"]
                if id not in counts or counts[id].status != "finished":
                    counts[id] = run
        return counts

    def states(self) -> dict[str, State]:
        """What became of each point so far."""
        runs = self.runs()
        return {point.id: self._state(point, runs.get(point.id)) for point in self.points}

    def _state(self, point: Point, run: Run | None) -> State:
        if run is not None and run.status == "finished":
            return "finished"
        if self.failure(point).is_file() or (run is not None and run.status == "failed"):
            return "failed"
        return "new" if run is None else "interrupted"

    def failure(self, point: Point) -> Path:
        """The file that says why a point failed; there is none where it did not."""
        return self.folder / f"{point.id}.failed"

    def log(self, point: Point) -> Path:
        """What training this point printed."""
        return self.folder / f"{point.id}.log"

    def train(
        self, *, workers: int, retry: bool, on: Place = "here"
    ) -> Generator[tuple[Point, Outcome], None, None]:
        """Train what is not finished, failed points only where `retry`; each comes back when it has ended.

        on: in processes of this machine, or on a Ray cluster.
        """
        states = self.states()
        left = [
            point
            for point in self.points
            if states[point.id] != "finished" and (retry or states[point.id] != "failed")
        ]
        by_id = {point.id: point for point in left}
        for point in left:
            self.failure(point).unlink(missing_ok=True)
        carry_out = carry_out_on_ray if on == "ray" else carry_out_all
        for job, outcome in carry_out([self._job(point) for point in left], workers=workers):
            point = by_id[job.id]
            if outcome.ending == "failed":
                with writing(self.folder), replacing(self.failure(point)) as file:
                    file.write(outcome.error.encode())
            elif self.log(point).is_file() and not self.log(point).stat().st_size:
                self.log(point).unlink()
            yield point, outcome

    def write(self, arguments: Sequence[str]) -> None:
        """Put down what the sweep is, for `zoo compare` and for people; arguments: as it was asked for."""
        record = {
            "arguments": list(arguments),
            "runs": sorted({point.loaded.recipe.output.dir for point in self.points}),
            "points": [
                {"id": point.id, "recipe": point.recipe, "overrides": list(point.overrides)}
                for point in self.points
            ],
        }
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / RECORD) as file:
                file.write((json.dumps(record, indent=2) + "\n").encode())

    def _job(self, point: Point) -> Job:
        return Job(
            recipe=point.recipe,
            overrides=point.overrides,
            id=point.id,
            log=str(self.log(point)),
            lock=str(self.folder.parent / f".{point.id}.lock"),
        )


def make_sweep(points: Sequence[Point]) -> Sweep:
    """The sweep of these points. The same points are the same sweep, in whatever order they are given."""
    first = points[0].loaded
    name = hashlib.sha256(" ".join(sorted(point.id for point in points)).encode()).hexdigest()[:8]
    sweeps = recipe_folder(Path(first.recipe.output.dir) / "sweeps", first.name)
    return Sweep(folder=sweeps / name, points=tuple(points))
