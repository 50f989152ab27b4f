"""What a memory is: its weights and their momentum. B streams, H heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.layers.precision import sum_dtype
from zoo.layers.streams import detach_state, put_rows, select_rows


class MemoryState(NamedTuple):
    """The memories of B streams, H heads each. Its size does not depend on how many tokens they have seen.

    weights, momentum: of each layer, (B, H, n_in, n_out), float32 (float64 for float64 inputs).
    anchor: the weights at the start of the chunk that is under way, at which its gradients are taken.
    phase: int64 (B,), how many tokens of that chunk each stream has seen; at 0 `anchor` equals `weights`.
    """

    weights: tuple[Tensor, ...]
    momentum: tuple[Tensor, ...]
    anchor: tuple[Tensor, ...]
    phase: Tensor

    @classmethod
    def start(cls, weights: Sequence[Tensor], batch_size: int) -> MemoryState:
        """Before the first token: every stream has these weights, (H, n_in, n_out) each, and no momentum."""
        dtype = sum_dtype(*(w.dtype for w in weights))
        first = tuple(w.to(dtype).expand(batch_size, *w.shape).clone() for w in weights)
        return cls(
            first,
            tuple(torch.zeros_like(w) for w in first),
            tuple(w.clone() for w in first),
            torch.zeros(batch_size, dtype=torch.int64, device=first[0].device),
        )

    def detach(self) -> MemoryState:
        """Cut off from the past: truncated backpropagation through time."""
        return detach_state(self)

    def select(self, rows: Tensor) -> MemoryState:
        """The memories of these streams, int64 (R,) or bool (B,): those that go on, reordered or repeated."""
        return select_rows(self, rows)

    def reset(self, rows: Tensor, weights: Sequence[Tensor]) -> MemoryState:
        """These streams start anew, int64 (R,) or bool (B,), with weights (H, n_in, n_out) each."""
        count = int(rows.sum()) if rows.dtype == torch.bool else len(rows)
        return put_rows(self, rows, MemoryState.start(weights, count))

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(t.nbytes for t in (*self.weights, *self.momentum, *self.anchor, self.phase))
