"""Several workers side by side, each with its share of the processor (torch-free)."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from zoo.sweep.worker import Job, Outcome


def carry_out_all(jobs: Sequence[Job], *, workers: int) -> Iterator[tuple[Job, Outcome]]:
    """Carry out jobs in so many processes; each comes back as soon as it has ended.

    Ctrl-C, or whatever else ends the iteration early, interrupts the jobs at work in good order, and begins
    no other; a second Ctrl-C, at once. A worker that lost its sweep to a kill ends after the job at hand.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    done: queue.SimpleQueue[tuple[Job, Outcome] | None] = queue.SimpleQueue()
    team = [_Worker(waiting, done, _environment(workers)) for _ in range(min(workers, len(jobs)))]
    for worker in team:
        worker.start()
    at_work = len(team)
    try:
        while at_work:
            ended = done.get()
            if ended is None:
                at_work -= 1
            else:
                yield ended
    finally:
        _empty(waiting)
        while any(worker.is_alive() for worker in team):
            for worker in team:
                worker.interrupt()
            with contextlib.suppress(KeyboardInterrupt):
                for worker in team:
                    worker.join()


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """SIGTERM, with which schedulers and services end a process, does meanwhile what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are heard in the main thread alone
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _empty(waiting: queue.SimpleQueue[Job]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait()


class _Worker(threading.Thread):
    """Hands jobs to one process, and to another where that one dies."""

    def __init__(
        self,
        waiting: queue.SimpleQueue[Job],
        done: queue.SimpleQueue[tuple[Job, Outcome] | None],
        environment: dict[str, str],
    ) -> None:
        super().__init__(daemon=True)
        self._waiting, self._done, self._environment = waiting, done, environment
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        try:
            while True:
                job = self._waiting.get_nowait()
                if self._process is None or self._process.poll() is not None:
                    self._process = self._start_process()
                self._done.put((job, _ask(self._process, job)))
        except queue.Empty:
            pass
        finally:
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
                self._process.wait()
            self._done.put(None)

    def interrupt(self) -> None:
        """As Ctrl-C does it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def _start_process(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from zoo.sweep.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches it through `interrupt` alone, and only once
        )


def _ask(process: subprocess.Popen[str], job: Job) -> Outcome:
    """The answer of a process; where it dies over the job, that is the answer."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(job)) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if answer:
        return Outcome(**json.loads(answer))
    code = process.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return Outcome(ending="failed", error=f"its process {how}")


def _environment(workers: int) -> dict[str, str]:
    """Two processes that each start a thread per core wait for each other; each gets its share."""
    share = max(1, (os.cpu_count() or 1) // workers)
    return {"OMP_NUM_THREADS": str(share), **os.environ} if workers > 1 else dict(os.environ)
