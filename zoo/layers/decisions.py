"""Decisions as a sequence: the stem that reads episodes, and the head that acts. B batch, N tokens, D width.

Chen et al. 2021, "Decision Transformer", https://arxiv.org/abs/2106.01345: return to go, state and action of
each step are three tokens; what to do is read from the token of the state.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kinds import Actions, Episodes
from zoo.layers.heads import _LinearHead
from zoo.layers.heads_config import ActionsHeadConfig
from zoo.layers.init import init_embedding, init_linear
from zoo.layers.stems_config import EpisodesStemConfig


class EpisodeTokens(nn.Module):
    """A linear map of its own for each role, plus a learned vector of the time step, then a layer norm."""

    per_token = True

    def __init__(self, config: EpisodesStemConfig, *, inputs: Episodes, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.values = inputs.columns - 2
        # One map of (values and 1, by role): what other roles have is zero.
        self.project = init_linear(
            nn.Linear(3 * (self.values + 1), width, bias=False), std=(self.values + 1) ** -0.5
        )
        self.time_embedding = init_embedding(nn.Embedding(inputs.horizon, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x: (B, N, C) as in `Episodes` -> (B, N, D), and the mask as it came."""
        role, time = self._roles_and_times(x)
        values = F.pad(x[..., 2:], (0, 1), value=1.0)  # (B, N, V + 1)
        by_role = F.one_hot(role, 3).to(x.dtype).unsqueeze(-1) * values.unsqueeze(-2)  # (B, N, 3, V + 1)
        return self.norm(self.project(by_role.flatten(-2)) + self.time_embedding(time)), mask

    def _roles_and_times(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.dim() != 3 or x.shape[2] != self.inputs.columns:
            raise ValueError(
                f"expected episodes (B, N, {self.inputs.columns}): role, time, values; got {tuple(x.shape)}"
            )
        role, time = x[..., 0].long(), x[..., 1].long()
        # On an accelerator a look at the values would wait for it.
        if x.device.type == "cpu" and x.numel() and not torch.compiler.is_compiling():
            for name, found, most in (("roles", role, 3), ("time steps", time, self.inputs.horizon)):
                low, high = int(found.min()), int(found.max())
                if low < 0 or high >= most:
                    raise ValueError(f"{name} must lie within 0..{most - 1}, got {low} to {high}")
        return role, time


class ActionsHead(_LinearHead):
    """What to do at each token: (B, N, D) -> (B, N, count), scores of choices or values within the limit."""

    per_token = True

    def __init__(self, config: ActionsHeadConfig, *, targets: Actions, width: int) -> None:
        super().__init__(outputs=targets.outputs, width=width, dropout_prob=config.dropout_prob)
        self.limit = targets.limit

    def forward(self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        """features: (B, N, D) -> (B, N, count); with `pre_logits` (B, N, D)."""
        outputs = super().forward(features, mask=mask, pre_logits=pre_logits)
        if pre_logits or self.limit is None:
            return outputs
        return self.limit * (outputs / self.limit).tanh()
