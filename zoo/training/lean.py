"""Lightning with less to do around a step.

In every step Lightning calls a dozen hooks on the module and six on each callback, most of which do nothing,
profiles each call though nobody profiles, and notes the running hook in an attribute of the module, which
torch's modules are slow to set. After a step's computing all that meets cold caches: two milliseconds.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from typing_extensions import override

from zoo.training.lightning import PassThroughProfiler, pl

#: The hooks of a step.
_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def skip_idle_hooks(owner: pl.Callback | pl.LightningModule) -> None:
    """Put `None` for the hooks of a step that it leaves as they are in Lightning, which skips those then."""
    base = pl.Callback if isinstance(owner, pl.Callback) else pl.LightningModule
    for name in _HOOKS:
        if getattr(type(owner), name) is getattr(base, name):
            setattr(owner, name, None)


class Unprofiled(PassThroughProfiler):
    """No profiler: Lightning's own makes a context of each call all the same."""

    _nothing = nullcontext()

    @override
    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return self._nothing
