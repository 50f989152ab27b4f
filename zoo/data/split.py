"""What a dataset loads into: `Splits`, and two kinds of split that build whole batches at once.

B batch, N tokens or time steps, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.data.batch import Batch, Example
from zoo.errors import ZooError
from zoo.kinds import IGNORE


class Split(Protocol):
    """A map-style dataset. With `__getitems__(indices) -> Batch` it makes batches itself."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A loaded dataset.

    encode: what turned a raw example into an input, for data that comes later. A raw image is float
        (C, H, W) in [0, 1]; a raw vector (F,), a raw series (N, C) and raw ids (N,) are as they stand in a
        file; a raw text is a str. One that has a method `read(path) -> list of inputs` reads files to predict
        on itself: a table by its columns' names, an image of any size.
    decode: what turns targets (or predictions of them) back: standardised values into natural units,
        ids into text. `None`: they are what they seem.
    text: `encode` takes text.
    source: where fetched files came from and their checksums (`zoo.data.fetch.Fetched.record`), for the
        record of a run; `None`: bundled or generated.
    best: what the best answer possible gets on test, by the names of the task's metrics (some of them):
        known only of generated data. No model does better, but for chance.
    arena: where a model that acts can play (`zoo.data.episodes.Arena`).

    Raises:
        ZooError: a split is empty.
    """

    train: Split
    val: Split
    test: Split
    encode: Callable[[Any], Tensor] | None = None
    decode: Callable[[Tensor], Any] | None = None
    text: bool = False
    source: Mapping[str, Any] | None = None
    best: Callable[[], Mapping[str, float]] | None = None
    arena: Any = None

    def __post_init__(self) -> None:
        for name, size in self.sizes.items():
            if size == 0:
                raise ZooError(f"the {name} split of this dataset is empty; each split needs an example")

    @property
    def sizes(self) -> dict[str, int]:
        """Examples per split, e.g. `{"train": 80, "val": 10, "test": 10}`."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test)}


class TensorSplit:
    """Examples that lie in memory side by side.

    Args:
        inputs: (B, ...), ragged ones padded on the right.
        targets: (B, ...), or a dict of such; per-token targets (B, N) of ragged inputs are cut like these.
        lengths: int64 (B,), the true N of each ragged input; `None`: not ragged.

    Raises:
        ValueError: the tensors disagree in their number of examples, or a length is not within 1..N.
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor | dict[str, Tensor], *, lengths: Tensor | None = None
    ) -> None:
        several = list(targets.values()) if isinstance(targets, dict) else [targets]
        sizes = [len(t) for t in (inputs, *several, lengths) if t is not None]
        if len(set(sizes)) > 1:
            raise ValueError(f"inputs, targets and lengths must have as many examples each, got {sizes}")
        if lengths is not None and not ((lengths >= 1) & (lengths <= inputs.shape[1])).all():
            raise ValueError(f"lengths must lie within 1..{inputs.shape[1]}, the padded size")
        self.inputs = inputs
        self.targets = targets
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Example:
        """One example, without padding."""
        batch = self.__getitems__([_position(index, len(self))])
        return {name: _each(batch[name], lambda t: t[0]) for name in ("input", "target")}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch, padded to the longest of its own examples only."""
        at = torch.as_tensor(indices)
        batch: Batch = {"input": self.inputs[at], "target": _each(self.targets, lambda t: t[at])}
        if self.lengths is not None:
            batch["length"] = self.lengths[at]
            longest = int(batch["length"].max())
            batch["input"] = batch["input"][:, :longest]
            batch["target"] = _each(batch["target"], lambda t: t[:, :longest] if self._per_token(t) else t)
        return batch

    def _per_token(self, target: Tensor) -> bool:
        """(B, N) whole numbers: as many real values per example as there are steps would be chance."""
        return target.shape[1:] == self.inputs.shape[1:2] and not target.is_floating_point()


class IdSequence(Protocol):
    """One long sequence of ids, in memory (a tensor) or on disk (`zoo.data.tokens.TokenFile`)."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: Tensor, /) -> Tensor:
        """The ids at these positions, int64 of the same shape."""


class TokenWindows:
    """Blocks of one long sequence of ids: input (N,) and, one further on, target (N,).

    The last block ends with the sequence.

    Args:
        ids: int64 (total,).
        length: N, symbols per block.
        stride: from the start of one block to the start of the next.
        once: score each symbol exactly once: targets that an earlier block has asked for are IGNORE.

    Raises:
        ZooError: the sequence is too short for one block.
    """

    def __init__(self, ids: IdSequence, *, length: int, stride: int, once: bool = False) -> None:
        if not 1 <= stride <= length:
            raise ValueError(f"stride must lie within 1..{length} (length), got {stride}")
        last = len(ids) - 1 - length
        if last < 0:
            raise ZooError(
                f"a block of {length} symbols needs {length + 1}, but there are {len(ids)}; lower `length`"
            )
        self.ids = ids
        self.starts = torch.cat([torch.arange(0, last, stride), torch.tensor([last])])
        self._offsets = torch.arange(length)
        # The first offset of each block that no earlier block has asked for.
        fresh = torch.zeros_like(self.starts)
        if once:
            fresh[1:] = self.starts[:-1] + length - self.starts[1:]
        self._fresh = fresh

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Example:
        batch = self.__getitems__([_position(index, len(self))])
        return {name: tensor[0] for name, tensor in batch.items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch of blocks, (B, N) each."""
        chosen = torch.as_tensor(indices)
        at = self.starts[chosen][:, None] + self._offsets  # (B, N)
        asked = self._offsets >= self._fresh[chosen][:, None]
        return {"input": self.ids[at], "target": self.ids[at + 1].where(asked, IGNORE)}


class Readings:
    """Every block of a text several times in a row, for models that learn while they read.

    Each reading asks for what the block asks for, but for its last symbol where another reading follows.

    Args:
        blocks: input and target (N,) each.
        times: how often each is read, at least once.
    """

    def __init__(self, blocks: TokenWindows, times: int) -> None:
        if times < 1:
            raise ValueError(f"a block is read at least once, got times={times}")
        self.blocks = blocks
        self.times = times

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Example:
        batch = self.__getitems__([_position(index, len(self))])
        return {name: tensor[0] for name, tensor in batch.items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch of readings, (B, times N) each."""
        batch = self.blocks.__getitems__(indices)
        target = batch["target"].repeat(1, self.times)
        length = target.shape[1] // self.times
        target[:, length - 1 : -1 : length] = IGNORE  # what follows there is the block's first symbol
        return {"input": batch["input"].repeat(1, self.times), "target": target}


def _each(targets: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A target changed, or each of a dict of them."""
    if isinstance(targets, dict):
        return {name: change(tensor) for name, tensor in targets.items()}
    return change(targets)


def _position(index: int, size: int) -> int:
    """`index` counted from the start.

    Raises:
        IndexError: it lies outside (this also ends a `for` over the split).
    """
    if not -size <= index < size:
        raise IndexError(f"example {index} of {size}")
    return index % size
