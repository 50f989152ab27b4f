"""How the work grows with the tokens: operations counted, never seconds.

The work of an operation is its floating-point operations where torch knows them (products of matrices,
convolutions, attention), else the elements that it reads or writes, whichever are more; a view is free.
Sorting and Fourier transforms count as linear: their logarithm is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from zoo.layers.operations import OperationCounter, flops_of_call
from zoo.testing.measure import require
from zoo.testing.subject import Subject

LENGTHS = (512, 1024, 2048)
#: The power of N that the work may grow with between these lengths. N log N measures 1.13 there.
POWER = {"linear": 1.08, "linearithmic": 1.3, "subquadratic": 1.85, "quadratic": 2.1}

_aten = torch.ops.aten
#: They read only what they give: a large source costs nothing.
_GATHER = (_aten.index, _aten.index_select, _aten.gather, _aten.embedding, _aten.take, _aten.select_copy)


def check_cost(subject: Subject) -> None:
    claim = subject.claims.cost
    for causal in subject.directions:
        lengths = subject.lengths(*LENGTHS)
        if len(lengths) < 3:
            top = lengths[-1]
            lengths = subject.lengths(top // 4, top // 2, top)
        module = subject.build(causal=causal, dtype=torch.float32, max_tokens=lengths[-1])
        if len(lengths) < 3:
            continue
        for masked in (False, True):
            work = [count(subject, module, n, masked=masked) for n in lengths]
            power = growth(work)
            counted = ", ".join(f"{w:.4g} for {n}" for w, n in zip(work, lengths, strict=True))
            require(
                power <= POWER[claim],
                f"claimed {claim}, causal={causal}{', with a mask' * masked}: the work grows with "
                f"N^{power:.2f}, allowed N^{POWER[claim]} (operations: {counted} tokens)",
            )


def growth(work: list[int]) -> float:
    """The power with which work grows over three lengths, each twice the one before; constants drop out."""
    first, second = work[1] - work[0], work[2] - work[1]
    if second <= 0:
        return 0.0
    return math.log2(second / first) if first > 0 else math.inf


def count(subject: Subject, module: torch.nn.Module, n: int, *, masked: bool = False) -> int:
    """Operations of one forward pass on n tokens; masked: an eighth of them is padding."""
    x = subject.sample(1, n)
    mask = (torch.arange(n) < n - n // 8).unsqueeze(0) if masked else None
    with torch.no_grad(), OperationCounter(work_of_call) as counter:
        subject.run(module, x, mask)
    return counter.total


def work_of_call(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """The work of one call of torch, see above."""
    if (flops := flops_of_call(func, args, kwargs, out)) is not None:
        return flops
    written = _elements(out)
    if func.is_view:
        return 0
    if func._overloadpacket in _GATHER:
        return written
    if func._schema.is_mutable:  # into a larger tensor: what is written into it, not all of it
        changed = {i for i, a in enumerate(func._schema.arguments) if a.alias_info and a.alias_info.is_write}
        return _elements([a for i, a in enumerate(args) if i not in changed]) or written
    return max(written, _elements([args, kwargs]))


def _elements(tree: Any) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
