"""The workers of a sweep on a Ray cluster: `zoo sweep --on ray` (torch-free).

A point is a task of Ray, done by the same `carry_out` as at home. A worker that dies is replaced by Ray, and
the point goes on from its last checkpoint: all machines must share the folder that the sweep is started in.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, one_line
from zoo.sweep.worker import Job, Outcome, carry_out, printing_to

#: How often a point whose worker died is given to another one.
LIVES = 3


def carry_out_on_ray(jobs: Sequence[Job], *, workers: int) -> Iterator[tuple[Job, Outcome]]:
    """Carry out jobs on a cluster, at most so many at a time; each comes back as soon as it has ended.

    The cluster is that of RAY_ADDRESS, else one that runs on this machine, else one is started for the sweep.
    A job takes one CPU, and one GPU where the cluster has any. Ctrl-C interrupts those at work in good order.

    Raises:
        ZooError: ray is not installed, or there is no cluster to be had.
    """
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="WARNING")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ZooError(f"there is no Ray cluster to be had: {one_line(error)}") from None
    try:
        yield from _carry_out(ray, jobs, workers)
    finally:
        if own:
            ray.shutdown()


def _carry_out(ray: Any, jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Outcome]]:
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    ours = {key: value for key, value in os.environ.items() if key.startswith("ZOO_")}
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=LIVES)(_at_work)
    waiting = list(reversed(jobs))
    at_work: dict[Any, Job] = {}
    try:
        while waiting or at_work:
            while waiting and len(at_work) < workers:
                job = waiting.pop()
                at_work[task.remote(job, os.getcwd(), ours)] = job
            (ended, *_), _ = ray.wait(list(at_work))
            yield at_work.pop(ended), _outcome(ray, ended)
    except (KeyboardInterrupt, GeneratorExit):
        for ref in at_work:
            ray.cancel(ref, force=False)  # a KeyboardInterrupt over there
        ray.wait(list(at_work), num_returns=len(at_work))
        raise


def _at_work(job: Job, folder: str, environment: Mapping[str, str]) -> Outcome:
    """What a worker of Ray does: the job, in the folder of the sweep and with its ZOO_* variables."""
    os.environ.update(environment)
    try:
        os.chdir(folder)
        Path(job.log).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = f"the folder {folder!r} of the sweep cannot be used on this machine: {error.strerror}"
        return Outcome(ending="failed", error=f"{where}. All machines of the cluster must share it")
    with printing_to(Path(job.log)):
        return carry_out(job)


def _outcome(ray: Any, ended: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(ended)
    except ray.exceptions.TaskCancelledError:
        return Outcome(ending="interrupted")
    except ray.exceptions.RayError as error:
        return Outcome(ending="failed", error=f"its worker was lost: {one_line(error)}")
    return outcome


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ZooError(f"--on ray needs Ray ({error}): pip install 'archzoo[ray]'") from None
