"""How far a narrow network is from the widest: in its features, and in its answers.

Aich et al. 2023, arXiv:2308.11744, distil features of the widest encoder. The text of their method was out of
reach; the three distances of features are our own choices, none of which depends on the width. B batch,
C channels, N tokens, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.plugin import IGNORE, Classes, Maps, Multi, Values


def feature_distance(features: list[Tensor], teachers: list[Tensor], *, kind: str = "prefix") -> Tensor:
    """The mean distance over taps.

    features: (B, c, ...) each, or tokens (B, N, c). teachers: the same with at least as many channels.
    kind: a name of `DISTANCES`.
    """
    measure = DISTANCES[kind]
    pairs = zip(features, teachers, strict=True)
    return torch.stack([measure(narrow, wide) for narrow, wide in pairs]).mean()


def prefix_distance(narrow: Tensor, wide: Tensor) -> Tensor:
    """The mean over examples of ||n(F) - n(F'[:c])||^2, n the division by the norm of an example. 0 to 4."""
    dim = _channels(narrow)
    wide = wide.narrow(dim, 0, narrow.shape[dim])
    a, b = (F.normalize(each.flatten(1), dim=1) for each in (narrow, wide))
    return (a - b).square().sum(1).mean()


def attention_distance(narrow: Tensor, wide: Tensor) -> Tensor:
    """As `prefix_distance`, of where features are large: of the mean of F^2 over all channels. 0 to 2."""
    maps = (F.normalize(each.square().mean(_channels(each)).flatten(1), dim=1) for each in (narrow, wide))
    a, b = maps
    return (a - b).square().sum(1).mean()


def relation_distance(narrow: Tensor, wide: Tensor) -> Tensor:
    """||G/||G|| - G'/||G'|| ||^2 of the relations G (n, n) of all n places of all examples. 0 to 2.

    G = X X^T of features X (n, c) less their mean. It is twice what linear centred kernel alignment lacks to
    1 (Kornblith et al. 2019, arXiv:1905.00414), and is made of products of channels, (c, C), without G. All
    wide channels count, whichever narrow ones hold what they say.
    """
    a, b = (each.movedim(_channels(each), -1).flatten(0, -2) for each in (narrow, wide))
    a, b = a - a.mean(0), b - b.mean(0)
    alike = (a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()).clamp_min(1e-12)
    return 2 - 2 * alike


#: Distances of features by name.
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "prefix": prefix_distance,
    "attention": attention_distance,
    "relation": relation_distance,
}


def answer_distance(outputs: Tensor, teacher: Tensor, targets: Any, asked: Any) -> Tensor:
    """How far answers are from the teacher's, summed over the questions.

    Of classes the cross entropy against the teacher's probabilities (US-Nets, arXiv:1903.05134, section 3.3),
    of values the absolute difference; the mean over what the data asks for, so that a pixel without a label
    is left out.

    Args:
        outputs, teacher: (B, K), or (B, K, H, W).
        targets: the kind of target. asked: the batch's targets.

    Raises:
        ValueError: targets of another kind than classes and values, of examples or of pixels.
    """
    if isinstance(targets, (Multi, Maps)):
        ours, theirs = targets.split(outputs), targets.split(teacher)
        parts = [
            answer_distance(ours[name], theirs[name], part, asked[name])
            for name, part in targets.parts.items()
        ]
        return torch.stack(parts).sum()
    if isinstance(targets, Classes):
        each = -(teacher.softmax(1) * outputs.log_softmax(1)).sum(1)  # (B,) or (B, H, W)
        return _mean(each, asked != IGNORE)
    if isinstance(targets, Values):
        return _mean((outputs - teacher).abs(), ~asked.isnan())
    raise ValueError(f"answers are distilled for classes and values, not for {targets}")


def _mean(each: Tensor, kept: Tensor) -> Tensor:
    """Over what is kept; 0 where nothing is."""
    return each.where(kept, 0.0).sum() / kept.sum().clamp_min(1)


def _channels(features: Tensor) -> int:
    """The dimension of channels: the last of tokens (B, N, c), else the second."""
    return 2 if features.dim() == 3 else 1
