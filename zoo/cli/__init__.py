"""The command `zoo`. Verbs live in modules of their own and import torch only when they run."""

from zoo.cli.main import command, main

__all__ = ["command", "main"]
