"""The Aaren layer: a causal token mixer that is attention in training and a recurrent cell in a stream."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.precision import full_precision, sum_dtype
from zoo.layers.streams import check_state
from zoo_aaren.config import AarenConfig
from zoo_aaren.functional import AarenState, aaren_scan, aaren_step


class Aaren(nn.Module):
    """Multi-head attention whose query is a learned token, the same at every position (section 3.3).

    It has the parameters of multi-head self-attention plus one query token of size `width`.
    """

    def __init__(
        self, config: AarenConfig, *, width: int, heads: int, causal: bool, max_tokens: int | None = None
    ) -> None:
        """`max_tokens` sets no limit here: the state has one size for any number of tokens.

        Raises:
            ValueError: `causal` is false, or `heads` does not divide `width`.
        """
        super().__init__()
        if not causal:
            raise ValueError(
                "Aaren is causal only: it has one query for all positions, so that attention over all tokens "
                "would give every position the same output. Build it with causal=True, or take another mixer."
            )
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}, with at least one head")
        self.heads = heads
        self.channels = width // heads
        self.scale = config.scale if config.scale is not None else 1 / math.sqrt(self.channels)
        self.query_init_std = config.query_init_std
        self.block_size = config.block_size
        self.query_token = nn.Parameter(torch.empty(width))
        self.query = nn.Linear(width, width, bias=config.bias)
        self.key = nn.Linear(width, width, bias=config.bias)
        self.value = nn.Linear(width, width, bias=config.bias)
        self.out = nn.Linear(width, width, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout_prob)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Our choice, the paper states none: scores of layer-normed input start at a size of about 1."""
        nn.init.normal_(self.query_token, std=self.query_init_std)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D) -> (B, N, D). mask: bool (B, N), True = keep."""
        scores, values = self._scores_and_values(x)
        y = self._merge(aaren_scan(scores, values, key_mask=mask, block_size=self.block_size))
        if mask is None:
            return y
        sees = mask.cumsum(1) > 0  # (B, N): the bias of `out` would speak where nothing was seen
        return y.masked_fill(~sees.unsqueeze(-1), 0.0)

    def attention_probs(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """What share of its attention each position gives each token, for tools that look; x as in `forward`.

        Returns:
            (B, H, N, N), rows that sum to one; zeros for a position that sees nothing.
        """
        scores, _ = self._scores_and_values(x)
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        if mask is not None:
            seen = seen & mask[:, None, None]
        return scores.unsqueeze(2).masked_fill(~seen, -math.inf).softmax(-1).masked_fill(~seen, 0.0)

    def initial_state(self, batch_size: int) -> AarenState:
        """The state of streams that have seen nothing, in float32 (float64 for a float64 layer)."""
        token = self.query_token
        return AarenState.empty(
            batch_size, self.heads, self.channels, dtype=sum_dtype(token.dtype), device=token.device
        )

    def step(self, x: Tensor, state: AarenState) -> tuple[Tensor, AarenState]:
        """The next tokens of a stream, x: (B, C, D) for C >= 1 -> (B, C, D), and the new state.

        Raises:
            ValueError: x has another shape, or the state belongs to another batch size or layer.
        """
        check_state(state, AarenState, {})  # the functions look at the rest, but take `None` for a beginning
        scores, values = self._scores_and_values(x)
        if x.shape[1] == 1:
            out, state = aaren_step(scores.squeeze(2), values.squeeze(2), state)
            return self._merge(out.unsqueeze(2)), state
        mixed, state = aaren_scan(scores, values, state=state, block_size=self.block_size, return_state=True)
        return self._merge(mixed), state

    def _scores_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D) -> scores (B, H, N) in full precision, values (B, H, N, D / H)."""
        if x.dim() != 3 or x.shape[-1] != self.query_token.numel():
            raise ValueError(f"expected x (B, N, {self.query_token.numel()}), got {tuple(x.shape)}")
        values = self.value(x).unflatten(-1, (self.heads, self.channels)).transpose(1, 2)
        # The query is the same for all tokens, so that scale * q . (W_k x + b_k) is one product with q W_k:
        # the keys themselves are never needed. The same function, N D^2 cheaper.
        dtype = sum_dtype(x.dtype)
        with full_precision(x.device):
            query = F.linear(self.query_token, self.query.weight, self.query.bias).to(dtype) * self.scale
            query = query.view(self.heads, 1, self.channels)
            weight = torch.bmm(query, self.key.weight.to(dtype).unflatten(0, (self.heads, -1))).squeeze(1)
            bias: Tensor | None = None
            if self.key.bias is not None:
                bias = torch.bmm(query, self.key.bias.to(dtype).view(self.heads, -1, 1)).flatten()
            scores = F.linear(x.to(dtype), weight, bias).transpose(1, 2)
        return scores, values

    def extra_repr(self) -> str:
        return f"heads={self.heads}, scale={self.scale:g}, block_size={self.block_size}"

    def _merge(self, mixed: Tensor) -> Tensor:
        """(B, H, N, D / H) -> (B, N, D)."""
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
