"""The layers of a backbone, found without knowing it."""

from __future__ import annotations

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint


def repeated_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The modules that a backbone is a stack of: the members of its outermost lists, each once.

    A list of plain layers (a linear map, an activation) is not what is meant; none may be found.
    """
    found: dict[nn.Module, None] = {}
    for child in backbone.children():
        found |= dict.fromkeys(_members(child) or repeated_blocks(child))
    return list(found)


def _members(module: nn.Module) -> list[nn.Module]:
    """The blocks in a list of several, those of lists within it in their stead."""
    if not isinstance(module, (nn.ModuleList, nn.Sequential)):
        return []
    blocks = [member for member in module if next(member.children(), None) is not None]
    return [each for block in blocks for each in _members(block) or [block]] if len(blocks) > 1 else []


def recompute_blocks(backbone: nn.Module) -> None:
    """Gradient checkpointing: keep the input of each block alone, and compute it again going backwards.

    The same gradients in less memory, for about a third more computing (Chen et al. 2016, arXiv:1604.06174).
    Dropout draws the same again. Names of weights stay.

    Raises:
        ValueError: there is no stack of blocks, or one would not compute the same twice.
    """
    blocks = repeated_blocks(backbone)
    if not blocks:
        raise ValueError("its backbone shows no stack of layers that could be computed again")
    for block in blocks:
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in block.modules()):
            raise ValueError("its layers hold batch norms, whose statistics would count each batch twice")
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
