"""CPU-seconds of the command line from cold, and what it leaves unimported.

    python benchmarks/cli.py [--json PATH]

Each figure is the median of 7 fresh processes, user + system time of the process as the kernel counts it
(`os.wait4`), bytecode caches warm. Targets: `zoo list` under 0.3, `zoo validate` with five planted mistakes
under 0.5, with torch unloaded; exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RUNS = 7

#: Runs `zoo` like the command does, then tells on the heavy modules that it loaded.
PROBE = """
import sys
from zoo.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "torchvision", "timm", "pytorch_lightning", "omegaconf"} & set(sys.modules)
print("heavy:", *sorted(heavy), file=sys.stderr)
sys.exit(code)
"""

#: An unknown key, a wrong type, an unknown name, a value out of bounds, an unknown parameter.
FIVE_MISTAKES = """\
schema: 1
model:
  name: core/transformer
  params: {dpeth: 2}
data:
  name: core/digits
  batch_size: 0
optim:
  lr: fast
  name: adamv
trainer:
  max_epoch: 3
"""
PLANTED = ("dpeth", "batch_size", "optim.lr", "adamv", "max_epoch")


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    command: str
    cpu_seconds: float
    slowest: float
    target: float
    exit_code: int
    heavy: tuple[str, ...]
    output: str

    @property
    def ok(self) -> bool:
        return self.cpu_seconds < self.target and "torch" not in self.heavy


def measure(command: str, target: float, arguments: Sequence[str]) -> Measured:
    """The median of `RUNS` processes, after one that warms the caches."""
    seconds: list[float] = []
    for _ in range(RUNS + 1):
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen([sys.executable, "-c", PROBE, *arguments], stdout=out, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds.append(usage.ru_utime + usage.ru_stime)
            out.seek(0), err.seek(0)
            output, errors = out.read(), err.read()
    heavy = errors.rpartition("heavy:")[2].split()
    timed = seconds[1:]
    return Measured(
        command, statistics.median(timed), max(timed), target, process.returncode, tuple(heavy), output
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "five_mistakes.yaml"
        recipe.write_text(FIVE_MISTAKES, encoding="utf-8")
        results = [
            measure("zoo list", 0.3, ["list"]),
            measure("zoo validate (five mistakes)", 0.5, ["validate", str(recipe)]),
            measure("zoo matrix", 0.5, ["matrix"]),
        ]
    listed, validated, _ = results
    failures = [f"{r.command}: {r.cpu_seconds:.3f} s, loaded {r.heavy}" for r in results if not r.ok]
    failures += [f"not reported: {name}" for name in PLANTED if name not in validated.output]
    if "5 mistakes" not in _total(validated.output):
        failures.append("not exactly five mistakes")
    if (listed.exit_code, validated.exit_code) != (0, 2):
        failures.append(f"exit codes {listed.exit_code}, {validated.exit_code}; expected 0, 2")
    if "omegaconf" in listed.heavy:
        failures.append("zoo list loads omegaconf")
    print(f"{'command':<30} {'CPU s':>7} {'slowest':>8} {'target':>7}  loaded")
    for r in results:
        loaded = " ".join(r.heavy) or "-"
        print(f"{r.command:<30} {r.cpu_seconds:>7.3f} {r.slowest:>8.3f} {r.target:>7.1f}  {loaded}")
    for failure in failures:
        print(f"MISSED {failure}", file=sys.stderr)
    if options.json:
        rows = [{key: value for key, value in asdict(r).items() if key != "output"} for r in results]
        options.json.write_text(json.dumps({"runs": RUNS, "python": sys.version.split()[0], "results": rows}))
    return 1 if failures else 0


def _total(report: str) -> str:
    """`5 mistakes`, from the counts of the levels in a report of `zoo validate`."""
    counts = [line.split()[-2] for line in report.splitlines() if line.endswith(("mistake", "mistakes"))]
    return f"{sum(map(int, counts))} mistakes"


if __name__ == "__main__":
    sys.exit(main())
