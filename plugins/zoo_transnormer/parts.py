"""What layers are made of: activations, norms, gates, relative positions. B batch, N tokens, D width.

Each table maps names of `config.py` to things with one interface: a layer never asks which it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.init import init_linear
from zoo.layers.precision import sum_dtype
from zoo_transnormer.functional import lrpe, srms_norm

EPS = 1e-6


# -- activations -----------------------------------------------------------------------------


def _identity(x: Tensor) -> Tensor:
    return x


def _elu_plus_one(x: Tensor) -> Tensor:
    return 1 + F.elu(x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": F.silu,
    "elu": F.elu,
    "elu_plus_one": _elu_plus_one,
    "none": _identity,
}


# -- norms -----------------------------------------------------------------------------------


class SRMSNorm(nn.Module):
    """Simple RMS norm: no weights."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        return srms_norm(x, EPS)


class RMSNorm(SRMSNorm):
    """With weights."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.weight


def make_norm(name: str, *, width: int) -> nn.Module:
    """The norm of an attention output, over all heads jointly."""
    if name == "srms":
        return SRMSNorm()
    if name == "rms":
        return RMSNorm(width=width)
    return nn.LayerNorm(width, eps=EPS) if name == "layer" else nn.Identity()


# -- gates -----------------------------------------------------------------------------------


class Gate(Protocol):
    """Multiplies what a layer found by something that it makes of the layer's input."""

    def __init__(self, *, width: int, rank: int) -> None: ...

    def __call__(self, x: Tensor, found: Tensor) -> Tensor:
        """x, found: (B, N, D) -> (B, N, D)."""


class NoGate(nn.Module):
    """What was found, as it is."""

    def __init__(self, *, width: int, rank: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, found: Tensor) -> Tensor:
        return found


class LinearGate(nn.Module):
    """u = W x, as it is (TransNormerLLM, TNL)."""

    def __init__(self, *, width: int, rank: int) -> None:
        super().__init__()
        self.linear = init_linear(nn.Linear(width, width, bias=False))

    def forward(self, x: Tensor, found: Tensor) -> Tensor:
        return self.linear(x) * found


class SigmoidGate(LinearGate):
    """sigmoid(W x) (MiniMax-Text-01)."""

    def forward(self, x: Tensor, found: Tensor) -> Tensor:
        return self.linear(x).sigmoid() * found


class LowRankSigmoidGate(nn.Module):
    """sigmoid(W_up W_down x) (the layer beside the Lightning Attention kernels)."""

    def __init__(self, *, width: int, rank: int) -> None:
        super().__init__()
        self.down = init_linear(nn.Linear(width, rank, bias=False))
        self.up = init_linear(nn.Linear(rank, width, bias=False))

    def forward(self, x: Tensor, found: Tensor) -> Tensor:
        return self.up(self.down(x)).sigmoid() * found


GATES: dict[str, type[Gate]] = {
    "none": NoGate,
    "linear": LinearGate,
    "sigmoid": SigmoidGate,
    "lowrank_sigmoid": LowRankSigmoidGate,
}


# -- relative positions ----------------------------------------------------------------------


class Lrpe(nn.Module):
    """LRPE-d of TNL: twice as many channels, turned by learned angles; see `functional.lrpe`."""

    def __init__(self, *, heads: int, channels: int) -> None:
        super().__init__()
        self.heads = heads
        # One dimension, as optimisers tell what is not to decay by it.
        self.theta = nn.Parameter(torch.empty(heads * channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """10000^(-2 j / (H d)) with j over all heads' channels."""
        with torch.no_grad():
            self.theta.copy_(_frequencies(self.theta.numel(), of=self.theta.numel()))

    def forward(self, x: Tensor, offset: int | Tensor) -> Tensor:
        """x: (B, H, N, d), offset: position of the first token, an int or (B,) -> (B, H, N, 2 d)."""
        return lrpe(x, self.theta.view(self.heads, -1), offset)


class ReflectedRotary(nn.Module):
    """LRPE of TransNormer v1: a reflection by a fixed random unit vector, then rotations by learned angles.

    Channel pairs are (i, i + d/2); the angles are shared by the heads.
    """

    mirror: Tensor

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(
                f"LRPE turns pairs of channels: width / heads must be even, got {channels}; "
                "take fewer heads, or positions 'none'"
            )
        self.theta = nn.Parameter(torch.empty(channels // 2))
        self.register_buffer("mirror", torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """10000^(-2 i / d), and a new vector."""
        with torch.no_grad():
            self.theta.copy_(_frequencies(self.theta.numel(), of=2 * self.theta.numel()))
            self.mirror.copy_(F.normalize(torch.randn(self.mirror.shape), dim=0))

    def forward(self, x: Tensor, offset: int | Tensor) -> Tensor:
        """x: (B, H, N, d), offset: position of the first token -> (B, H, N, d)."""
        dtype = sum_dtype(x.dtype)
        wide = x.to(dtype)
        mirror = F.normalize(self.mirror.to(dtype), dim=0)  # of length 1 in any type
        wide = wide - 2 * (wide @ mirror).unsqueeze(-1) * mirror
        angle = (torch.arange(x.shape[2], device=x.device) + offset).to(dtype).unsqueeze(-1) * self.theta.to(
            dtype
        )
        cos, sin = angle.cos(), angle.sin()  # (N, d/2)
        first, second = wide.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), -1).to(x.dtype)


def _frequencies(count: int, *, of: int) -> Tensor:
    """10000^(-2 j / of), j = 0, ..., count - 1."""
    return 10_000.0 ** (-2 * torch.arange(count, dtype=torch.float64) / of)
