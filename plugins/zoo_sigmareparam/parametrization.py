"""The parametrization of one weight: gamma, u and v beside it, and the weight that they make of it.

s maps in the weight (usually one), m rows (outputs) and n columns (inputs) of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo_sigmareparam.functional import power_iterate, sigma_reparam_weight, spectral_sigma


class SigmaReparam(nn.Module):
    """W -> gamma / sigma(W) W, for use with `torch.nn.utils.parametrize`. The forward writes nothing.

    In training it takes u and v as they are: `update` moves them, once before each step. In evaluation it
    takes them one power step further, as the next training step will.

    Args:
        row_dim: the dimension of the weight that counts outputs; the others together count inputs.
        maps: s, how many maps stand above each other in the rows, each with a gamma of its own.

    Attributes:
        gamma: (s,), learned; float32 at least, whatever the module is cast to, like u (s, n) and v (s, m).
    """

    def __init__(self, weight: Tensor, *, row_dim: int = 0, maps: int = 1) -> None:
        super().__init__()
        self.row_dim, self.maps = row_dim, maps
        maps_, rows, columns = self.as_matrices(weight).shape
        like = torch.empty(0, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)
        self.gamma = nn.Parameter(like.new_ones(maps_))
        self.u: Tensor
        self.v: Tensor
        self.register_buffer("u", like.new_zeros(maps_, columns))
        self.register_buffer("v", like.new_zeros(maps_, rows))

    def forward(self, weight: Tensor) -> Tensor:
        """weight: of any shape -> the same shape and dtype, of spectral norm gamma."""
        matrices = self.as_matrices(weight)
        if self.training:
            # Copies: the next update must not change what this forward needs for its backward.
            u, v = self.u.clone(), self.v.clone()
        else:
            u, v = power_iterate(matrices, self.u)
        made = sigma_reparam_weight(matrices, self.gamma, u, v)
        rows_first = weight.movedim(self.row_dim, 0)
        return made.reshape(rows_first.shape).movedim(0, self.row_dim)

    @torch.no_grad()
    def start(self, weight: Tensor, *, steps: int, gamma: float | None, generator: torch.Generator) -> None:
        """Set u and v by power steps from a random vector, and gamma: a number, or sigma, which keeps W."""
        random = torch.randn(self.u.shape, generator=generator, dtype=torch.float64)
        u, v = power_iterate(self.as_matrices(weight), random.to(self.u), steps)
        self.u.copy_(u)
        self.v.copy_(v)
        if gamma is not None:
            self.gamma.fill_(gamma)
            return
        # The vectors that both the first training step and an evaluation before it will use.
        u, v = power_iterate(self.as_matrices(weight), self.u)
        self.gamma.copy_(spectral_sigma(self.as_matrices(weight), u, v))

    @torch.no_grad()
    def update(self, weight: Tensor, n: int = 1) -> None:
        """n power steps towards the leading singular vectors of the weight as it is now."""
        u, v = power_iterate(self.as_matrices(weight), self.u, n)
        self.u.copy_(u)
        self.v.copy_(v)

    @torch.no_grad()
    def sigma(self, weight: Tensor) -> Tensor:
        """The estimate of the weight's own spectral norm, (s,)."""
        u, v = power_iterate(self.as_matrices(weight), self.u)
        return spectral_sigma(self.as_matrices(weight), u, v)

    def as_matrices(self, weight: Tensor) -> Tensor:
        """The weight as (s, m, n).

        Raises:
            RuntimeError: only a shard of the weight is here.
        """
        if hasattr(weight, "placements") or weight.dim() < 2 or _is_freed(weight):
            raise RuntimeError(
                "sigmaReparam needs whole weight matrices, but this one is sharded (FSDP full shard or "
                "tensor parallel). Use DistributedDataParallel, or fold_sigma_reparam_(model) before sharding"
            )
        rows = weight.shape[self.row_dim]
        return weight.movedim(self.row_dim, 0).reshape(self.maps, rows // self.maps, -1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SigmaReparam:
        """Moves and casts, but never below float32: half precision is too coarse for a norm."""

        def moved(tensor: Tensor) -> Tensor:
            done = fn(tensor)
            wide = torch.promote_types(done.dtype, torch.float32)
            return done if done.dtype == wide else tensor.to(device=done.device, dtype=wide)

        super()._apply(moved, recurse)
        return self

    def extra_repr(self) -> str:
        return f"maps={self.maps}, row_dim={self.row_dim}"


def _is_freed(weight: Tensor) -> bool:
    """Whether the whole weight is nowhere at the moment, as between the forwards of FSDP units."""
    if torch.compiler.is_compiling() or weight.is_meta:
        return False
    return weight.numel() > 0 and weight.untyped_storage().size() == 0


class Converted(NamedTuple):
    """A converted weight: its full name, its owner, its name there, its parametrization, the W behind it."""

    name: str
    module: nn.Module
    parameter: str
    by: SigmaReparam
    original: Tensor


def converted(model: nn.Module) -> Iterator[Converted]:
    """Every converted weight of a model."""
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for parameter, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            by = chain[0]
            if isinstance(by, SigmaReparam):
                name = f"{path}.{parameter}" if path else parameter
                yield Converted(name, module, parameter, by, chain.original)
