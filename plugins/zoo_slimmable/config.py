"""Parameters of the plugin's components (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zoo.plugin import Config, param


@dataclass(frozen=True, kw_only=True)
class SlimmableConfig(Config):
    """Parameters of the transform `slim/slimmable`."""

    divisor: int = param(8, "channels in use are a multiple of this, where there are as many", at_least=1)
    exclude: tuple[str, ...] = param(
        (), "names of modules whose outputs keep their width, or patterns such as 'layer4*'"
    )
    input_size: tuple[int, ...] = param(
        (),
        "channels, height and width of an image, where the model does not say; it is traced once",
        at_least=1,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if len(self.input_size) not in (0, 3):
            yield "input_size", f"must be channels, height and width, got {self.input_size}"
