"""Where a token stands: learned position embeddings and rotary ones. B batch, N tokens, D width, H heads.

Positions count kept tokens only, so that padding on either side changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.layers.init import EMBEDDING_STD


def position_ids(mask: Tensor | None, n: int, *, device: torch.device | None = None) -> Tensor:
    """Position of each token among the kept ones: (B, N) int64, or (1, N) without a mask.

    mask: bool (B, N), True = keep. A padded token has the position of the kept token before it, at least 0.
    """
    if mask is None:
        return torch.arange(n, device=device).unsqueeze(0)
    return (mask.long().cumsum(1) - 1).clamp_min(0)


class LearnedPositions(nn.Module):
    """One trained embedding per position, added to the tokens; there is none past `max_tokens`."""

    def __init__(self, *, max_tokens: int, width: int) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.weight = nn.Parameter(torch.empty(max_tokens, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=EMBEDDING_STD)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """x: (B, N, D) -> (B, N, D), with the first token of each row at position `start`, int64 (B,).

        Raises:
            ValueError: a kept token would stand past `max_tokens`.
        """
        ids = position_ids(mask, x.shape[1], device=x.device)  # (B or 1, N)
        before = 0
        if start is not None:
            ids = ids + start.unsqueeze(1)
            before = int(start.max())
        # Looking at the mask costs a device synchronisation, so only where the shape leaves a doubt.
        if before + x.shape[1] > self.max_tokens and (mask is None or int(ids.max()) >= self.max_tokens):
            raise ValueError(
                f"learned positions end at max_tokens={self.max_tokens}, got {before + x.shape[1]} tokens; "
                "build the model for more tokens, or use positions 'rope' or 'none'"
            )
        return x + self.weight[ids]

    def extra_repr(self) -> str:
        return f"max_tokens={self.max_tokens}, width={self.weight.shape[1]}"


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021, "RoFormer", https://arxiv.org/abs/2104.09864).

    Channel pair i is turned by the angle position * base^(-2i/d), so that the product of a query and a key
    depends on their distance only. Pairs are (i, i + d/2): the paper's, with the channels in another order.
    Has no parameters and no buffers; angles are computed in float32 at least.
    """

    def __init__(self, *, head_width: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_width % 2:
            raise ValueError(
                f"rotary positions turn pairs of channels: head width must be even, got {head_width}"
            )
        self.head_width = head_width
        self.base = base

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: queries or keys (B, H, N, d); positions: int (B or 1, N) -> (B, H, N, d)."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        pairs = torch.arange(0, self.head_width, 2, device=x.device, dtype=dtype)
        angle = positions[:, None, :, None] * self.base ** (-pairs / self.head_width)  # (B or 1, 1, N, d/2)
        cos, sin = angle.cos(), angle.sin()
        first, second = x.to(dtype).chunk(2, dim=-1)
        turned = torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)  # eq. (34)
        return turned.to(x.dtype)

    def extra_repr(self) -> str:
        return f"head_width={self.head_width}, base={self.base:g}"
