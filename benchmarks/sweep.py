"""A sweep with two processes against the same sweep with one.

    python benchmarks/sweep.py [--points 20] [--steps 1000] [--jobs 2]

Each sweep runs in a folder of its own, from the start of the command to its table, one thread per process;
wall time, and how many cores were busy in the mean.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from turns import Row, lines, show

RECIPE = """\
schema: 1
model: {name: core/mlp_net, width: 64, params: {depth: 2}}
data: {name: core/wine, batch_size: 32}
"""


def sweep(points: int, steps: int, jobs: int) -> tuple[float, float, float]:
    """Seconds of a sweep that begins with nothing: in all, of that in training, of all processors."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
        command = [sys.executable, "-m", "zoo", "sweep", "tiny.yaml", f"seed=0..{points - 1}"]
        command += [f"trainer.max_steps={steps}", "--jobs", str(jobs)]
        wall, cpu = time.perf_counter(), _of_children()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        wall, cpu = time.perf_counter() - wall, _of_children() - cpu
        if done.returncode != 0 or f"[{points}/{points}]" not in done.stderr:
            raise SystemExit(f"the sweep failed:\n{done.stderr}")
        trained = re.search(r"took (\d+) s", done.stderr)
    return wall, float(trained[1]) if trained else wall, cpu


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep with two processes against one.")
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    rows: list[Row] = []
    first = (0.0, 0.0)
    for jobs in (1, options.jobs):
        wall, trained, cpu = sweep(options.points, options.steps, jobs)
        first = first if rows else (wall, trained)
        rows.append(
            {
                "jobs": jobs,
                "the whole command, s": round(wall, 1),
                "times as fast": round(first[0] / wall, 2),
                "training alone, s": round(trained),
                "times as fast in training": round(first[1] / trained, 2),
                "busy cores": round(cpu / wall, 2),
            }
        )
    show(f"{options.points} points of {options.steps} steps", lines(rows))


if __name__ == "__main__":
    main()
