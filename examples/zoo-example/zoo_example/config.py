"""Parameters (torch-free): types, defaults, bounds and help texts in one place."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.plugin import Config, param


@dataclass(frozen=True, kw_only=True)
class ExampleConfig(Config):
    """Parameters of `example/example`."""

    memory: float = param(64.0, "tokens that the slowest channel looks back at the start", at_least=2)
