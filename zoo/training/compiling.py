"""What goes wrong when torch compiles a model, in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zoo.errors import ZooError

#: Where torch's errors of compiling come from; they have no common class.
_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")


@contextmanager
def compiling() -> Iterator[None]:
    """Whatever torch's compilers raise becomes a `ZooError`."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(_COMPILERS):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ZooError(
            f"trainer.compile: torch cannot compile this model here: {' '.join(lines[:2])}. "
            "Without trainer.compile it trains as it is"
        ) from error
