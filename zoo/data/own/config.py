"""What the parameters of people's own data share (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zoo.config import Config, param


@dataclass(frozen=True, kw_only=True)
class PathConfig(Config):
    """Where the data lies."""

    path: str = param(help="the file or folder", path=True)


@dataclass(frozen=True, kw_only=True)
class DrawnConfig(Config):
    """How parts are drawn where the data does not say."""

    val: float = param(0.1, "share that is drawn for validation", above=0, below=1)
    test: float = param(0.2, "share that is drawn for test", above=0, below=1)
    seed: int = param(0, "seed of the draw", at_least=0)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.val + self.test >= 1:
            yield (
                "val",
                f"and test together are {self.val + self.test:g} of the data: nothing is left to train",
            )


def sizes(counts: Any) -> str:
    """`train / val / test 105 / 15 / 30`."""
    return f"train / val / test {' / '.join(map(str, counts))}"
