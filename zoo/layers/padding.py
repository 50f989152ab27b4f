"""Padding anywhere: kept tokens move to the front, in their order, and back when all is done.

B batch, N tokens. In front they are what they would be without padding: positions, decay and blocks count
kept tokens only, and what follows a row's last one is seen by nobody.
"""

from __future__ import annotations

import torch
from torch import Tensor


def front_order(mask: Tensor) -> Tensor:
    """mask: bool (B, N), True = keep -> int (B, N): where each row's kept tokens lie, then the others."""
    if not torch.compiler.is_exporting():
        return mask.long().argsort(dim=1, descending=True, stable=True)
    # ONNX has no stable sort: count where each token goes, then turn that round.
    kept = mask.long()
    goes = torch.where(mask, kept.cumsum(1), kept.sum(1, keepdim=True) + (1 - kept).cumsum(1)) - 1
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(goes)
    return torch.zeros_like(goes).scatter(1, goes, places)


def take_tokens(x: Tensor, order: Tensor, *, dim: int = 1) -> Tensor:
    """Tokens of x, (B, ..., N, ..., D) with N at `dim`, in the order (B, N)."""
    shape = [1] * x.dim()
    shape[0], shape[dim] = order.shape
    return torch.gather(x, dim, order.view(shape).expand(x.shape))


def kept_in_front(x: Tensor, mask: Tensor, order: Tensor, *, dim: int = 1) -> Tensor:
    """As `take_tokens`, with zeros for what is not kept, whatever it holds."""
    shape = [1] * x.dim()
    shape[0], shape[dim] = mask.shape
    return take_tokens(x.masked_fill(~mask.view(shape), 0.0), order, dim=dim)


def put_back(y: Tensor, mask: Tensor, order: Tensor, *, dim: int = 1) -> Tensor:
    """The inverse of `kept_in_front`: every token at its place, zeros at padding."""
    shape = [1] * y.dim()
    shape[0], shape[dim] = mask.shape
    return take_tokens(y, order.argsort(dim=1), dim=dim).masked_fill(~mask.view(shape), 0.0)
